"""Expressions made up by a machine: only our error comes out, nothing is changed, nothing but data is reached."""

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.definitions.evaluation import MAX_STEPS, Run
from perdure.definitions.expression_compiler import Compiler
from perdure.definitions.expressions import Expression, evaluate, parse
from perdure.definitions.functions import FUNCTIONS
from perdure.definitions.methods import CHANGING, METHODS
from perdure.definitions.signatures import Code
from perdure.definitions.templates import compile_template, render
from perdure.errors import ExpressionError

EXAMPLES = int(os.environ.get("EXPRESSION_EXAMPLES", "400"))
FIXED = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="EXPRESSION_EXAMPLES" not in os.environ, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip

KEYS = ["a", "b", "items", "get", "x", "_p", "__class__", "é", ""]
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "b-1", "2026-01-31T12:00:00Z", "é😀", "{0.__class__}", "%s", "[1]"]),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.sampled_from(KEYS), part, max_size=4),
    max_leaves=12,
)  # fmt: skip
SCOPES = st.fixed_dictionaries(
    {"input": st.fixed_dictionaries({"a": DATA, "b": DATA, "items": st.lists(DATA, max_size=4)}), "execution": DATA}
)

NAMES = st.sampled_from(
    ["input", "input.a", "input.items", "input['b']", "input.a.x", "execution", "i", "1", "[2, 1]", "'ab'"]
)
CONSTANTS = st.sampled_from(
    ["0", "1", "-1", "2.5", "1000000", "''", "'a'", "'x' * 1000", "None", "True", "[]", "{}", "'%s'", "1e308",
     "9" * 60, "[1, 'a', None]", "{'a': 1}", r"'\ud800'", "'1d'", "r'(a?)+'"]
)  # fmt: skip
OPERATORS = ["+", "-", "*", "/", "//", "%", "and", "or", "==", "!=", "<", ">=", "in", "not in", "**"]
CALLED = [*METHODS, *sorted(CHANGING)[:4], "format", "format_map", "mro", "__init__", "a"]


def _larger(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.lists(part, max_size=3)
    return st.one_of(
        st.builds("({} {} {})".format, part, st.sampled_from(OPERATORS), part),
        st.builds("({} if {} else {})".format, part, part, part),
        st.builds("{}({})".format, st.sampled_from([*FUNCTIONS, "eval", "getattr", "type"]), parts.map(", ".join)),
        st.builds("{}.{}({})".format, part, st.sampled_from(CALLED), parts.map(", ".join)),
        st.builds("{}.{}".format, part, st.sampled_from([*KEYS[:4], "gi_frame", "__class__", "real", "upper"])),
        st.builds("{}[{}]".format, part, part),
        st.builds("{}[{}:{}]".format, part, part, part),
        st.builds("[{} for i in {}]".format, part, part),
        st.builds("[{} for i, j in {} if {}]".format, part, part, part),
        st.builds("[{} for i in {} for j in {}]".format, part, part, part),
        st.builds("{{str({}): {} for i in {}}}".format, part, part, part),
        parts.map(lambda some: f"[{', '.join(some)}]"),
        st.builds("{{'a': {}, str({}): {}}}".format, part, part, part),
        st.builds("(not {})".format, part),
        st.builds("(-{})".format, part),
    )


EXPRESSIONS = st.recursive(NAMES | CONSTANTS, _larger, max_leaves=12)


def evaluated(text: str, scope: dict[str, Any]) -> Any:
    """Evaluate; None where it is refused. Whatever else happens fails the test."""
    before = copy.deepcopy(scope)
    try:
        value = evaluate(parse(text), scope)
    except ExpressionError as error:
        assert str(error)
        value = None
    assert repr(scope) == repr(before)  # repr tells 1 from 1.0 and True
    return value


def is_data(value: Any) -> bool:
    if type(value) is list:
        return all(map(is_data, value))
    if type(value) is dict:
        return all(type(key) is str and is_data(part) for key, part in value.items())
    return value is None or type(value) in (bool, int, float, str)


def shared(value: Any, scope: Any) -> bool:
    """Return whether a list or object of the scope is part of the value."""
    known = set()
    todo = [scope]
    while todo:
        part = todo.pop()
        if isinstance(part, list | dict):
            known.add(id(part))
            todo += part if isinstance(part, list) else part.values()
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, list | dict):
            if id(part) in known:
                return True
            todo += part if isinstance(part, list) else part.values()
    return False


@FIXED
@given(EXPRESSIONS, SCOPES)
def test_an_expression_gives_data_of_its_own_or_our_error_and_changes_nothing(text: str, scope: dict[str, Any]) -> None:
    value = evaluated(text, scope)
    assert is_data(value)
    json.dumps(value, allow_nan=False)
    assert not shared(value, scope)


@FIXED
@given(
    EXPRESSIONS, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 4), st.text(max_size=4)), max_size=4), SCOPES
)
def test_a_damaged_expression_gives_data_or_our_error(
    text: str, damage: list[tuple[int, int, str]], scope: dict[str, Any]
) -> None:
    for place, length, new in damage:
        text = text[: place % (len(text) + 1)] + new + text[place % (len(text) + 1) + length :]
    assert is_data(evaluated(text, scope))


@FIXED
@given(st.text(max_size=60) | st.text(alphabet="input.ab[]()+-*/ 'x0{}:,<>=_forin\\\n#\"$", max_size=60))
def test_any_text_gives_data_or_our_error(text: str) -> None:
    assert is_data(evaluated(text, {"input": {"a": 1, "b": [1, {"x": "y"}]}}))
    try:
        render(compile_template(text), {"input": {"a": 1}})
        render(compile_template("${{" + text + "}} and ${{ input.a }}"), {"input": {"a": 1}})
    except ExpressionError as error:
        assert error.offset is None or error.offset >= 0


def counted(visits: list[int]) -> Callable[[Compiler, Any], Code]:
    compile_part = Compiler.compile

    def compile_counted(compiler: Compiler, node: Any) -> Code:
        code = compile_part(compiler, node)

        def count(run: Run) -> Any:
            visits[0] += 1
            return code(run)

        return count

    return compile_counted


BODIES = st.recursive(NAMES | CONSTANTS, _larger, max_leaves=4)
LOOPS = st.one_of(
    st.builds("[{} for i in input.items]".format, BODIES),
    st.builds("[i for i in input.items if {}]".format, BODIES),
    st.builds("{{str(i): {} for i in input.items}}".format, BODIES),
    st.builds("[i for i in input.items for j in {}]".format, BODIES),
)


@FIXED
@given(text=LOOPS | EXPRESSIONS, scope=SCOPES, budget=st.integers(0, 200))
def test_every_visit_of_a_part_is_paid_for(text: str, scope: dict[str, Any], budget: int) -> None:
    scope["input"]["items"] = list(range(50))
    visits = [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compiler, "compile", counted(visits))
        patch.setattr("perdure.definitions.expressions.MAX_STEPS", budget)
        patch.setattr("perdure.definitions.expressions.size", lambda tree: 0)
        try:
            expression: Expression = parse(text)
            evaluate(expression, scope)
        except ExpressionError:
            pass
    parts = parse(text).steps if visits[0] else 0
    assert visits[0] <= budget + parts


ESCAPES = [
    "().__class__.__bases__[0].__subclasses__()",
    "''.__class__.__mro__[1].__subclasses__()",
    "input['__class__']",
    "input.a['__class__']",
    "'{0.__class__}'.format(input)",
    "'{0.__class__.__init__.__globals__}'.format_map(input)",
    "'%(x)s'.__mod__({'x': 1})",
    "'%c' % 1",
    "f'{().__class__}'",
    "f'{input.a!r:>{10}}'",
    "(lambda: 1)()",
    "(lambda x=().__class__: x)()",
    "(x := input)",
    "[y := 1 for x in input.b]",
    "[*input.b]",
    "len(*[[1]])",
    "max(**{'a': 1})",
    "{**input}",
    "{*input.b}",
    "(x for x in input.b).gi_frame",
    "(x for x in input.b).gi_frame.f_back.f_globals",
    "(x for x in input.b).gi_code",
    "[x for x in [(x for x in [1])]][0].gi_frame.f_builtins",
    "input.keys().mapping",
    "input.get.__self__",
    "input.a.real.__class__",
    "len.__self__",
    "len.__globals__",
    "now.__globals__",
    "str.mro()",
    "str.format('{0.__class__}', input)",
    "type(input)",
    "getattr(input, 'a')",
    "setattr(input, 'a', 1)",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "__import__('os').system('true')",
    "open('/etc/passwd').read()",
    "globals()",
    "locals()",
    "vars()",
    "dir(input)",
    "breakpoint()",
    "help()",
    "print('x')",
    "__builtins__",
    "__name__",
    "run.scope",
    "input.b.append(1)",
    "input.b.sort()",
    "input.b.clear()",
    "input.b.__setitem__(0, 1)",
    "input.update({'a': 2})",
    "input.setdefault('z', 1)",
    "input.pop('a')",
    "input.b.__iadd__([1])",
    "(yield 1)",
    "(yield from input.b)",
    "await input.a",
    "[x async for x in input.b]",
    "input.b[...]",
    "input.b[lambda: 1]",
    "10 ** 10 ** 10",
    "1 << 1000000000",
    "'x' * 10 ** 12",
    "[[0] * 1000000] * 1000000",
    "input._Run__scope",
    "\uff49nput.__\uff43lass__",
    "input.\uff3f\uff3fclass__",
    "input if 1 else __import__('os')",
    "match(len, 'a')",
    "match('a', 'a').re",
    "match('a', 'a')['__class__']",
    "[__import__ for __import__ in [1]][0]('os')",
    "[len for len in [1]][0](input)",
    "sorted(input.b, key=len)",
    "max(input.b, key=lambda x: x)",
    "sum([[1]], [])",
    "min([input, input])",
    "json.loads('1')",
    "json.__globals__",
    "parse_json('{\"a\": NaN}')",
    "bool.__init__",
    "import os",
    "del input",
    "input.a = 1",
    "assert input",
    "1; 2",
    "1\n2",
    "input.a\x00",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_no_known_way_out_leads_anywhere(text: str) -> None:
    scope = {"input": {"a": 1, "b": [3, 1, 2]}}
    with pytest.raises(ExpressionError):
        evaluate(parse(text), scope)
    assert scope == {"input": {"a": 1, "b": [3, 1, 2]}}


def test_the_budget_is_one_of_an_evaluation_and_not_of_an_expression() -> None:
    expression = parse("len([i for i in range(100000)])")
    assert [evaluate(expression, {}) for _ in range(10)] == [100_000] * 10
    assert expression.steps < 10 < MAX_STEPS

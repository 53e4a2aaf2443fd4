"""The expression language: what it gives, what it refuses, and that data only goes in."""

import pickle
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from perdure.definitions.expressions import MOMENT, Moment, evaluate, parse
from perdure.definitions.templates import compile_condition, compile_template, expressions, render
from perdure.errors import ExpressionError

SCOPE: dict[str, Any] = {"input": {"a": 1, "items": [1, 2, 3], "name": "Ann", "none": None, "deep": {"x": {"y": 2}}}}


def value_of(text: str) -> Any:
    return evaluate(parse(text), SCOPE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.a + 2 * 3", 7),
        ("input.items", [1, 2, 3]),
        ("input.items[-1]", 3),
        ("input.items[1:]", [2, 3]),
        ("input['deep'].x.y", 2),
        ("input.a > 0 and not input.none", True),
        ("'big' if input.a > 5 else 'small'", "small"),
        ("[n * 2 for n in input.items if n > 1]", [4, 6]),
        ("{str(k): 1 for k in input.items}", {"1": 1, "2": 1, "3": 1}),
        ("len(input.items) + sum(n for n in input.items)", 9),
        ("input.name.upper()", "ANN"),
        ("', '.join(str(n) for n in input.items)", "1, 2, 3"),
        ("input.get('missing', 'd')", "d"),
        ("sorted(input.deep.keys())", ["x"]),
        ("input.deep.items()", [["x", {"y": 2}]]),
        ("2 in input.items", True),
        ("input.none is None", True),
        ("1 < input.a + 1 < 3", True),
    ],
)
def test_it_computes(text: str, expected: Any) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.b", "in 'input.b': input has no 'b'; it has a, items, name, none, deep"),
        ("input.nam", "input has no 'nam'; it has a, items, name, none, deep; did you mean 'name'?"),
        ("input.deep.x.z", "input.deep.x has no 'z'; it has y"),
        ("input['deep']['x'].z", "input['deep']['x'] has no 'z'; it has y"),
        ("input.name.x", "input.name is a string and has no 'x'"),
        ("input.none.x", "input.none is null and has no 'x'"),
        ("input.none.upper()", "input.none is null and has no 'upper'"),
        ("input.items[9]", "input.items has no [9]; it has 3 items"),
        ("input.items['a']", "a list is read by a whole number, not a string"),
        ("input[1]", "an object is read by a string, not a number"),
        ("other.x", "there is no 'other' here; there are input"),
        ("1 / 0", "division by zero"),
        ("'a' + 1", "cannot add a string and a number; write str(...) around the other"),
        ("input.none > 1", "cannot compare null > a number"),
        ("1 in 'a1'", "'in' looks for a string within a string, not for a number"),
        ("input.a.upper()", "a number has no method 'upper'"),
        ("input.name.index('A')", "a string has no method 'index'"),
        ("input.deep.count(1)", "an object has no method 'count'"),
        ("sorted([1, None])", "sorted compares numbers or strings, not a number and null"),
        ("max([])", "max of an empty list"),
        ("sum(['a'])", "sum adds numbers, not a string"),
        ("len(1)", "len(value: string | list | object) takes string or list or object, not a number"),
        ("round('1')", "takes number, not a string"),
        ("int('x')", "int cannot read 'x' as a whole number"),
        ("float('nan')", "NaN or infinity"),
        ("', '.join([1])", "join takes strings, not a number"),
        ("{1: 2}", "keys of objects are strings, not a number"),
        ("[x for x in 1]", "cannot loop over a number"),
        ("[x for x, y in [[1]]]", "cannot take a list of 1 apart into 2 variables"),
        ("'%1000000000d' % 1", "text has no operator %"),
        ("parse_json('{')", "parse_json: "),
        ("parse_json('[' * 100000)", "parse_json: it is nested too deeply"),
        ("date('2026-01-01T12:00:00')", "has no time zone; add one, as in 2026-01-01T12:00:00Z"),
        ("date('soon')", "'soon' is not a time; write 2026-01-31T12:00:00Z"),
        ("date_add('2026-01-01T12:00:00Z', '2 days')", "not a duration: '2 days'"),
        ("date_add('2026-01-01T12:00:00Z', '99999999d')", "out of range"),
        ("matches('(' + input.name, 'x')", "is not a pattern: missing )"),
        ("now()", "now() is not available here"),
        ("uuid()", "uuid() is not available here"),
    ],
)
def test_what_cannot_be_computed_says_why(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", "cannot read the expression 'a b': invalid syntax (at character "),
        ("open('f')", "there is no function 'open'; there are In, abs, "),
        ("lenn(input)", "there is no function 'lenn'; did you mean 'len'?"),
        ("len(1, 2)", "'len' is called as len(value: string | list | object)"),
        ("sorted(input.items, reversed=True)", "'sorted' is called as sorted(values: list, reverse: boolean = False)"),
        ("input.name.uper()", "there is no method 'uper'; did you mean 'upper'?"),
        ("input.name.format()", "there is no method 'format'"),
        ("input.name.split(',', 1, 2)", "'split' is called as split(separator"),
        ("input.items.append(1)", "there is no method 'append': data is never changed here; compute a new value"),
        ("input.update({})", "there is no method 'update': data is never changed here"),
        ("input.pop('a')", "data is never changed here"),
        ("input.a is 1", "'is' goes with None, True or False only; write =="),
        ("input.a == true", "write True, not true"),
        ("input.a == null", "write None, not null"),
        ("input._x", "names do not begin with '_': write ['_x']"),
        ("[input for input in [1]]", "a variable cannot be called 'input': that is the name of data"),
        ("[1 for k, nodes in []]", "a variable cannot be called 'nodes'"),
        ("nodes[input.a].output", "name the node that is read"),
        ("matches(text=input.name, pattern='(')", "'(' is not a pattern: missing ): ("),
        ("matches('(', input.name)", "'(' is not a pattern: missing ): ("),
        (r"matches('\d', input.name)", "write r'...' around a pattern"),
        ("9" * 100, "a number of more than 256 bits"),
        ("1e999", "NaN or infinity"),
        (r"'\ud800'", "text that is not valid Unicode"),
        (r"matches('\udfff', input.name)", "text that is not valid Unicode"),
        ("{**input}", "'**' is not part of the expression language"),
    ],
)
def test_what_can_be_seen_to_be_wrong_does_not_parse(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default(input.a, 7)", 1),
        ("default(input.b, 7)", 7),
        ("default(input.b.c.d, 7)", 7),
        ("default(input.none, 7)", 7),
        ("default(input.none.x, 7)", 7),
        ("default(input.items[9].x, 7)", 7),
        ("default(input.name.match, 7)", None),
        ("default(path=input.b, value=7)", 7),
        ("default(value=7, path=input.b)", 7),
        ("default(input.a, 1 / 0)", 1),
        ("default(match('(z)', input.name).groups[0], 'none')", "none"),
    ],
)
def test_a_default_stands_in_for_what_is_missing_or_null_and_for_nothing_else(text: str, expected: Any) -> None:
    if expected is None:
        with pytest.raises(ExpressionError, match="is a string and has no"):
            value_of(text)
    else:
        assert value_of(text) == expected


def test_a_key_of_the_data_is_read_without_a_call_and_a_method_is_called() -> None:
    data = {"input": {"items": 1, "get": 2, "upper": 3}}
    assert [evaluate(parse(f"input.{key}"), data) for key in ("items", "get", "upper")] == [1, 2, 3]
    assert evaluate(parse("input.keys()"), data) == ["items", "get", "upper"]


def test_a_condition_may_be_written_in_several_lines_within_brackets() -> None:
    assert value_of("(\n  input.a == 1\n  and input.name == 'Ann'\n)") is True


AT = datetime(2026, 1, 31, 14, 0, tzinfo=timezone(timedelta(hours=2)))


def test_now_is_the_time_of_the_decision_in_utc() -> None:
    assert evaluate(parse("now()"), {MOMENT: Moment(AT, "x/a")}) == "2026-01-31T12:00:00Z"


def test_an_id_differs_by_call_place_and_decision_and_comes_again_with_the_same_decision() -> None:
    template = compile_template({"a": "${{ [uuid(), uuid()] }}", "b": "${{ uuid() }} ${{ uuid() }}"})
    first = render(template, {MOMENT: Moment(AT, "x/a")})
    ids = [*first["a"], *first["b"].split()]
    assert len({UUID(each) for each in ids}) == 4
    assert render(template, {MOMENT: Moment(AT, "x/a")}) == first
    assert render(template, {MOMENT: Moment(AT, "x/b")}) != first
    assert render(template, {MOMENT: Moment(AT + timedelta(seconds=1), "x/a")}) != first


def test_the_moment_is_no_data() -> None:
    with pytest.raises(ExpressionError, match=r"there is no 'x' here; there are input$"):
        evaluate(parse("x"), {"input": 1, MOMENT: Moment(AT, "x/a")})


@pytest.mark.parametrize(
    "text",
    ["", "a b", "x := 1", "lambda: 1", "open('f')", "input._x", "().__class__", "f'{input}'", "await x", "2 ** 9",
     "max(**input)", "max(*input)", "[*input]", "a @ b", "1j", "b'x'", "...", "nodes", "nodes[input.a]", "[nodes]",
     "~1", "1 << 2", "{1, 2}", "{x for x in input}", "[x async for x in input]", "input.a()()", "(lambda: 1)()",
     "x" * 10_001, "(" * 300 + ")" * 300, "-" * 9_999 + "1", "1" + "+1" * 4_000, "x" + ".a" * 200],
)  # fmt: skip
def test_what_is_not_part_of_the_language_does_not_parse(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_an_expression_is_compared_hashed_and_pickled_by_its_text_and_place() -> None:
    expression = parse("input.a", ("with", "x"), 4)
    copy = pickle.loads(pickle.dumps(expression))
    assert copy == expression
    assert hash(copy) == hash(expression)
    assert copy != parse("input.a")
    assert evaluate(copy, SCOPE) == 1


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("${{ input.items }}", [1, 2, 3]),
        ("Hello, ${{ input.name }}!", "Hello, Ann!"),
        ("${{ input.name }} ${{ input.deep }}", 'Ann {"x": {"y": 2}}'),
        ({"a": ["${{ input.a }}", 2]}, {"a": [1, 2]}),
        ("${{ {'a': {'b': input.a}}['a'] }}", {"b": 1}),
        ("${{ '}}' }}", "}}"),
        ("${{ {'a': {'b': 1}}}}", {"a": {"b": 1}}),
        ("${{ 'it\\'s }}' }} and ${{ \"}}\" }}", "it's }} and }}"),
        (None, None),
        (3.5, 3.5),
    ],
)
def test_templates_keep_the_type_of_a_lone_expression_and_interpolate_the_rest(template: Any, expected: Any) -> None:
    assert render(compile_template(template), SCOPE) == expected


def test_null_inside_text_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="is null and cannot stand inside text"):
        render(compile_template("a ${{ input.none }}"), SCOPE)


@pytest.mark.parametrize("text", ["input.a == 1", "${{ input.a == 1 }}", True])
def test_conditions_stand_with_or_without_braces(text: str | bool) -> None:
    assert render(compile_condition(text), SCOPE) is True


def test_a_condition_is_one_expression() -> None:
    with pytest.raises(ExpressionError, match="one expression, not text"):
        compile_condition("${{ input.a }} and more")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a ${{ input..a }}", 12),
        ("${{ input.a }} ${{ input.uper() }}", 19),
        ("  ${{ x", 2),
        ("${{ it's }} ${{ 1 }}", 6),
    ],
)
def test_an_error_in_a_template_knows_its_place(text: str, place: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(text)
    assert caught.value.offset == place


def test_an_expression_of_a_template_knows_its_place() -> None:
    found = list(expressions(compile_template({"a": ["x ${{  input.a }}", "${{ input.b }}"]})))
    assert [(each.text, each.place, each.offset) for each in found] == [
        ("input.a", ("a", 0), 7),
        ("input.b", ("a", 1), 4),
    ]

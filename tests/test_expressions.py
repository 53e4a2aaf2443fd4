"""The expression language: what it gives, what it refuses, and that data only goes in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.definitions.expressions import evaluate, parse
from perdure.definitions.templates import compile_condition, compile_template, render
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
        ("input.b", "input has no 'b'; it has a, items, name, none, deep"),
        ("input.deep.x.z", "input.deep.x has no 'z'; it has y"),
        ("input.name.x", "input.name is a string and has no 'x'"),
        ("input.items[9]", "IndexError"),
        ("1 / 0", "ZeroDivisionError"),
        ("'a' + 1", "TypeError"),
        ("input.name.format()", "a string has no method 'format'"),
        ("input.items.append(1)", "a list has no method 'append'"),
        ("input.update({})", "an object has no method 'update'"),
        ("'x' * 10000000", "in ''x' * 10000000'"),
        ("'%1000000000d' % 1", "text has no operator %"),
        ("'aaaaaaaaaaaaaaaaaaaa'.replace('a', 'b' * 90000)", "text of more than 1000000 characters"),
        (
            "('b' * 90000).join([str(n) for n in input.items + input.items + input.items + input.items + input.items])",
            "of more",
        ),
        ("int('9' * 400) * int('9' * 400)", "a number of more than 256 bits"),
        ("1e308 * 10", "NaN or infinity"),
        ("round(1, -1000000000)", "at most 300 digits"),
    ],
)
def test_what_cannot_be_computed_says_why(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "a b", "x := 1", "lambda: 1", "open('f')", "input._x", "().__class__", "f'{input}'", "await x", "2 ** 9",
     "max(**input)", "a @ b", "1j", "b'x'", "...", "nodes", "nodes[input.a]", "[nodes]", "x" * 10_001,
     "(" * 300 + ")" * 300],
)  # fmt: skip
def test_what_is_not_part_of_the_language_does_not_parse(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_a_function_that_is_not_called_is_an_unknown_name() -> None:
    assert parse("len").roots == {"len"}
    assert parse("len(input)").roots == {"input"}


def test_it_knows_which_names_and_nodes_it_reads() -> None:
    expression = parse("[n + nodes.a.output for n in input.items] + nodes['b'].output + nodes.a.output")
    assert expression.roots == {"input", "nodes"}
    assert expression.nodes == {"a", "b"}


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


@given(st.text(alphabet="input.a[]()+-*/ 'x0{}:,<>=andornotifelse", max_size=40))
def test_any_text_is_evaluated_or_refused_and_never_changes_the_data(text: str) -> None:
    before = repr(SCOPE)
    try:
        value_of(text)
    except ExpressionError as error:
        assert str(error)
    assert repr(SCOPE) == before

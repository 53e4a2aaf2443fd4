"""What an expression may use up: its own size, steps, and the sizes of what it computes."""

from typing import Any

import pytest

from perdure.definitions.evaluation import MAX_DEPTH, MAX_LENGTH, MAX_RESULT, MAX_STEPS
from perdure.definitions.expressions import evaluate, parse
from perdure.definitions.templates import compile_template, render
from perdure.errors import ExpressionError

SCOPE: dict[str, Any] = {
    "input": {
        "many": list(range(100_000)),
        "texts": ["x" * 1000] * 1000,
        "deep": [[n, [n, [n]]] for n in range(20_000)],
        "text": "ab " * 100_000,
        "mostly_a": "a" * 29_000,
        "large": 10**70,
        "huge": 10**4000,
    }
}
STEPS = f"it takes more than {MAX_STEPS} steps"


@pytest.mark.parametrize(
    "text",
    [
        "range(1000000000000000000000)",
        "range(0, -1000000000, -1)",
        "[a + b for a in input.many for b in input.many]",
        "any(a == b for a in input.many for b in input.many)",
        "{str(a): b for a in input.many for b in input.many}",
        "[0 for a in input.many for b in [a, a, a, a, a, a] for c in []]",
        "[0 for a in input.many for b in ([] if a + a + a + a + a + a + a else [])]",
        "[0 for a in input.many if a + a + a + a + a < 0]",
        "[input.mostly_a.strip('ab' * 10000) for i in range(100)]",
        "[float('0' * 300000) for i in range(100)]",
        "input.many * 1000",
        "1000 * input.many",
        "[input.many + input.many for i in range(100)]",
        "[input.many[::-1] for i in range(100)]",
        "[sorted(input.many) for i in range(100)]",
        "[sum(input.many) for i in range(100)]",
        "[max(input.many) for i in range(100)]",
        "[zip(input.many, input.many) for i in range(100)]",
        "[enumerate(input.many) for i in range(100)]",
        "[-1 in input.many for i in range(100)]",
        "[input.many.index(99999) for i in range(100)]",
        "[input.many.count(1) for i in range(100)]",
        "['y' in input.texts for i in range(1000)]",
        "[[1] in input.deep for i in range(100)]",
        "[input.deep == input.deep for i in range(100)]",
        "[input.deep != [] for i in range(100)]",
        "[str(input.deep) and 1 for i in range(100)]",
        "[json(input.many) and 1 for i in range(100)]",
        "[input.text.upper() and 1 for i in range(1000)]",
        "[input.text.split(' ') and 1 for i in range(100)]",
        "[input.text + 'x' and 1 for i in range(1000)]",
        "[input.text.replace('a', 'b') and 1 for i in range(1000)]",
        "['zz' in input.text for i in range(1000)]",
        "[input.mostly_a.count('a' * 50 + 'b' + 'a' * 49) for i in range(1000)]",
        "[input.text == input.text + '' for i in range(1000)]",
        "[matches('(a?){30}b', input.text) for i in range(100)]",
        "[matches('x' + str(i), '') for i in range(100)]",
        "[input.many for i in range(100)]",
        "{'a': [input.deep, input.deep, input.deep]}",
        "[parse_json('[' + '1,' * 90000 + '1]') and 1 for i in range(100)]",
        "[date('2026-01-01T00:00:00Z') and 1 for i in input.many]",
    ],
)
def test_no_expression_takes_more_than_its_steps(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse(text), SCOPE)
    assert STEPS in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("'x' * 1000000000000", "text of more than 1000000 characters"),
        ("'aaaaaaaaaaaaaaaaaaaa'.replace('a', 'b' * 90000)", "text of more than 1000000 characters"),
        ("('b' * 90000).join([str(n) for n in range(20)])", "text of more than 1000000 characters"),
        ("str(input.texts + [input.text])", "text of more than 1000000 characters"),
        ("[input.text for i in range(34)]", f"more than {MAX_RESULT} characters"),
        ("input.large * input.large", "a number of more than 256 bits"),
        ("sum([input.large * 1000000 for i in range(100)]) * input.large", "a number of more than 256 bits"),
        ("input.huge // input.large", "a number of more than 256 bits"),
        ("date_add('2026-01-31T12:00:00Z', '9' * 1000000)", "not a duration"),
        ("date('2' * 1000000)", "is not a time"),
        ("int('9' * 400)", "a number of more than 256 bits"),
        ("1e308 * 10", "NaN or infinity"),
        ("round(1, -1000000000)", "at most 300 digits"),
        ("matches('a' * 1001, '')", "a pattern has at most 1000 characters"),
        ("match('(a{500}){500}' + '', 'a')", "is not a pattern"),
    ],
)
def test_nothing_that_is_computed_grows_without_end(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse(text), SCOPE)
    assert reason in str(caught.value)


def test_data_of_any_size_is_read_as_it_is() -> None:
    many = list(range(MAX_STEPS + 1))
    assert evaluate(parse("input.many"), {"input": {"many": many}}) == many


def test_a_text_of_several_expressions_is_bounded_as_one() -> None:
    template = compile_template("${{ input.t }}" * 11)
    with pytest.raises(ExpressionError, match=f"more than {MAX_RESULT} characters"):
        render(template, {"input": {"t": "x" * (MAX_RESULT // 10)}})


def test_the_length_and_the_depth_of_an_expression_are_bounded() -> None:
    assert evaluate(parse("1" + " " * MAX_LENGTH), {}) == 1
    parse("+".join(["1"] * (MAX_DEPTH - 1)))
    with pytest.raises(ExpressionError, match="parts within one another"):
        parse("+".join(["1"] * (MAX_DEPTH + 1)))
    with pytest.raises(ExpressionError, match="longer than"):
        parse("'" + "x" * MAX_LENGTH + "'")


def test_the_words_of_an_error_are_bounded() -> None:
    data = {"input": {"k" * 1000 + str(n): n for n in range(1000)}}
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse("input.x + " + "+".join(["input.k"] * 90)), data)
    assert len(str(caught.value)) < 2000
    assert "and 980 more" in str(caught.value)

"""The functions of the expression language, each with its form, what it gives, and an example that a test runs."""

import json as json_text
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.definitions import dates
from perdure.definitions.evaluation import CONFIGURATION, KINDS, Run, bounded, describe
from perdure.definitions.patterns import COMPILE_STEPS, Pattern, compile_pattern
from perdure.definitions.signatures import Function, function_of
from perdure.errors import ExpressionError

_MAX_DIGITS = 300
_SLOW = 10
"""Steps of a function that takes some microseconds whatever it is given."""

FUNCTIONS: dict[str, Function] = {}
"""The functions by name."""

IN = "In"
"""The one function that asks where a statechart is (SCXML 5.9.2)."""

DEFAULT = "default"
"""The one function whose first argument may fail: the compiler gives it its meaning."""


def _function(form: str, what: str, example: str, result: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(call: Callable[..., Any]) -> Callable[..., Any]:
        function = function_of(form, what, example, result, call)
        FUNCTIONS[function.name] = function
        return call

    return add


@_function("default(path: any, value: any)", "The first, or the second where it is missing or null.",
           "default(input.address.city, 'unknown')", "unknown")  # fmt: skip
def _default(run: Run, path: Any, value: Any) -> Any:
    raise NotImplementedError  # expression_code.py compiles it, so that a path that leads nowhere is no error


@_function("len(value: string | list | object)", "How many characters, items or keys there are.", "len([1, 2])", 2)
def _len(run: Run, value: Any) -> int:
    return len(value)


@_function("sum(numbers: list, start: number = 0)", "The sum.", "sum([1, 2, 3])", 6)
def _sum(run: Run, numbers: list[Any], start: Any) -> Any:
    run.spend(len(numbers))
    for number in numbers:
        if not isinstance(number, int | float):
            raise ExpressionError(f"sum adds numbers, not {describe(number)}")
    return bounded(sum(numbers, start))


@_function("min(values: any, *more: any)", "The least item of a list, or of several arguments.", "min([3, 1, 2])", 1)
def _min(run: Run, values: Any, *more: Any) -> Any:
    return min(_comparable(run, "min", values, more))


@_function("max(values: any, *more: any)", "The greatest item of a list, or of several arguments.", "max(3, 7)", 7)
def _max(run: Run, values: Any, *more: Any) -> Any:
    return max(_comparable(run, "max", values, more))


@_function("sorted(values: list, reverse: boolean = False)", "The items in order.", "sorted([2, 3, 1])", [1, 2, 3])
def _sorted(run: Run, values: list[Any], reverse: bool) -> list[Any]:
    return sorted(_in_order(run, "sorted", values, rounds=len(values).bit_length()), reverse=reverse)


@_function("round(number: number, digits: integer = 0)", "The nearest number; halves go to the even one.",
           "round(2.345, 1)", 2.3)  # fmt: skip
def _round(run: Run, number: float, digits: int) -> Any:
    if abs(digits) > _MAX_DIGITS:  # the time that it takes grows with them
        raise ExpressionError(f"round takes at most {_MAX_DIGITS} digits")
    return bounded(round(number, digits) if digits else round(number))


@_function("abs(number: number)", "The number without its sign.", "abs(-2)", 2)
def _abs(run: Run, number: float) -> Any:
    return abs(number)


@_function("any(values: list)", "Whether one item at least is true.", "any(n > 2 for n in [1, 3])", True)
def _any(run: Run, values: list[Any]) -> bool:
    run.spend(len(values))
    return any(values)


@_function("all(values: list)", "Whether every item is true.", "all(n > 2 for n in [1, 3])", False)
def _all(run: Run, values: list[Any]) -> bool:
    run.spend(len(values))
    return all(values)


@_function("str(value: any)", "The value as text: text as it is, anything else as JSON.", "str(12) + 'a'", "12a")
def _str(run: Run, value: Any) -> str:
    return value if isinstance(value, str) else _json(run, value)


@_function("int(value: number | string | boolean)", "A whole number, cut off behind the point.", "int('12')", 12)
def _int(run: Run, value: Any) -> Any:
    run.make_text(len(value) if isinstance(value, str) else 0)
    try:
        return bounded(int(value))
    except ValueError:
        raise ExpressionError(f"int cannot read {value[:60]!r} as a whole number") from None


@_function("float(value: number | string | boolean)", "A number with a fraction.", "float('1.5')", 1.5)
def _float(run: Run, value: Any) -> Any:
    run.make_text(len(value) if isinstance(value, str) else 0)
    try:
        return bounded(float(value))
    except ValueError:
        raise ExpressionError(f"float cannot read {value[:60]!r} as a number") from None


@_function("bool(value: any)", "False for null, false, 0 and what is empty; else true.", "bool([])", False)
def _bool(run: Run, value: Any) -> bool:
    return bool(value)


@_function("range(start: integer, stop: integer = None, step: integer = 1)", "Whole numbers from the start (0 where "
           "only the stop is given) up to the stop, which is not among them.", "range(2, 5)", [2, 3, 4])  # fmt: skip
def _range(run: Run, start: int, stop: int | None, step: int) -> list[int]:
    if step == 0:
        raise ExpressionError("the step of range cannot be 0")
    numbers = range(start) if stop is None else range(start, stop, step)
    # len() fails on what is longer than a machine's word.
    run.spend(max(0, (numbers.stop - numbers.start) // numbers.step))
    return list(numbers)


@_function("zip(*lists: list)", "Lists of the first items, the second items, and so on, as long as the shortest.",
           "zip([1, 2], ['a', 'b'])", [[1, "a"], [2, "b"]])  # fmt: skip
def _zip(run: Run, *lists: list[Any]) -> list[list[Any]]:
    run.spend(min(map(len, lists), default=0) * len(lists))
    return [list(items) for items in zip(*lists, strict=False)]


@_function("enumerate(values: list, start: integer = 0)", "Each item behind its number.", "enumerate(['a', 'b'], 1)",
           [[1, "a"], [2, "b"]])  # fmt: skip
def _enumerate(run: Run, values: list[Any], start: int) -> list[list[Any]]:
    run.spend(2 * len(values))
    return [list(pair) for pair in enumerate(values, start)]


@_function("json(value: any)", "The value as JSON text.", "json({'a': [1, None]})", '{"a": [1, null]}')
def _json(run: Run, value: Any) -> str:
    run.make_text(run.weigh(value))
    text = json_text.dumps(value, ensure_ascii=False)
    run.make_text(len(text))
    return text


@_function("parse_json(text: string)", "The value of JSON text.", "parse_json('[1, null]')", [1, None])
def _parse_json(run: Run, text: str) -> Any:
    run.make_text(len(text))
    run.spend(len(text) // 4)
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ExpressionError(f"parse_json: {error}") from None
    except RecursionError:
        raise ExpressionError("parse_json: it is nested too deeply") from None


@_function("now()", "The time of the decision, as recorded: replay reads the same. ISO 8601 in UTC.", "now()",
           "2026-01-31T12:00:00Z")  # fmt: skip
def _now(run: Run) -> str:
    return run.moment("now").text()


@_function(
    f"{IN}(state: string)",
    "In a statechart: whether this state, by its name or its path, is active.",
    "In('paid')",
    True,
)
def _in(run: Run, state: str) -> bool:
    is_in = run.scope.get(CONFIGURATION)
    if is_in is None:
        raise ExpressionError("In() is for statecharts: here there are no states to be in")
    run.spend(_SLOW)
    return bool(is_in(state))


@_function("uuid()", "An id that no other call gives, recorded with what it is used for.", "len(uuid())", 36)
def _uuid(run: Run) -> str:
    run.spend(_SLOW)
    run.uuids += 1
    return run.moment("uuid").uuid(run.place, run.uuids)


@_function("date(text: string)", "The parts of a time: year, month, day, hour, minute, second, weekday (Monday is 1), "
           "epoch (seconds since 1970).", "date('2026-01-31T12:00:00Z').weekday", 6)  # fmt: skip
def _date(run: Run, text: str) -> dict[str, Any]:
    run.spend(_SLOW)
    return dates.date_parts(text)


@_function("date_add(text: string, duration: string | number)", "A time moved by a duration or by seconds.",
           "date_add('2026-01-31T12:00:00Z', '-2d')", "2026-01-29T12:00:00Z")  # fmt: skip
def _date_add(run: Run, text: str, duration: Any) -> str:
    run.spend(2 * _SLOW)
    return dates.date_add(text, duration)


@_function("matches(pattern: pattern, text: string)", "Whether a pattern (RE2 syntax) fits anywhere in the text; `^` "
           "and `$` tie it to the ends.", r"matches(r'^\d+$', '123')", True)  # fmt: skip
def _matches(run: Run, pattern: str | Pattern, text: str) -> bool:
    return _match(run, pattern, text) is not None


@_function("match(pattern: pattern, text: string)", "The first place where a pattern fits: text, start, end, groups "
           "(a list) and named (an object); null where it fits nowhere.",
           r"match(r'(\w+)-(?P<n>\d+)', 'see AB-12').named.n", "12")  # fmt: skip
def _match(run: Run, pattern: str | Pattern, text: str) -> dict[str, Any] | None:
    if isinstance(pattern, str):
        run.spend(COMPILE_STEPS)  # charged each time: what is left may not hang on what a cache holds
        pattern = compile_pattern(pattern)
    run.spend(pattern.steps(text))
    return pattern.first(text)


def _comparable(run: Run, name: str, values: Any, more: tuple[Any, ...]) -> list[Any]:
    if not more and type(values) is not list:
        raise ExpressionError(f"{name} takes a list or several values, not {describe(values)}")
    items = [values, *more] if more else values
    if not items:
        raise ExpressionError(f"{name} of an empty list; test for it, as in {name}(x) if x else 0")
    return _in_order(run, name, items, rounds=1)


def _in_order(run: Run, name: str, values: list[Any], rounds: int) -> list[Any]:
    """Return values that can be compared with each other, once what comparing them takes is charged."""
    run.spend(len(values))
    kinds = set(map(type, values))
    if not (kinds <= KINDS["number"] | KINDS["boolean"] or kinds <= KINDS["string"]):
        wrong = " and ".join(sorted({describe(value) for value in values}))
        raise ExpressionError(f"{name} compares numbers or strings, not {wrong}")
    before = run.left
    run.weigh(values)
    run.spend((before - run.left) * (rounds - 1))
    return values

"""The operators of the expression language on JSON data, each charged by the size of what it is given."""

import ast
import operator
from collections.abc import Callable
from typing import Any

from perdure.definitions.evaluation import Run, bounded, describe
from perdure.definitions.methods import look_through
from perdure.errors import ExpressionError

Operator = Callable[[Run, Any, Any], Any]

_NUMBERS = (int, float, bool)


def _add(run: Run, left: Any, right: Any) -> Any:
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return bounded(left + right)
    if isinstance(left, str) and isinstance(right, str):
        run.make_text(len(left) + len(right))
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        run.spend(len(left) + len(right))
        return left + right
    hint = "; write str(...) around the other" if isinstance(left, str) or isinstance(right, str) else ""
    raise ExpressionError(f"cannot add {describe(left)} and {describe(right)}{hint}")


def _multiply(run: Run, left: Any, right: Any) -> Any:
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return bounded(bounded(left) * bounded(right))
    if type(left) is int:
        left, right = right, left
    if type(right) is int and isinstance(left, str):
        run.make_text(len(left) * max(right, 0))
        return left * right
    if type(right) is int and isinstance(left, list):
        run.spend(len(left) * max(right, 0))
        return left * right
    raise ExpressionError(f"cannot multiply {describe(left)} and {describe(right)}")


def _arithmetic(symbol: str, compute: Callable[[Any, Any], Any]) -> Operator:
    def run_it(run: Run, left: Any, right: Any) -> Any:
        if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
            try:
                return bounded(compute(bounded(left), bounded(right)))
            except ZeroDivisionError:
                raise ExpressionError("division by zero") from None
        if symbol == "%" and isinstance(left, str):
            raise ExpressionError("text has no operator %; put the values into the text with ${{ }}")
        raise ExpressionError(f"{symbol} takes numbers, not {describe(left)} and {describe(right)}")

    return run_it


def _equal(run: Run, left: Any, right: Any) -> bool:
    kind = type(left)
    if kind is type(right):
        if kind is str:
            run.spend(min(len(left), len(right)) // 50)
        elif kind is list or kind is dict:
            run.weigh(left)
    return bool(left == right)


def _not_equal(run: Run, left: Any, right: Any) -> bool:
    return not _equal(run, left, right)


def _ordered(symbol: str, compute: Callable[[Any, Any], bool]) -> Operator:
    def run_it(run: Run, left: Any, right: Any) -> bool:
        if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
            return compute(left, right)
        if isinstance(left, str) and isinstance(right, str):
            run.spend(min(len(left), len(right)) // 50)
            return compute(left, right)
        raise ExpressionError(f"cannot compare {describe(left)} {symbol} {describe(right)}")

    return run_it


def _in(run: Run, value: Any, within: Any) -> bool:
    if isinstance(within, list):
        look_through(run, within, value)
        return value in within
    if isinstance(within, dict):
        return isinstance(value, str) and value in within
    if isinstance(within, str) and isinstance(value, str):
        run.search(within, value)
        return value in within
    if isinstance(within, str):
        raise ExpressionError(f"'in' looks for a string within a string, not for {describe(value)}")
    raise ExpressionError(f"'in' looks within a list, an object or a string, not {describe(within)}")


def _not_in(run: Run, value: Any, within: Any) -> bool:
    return not _in(run, value, within)


def _is(run: Run, left: Any, right: Any) -> bool:
    return left is right


def _is_not(run: Run, left: Any, right: Any) -> bool:
    return left is not right


BINARY: dict[type[ast.operator], Operator] = {
    ast.Add: _add,
    ast.Sub: _arithmetic("-", operator.sub),
    ast.Mult: _multiply,
    ast.Div: _arithmetic("/", operator.truediv),
    ast.FloorDiv: _arithmetic("//", operator.floordiv),
    ast.Mod: _arithmetic("%", operator.mod),
}

COMPARISONS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: _equal,
    ast.NotEq: _not_equal,
    ast.Lt: _ordered("<", operator.lt),
    ast.LtE: _ordered("<=", operator.le),
    ast.Gt: _ordered(">", operator.gt),
    ast.GtE: _ordered(">=", operator.ge),
    ast.In: _in,
    ast.NotIn: _not_in,
    ast.Is: _is,
    ast.IsNot: _is_not,
}


def negative(run: Run, value: Any) -> Any:
    """Return -value."""
    if not isinstance(value, _NUMBERS):
        raise ExpressionError(f"- takes a number, not {describe(value)}")
    return -value


def positive(run: Run, value: Any) -> Any:
    """Return +value."""
    if not isinstance(value, _NUMBERS):
        raise ExpressionError(f"+ takes a number, not {describe(value)}")
    return +value


def subscript(run: Run, value: Any, index: Any) -> Any:
    """Return value[index] of a list or string; LookupError where there is no such place."""
    if type(index) is not int:
        raise ExpressionError(f"{describe(value)} is read by a whole number, not {describe(index)}")
    return value[index]


def sliced(run: Run, value: Any, bounds: tuple[Any, Any, Any]) -> Any:
    """Return value[start:stop:step] of a list or string."""
    if not isinstance(value, str | list):
        raise ExpressionError(f"only lists and strings can be cut with [:], not {describe(value)}")
    for bound in bounds:
        if bound is not None and type(bound) is not int:
            raise ExpressionError(f"[:] takes whole numbers, not {describe(bound)}")
    if bounds[2] == 0:
        raise ExpressionError("the step of [::] cannot be 0")
    places = slice(*bounds)
    length = len(range(*places.indices(len(value))))
    run.spend(length) if isinstance(value, list) else run.make_text(length)
    return value[places]


def text_key(value: Any) -> str:
    """Return the key of an object that is put together."""
    if not isinstance(value, str):
        raise ExpressionError(f"keys of objects are strings, not {describe(value)}; write str(...)")
    return value

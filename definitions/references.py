"""Expressions built in Python: `flow.input.total > 3` becomes the text `${{ input.total > 3 }}`."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from perdure.errors import BadInput


def _binary(operator: str, *, turned: bool = False) -> Callable[["Reference", Any], "Reference"]:
    def combine(self: "Reference", other: Any) -> "Reference":
        left, right = (_operand(other), _operand(self)) if turned else (_operand(self), _operand(other))
        return Reference(f"{left} {operator} {right}", whole=False)

    return combine


class Reference:
    """An expression: attributes and subscripts read data, calls call its methods, operators compute.

    `&`, `|` and `~` are and, or and not. In text (`f"Hello {flow.input.name}"`) it becomes `${{ }}`.
    """

    __slots__ = ("_text", "_whole")

    def __init__(self, text: str, *, whole: bool = True) -> None:
        self._text = text
        self._whole = whole

    def __str__(self) -> str:
        """Return the expression as definitions have it, in `${{ }}`."""
        return f"${{{{ {self._text} }}}}"

    def __getattr__(self, name: str) -> "Reference":
        if name.startswith("_"):  # also what copy and pickle look for
            raise AttributeError(name)
        return Reference(f"{_operand(self)}.{name}")

    def __getitem__(self, key: Any) -> "Reference":
        return Reference(f"{_operand(self)}[{_literal(key)}]")

    def __call__(self, *arguments: Any) -> "Reference":
        """Return the call of a method: `flow.input.get("order")`."""
        return Reference(f"{_operand(self)}({', '.join(map(_literal, arguments))})")

    def __bool__(self) -> bool:
        raise BadInput(f"'{self._text}' has no value yet; combine conditions with & | ~, each in parentheses")

    def __invert__(self) -> "Reference":
        return Reference(f"not {_operand(self)}", whole=False)

    def __neg__(self) -> "Reference":
        return Reference(f"-{_operand(self)}", whole=False)

    __iter__ = None
    __contains__ = None
    __hash__ = None  # type: ignore[assignment]
    __eq__, __ne__ = _binary("=="), _binary("!=")  # type: ignore[assignment]
    __lt__, __le__, __gt__, __ge__ = _binary("<"), _binary("<="), _binary(">"), _binary(">=")
    __add__, __sub__, __mul__, __truediv__ = _binary("+"), _binary("-"), _binary("*"), _binary("/")
    __floordiv__, __mod__, __and__, __or__ = _binary("//"), _binary("%"), _binary("and"), _binary("or")
    __radd__, __rsub__ = _binary("+", turned=True), _binary("-", turned=True)
    __rmul__, __rtruediv__ = _binary("*", turned=True), _binary("/", turned=True)
    __rand__, __ror__ = _binary("and", turned=True), _binary("or", turned=True)


def expression(text: str, *values: Any) -> Reference:
    """Return an expression as it is written; each `{}` in it takes one of the values: `expression("len({})", x)`."""
    return Reference(text.format(*map(_literal, values)) if values else text, whole=False)


def _operand(value: Any) -> str:
    text = _literal(value)
    return text if not isinstance(value, Reference) or value._whole else f"({text})"


def _literal(value: Any) -> str:
    """Write a value as the expression language has it."""
    if isinstance(value, Reference):
        return value._text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise BadInput(f"{value!r} cannot stand in an expression: it is not JSON data") from None

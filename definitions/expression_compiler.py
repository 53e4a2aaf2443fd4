"""Turns a syntax tree into functions that call each other: what no maker is registered for cannot run."""

import ast
from collections.abc import Callable
from typing import Any

from perdure.definitions.signatures import Code
from perdure.errors import ExpressionError

Maker = Callable[["Compiler", Any], Code]

MAKERS: dict[type[ast.expr], Maker] = {}
"""What compiles each part of the language."""


def compiles(*kinds: type[ast.expr]) -> Callable[[Maker], Maker]:
    """Register the maker of these parts."""

    def register(make: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(kinds, make))
        return make

    return register


_SIGNS: dict[type[ast.AST], str] = {
    ast.BitAnd: "'&'",
    ast.BitOr: "'|'",
    ast.BitXor: "'^'",
    ast.Invert: "'~'",
    ast.JoinedStr: "f'...'",
    ast.Lambda: "lambda",
    ast.LShift: "'<<'",
    ast.MatMult: "'@'",
    ast.NamedExpr: "':='",
    ast.Pow: "'**'",
    ast.RShift: "'>>'",
    ast.Set: "a set, {...}",
    ast.Starred: "'*' before a value",
}
"""How parts of Python that are none of the language are written."""
_INSTEAD: dict[type[ast.AST], str] = {
    ast.BitAnd: "; write 'and'",
    ast.BitOr: "; write 'or', and call functions as f(x)",
    ast.JoinedStr: "; write text + str(value)",
    ast.Set: "; write a list, [...]",
}


def not_ours(part: ast.AST) -> ExpressionError:
    """Return the error for a part of Python that is none of the language."""
    kind = type(part)
    return ExpressionError(
        f"{_SIGNS.get(kind, kind.__name__)} is not part of the expression language{_INSTEAD.get(kind, '')}"
    )


class Compiler:
    """Compiles one expression; `variables` are the slots of the comprehensions' variables that are in sight."""

    def __init__(self) -> None:
        self.variables: dict[str, int] = {}
        self.slots = 0

    def compile(self, node: ast.expr) -> Code:
        """Return the code of a part; raise ExpressionError where it is none of the language."""
        make = MAKERS.get(type(node))
        if make is None:
            raise not_ours(node)
        return make(self, node)

    def bind(self, name: str) -> int:
        """Bring a variable into sight and return its slot."""
        self.variables[name] = self.slots
        self.slots += 1
        return self.slots - 1

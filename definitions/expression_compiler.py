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


class Compiler:
    """Compiles one expression; `variables` are the slots of the comprehensions' variables that are in sight."""

    def __init__(self) -> None:
        self.variables: dict[str, int] = {}
        self.slots = 0

    def compile(self, node: ast.expr) -> Code:
        """Return the code of a part; raise ExpressionError where it is none of the language."""
        make = MAKERS.get(type(node))
        if make is None:
            raise ExpressionError(f"{type(node).__name__} is not part of the expression language")
        return make(self, node)

    def bind(self, name: str) -> int:
        """Bring a variable into sight and return its slot."""
        self.variables[name] = self.slots
        self.slots += 1
        return self.slots - 1

"""The expression language: a small, safe subset of Python over JSON data, parsed once and evaluated often.

Every value in an evaluation is JSON data, and an expression is compiled from the parts that expression_*.py name: there
is no way from data to a Python object, and nothing that changes data. docs/expressions.md tells the language.

There is no clock; the budget of steps bounds the time. Of some sixty expressions made to be slow, the slowest took
0.13 s to use up its budget (one core of a shared machine, Python 3.11); `nodes.a.output.x > 3` takes 1.1 µs.
"""

import ast
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from perdure.definitions import expression_calls, expression_loops, expression_parts  # noqa: F401 (register makers)
from perdure.definitions.evaluation import (
    MAX_LENGTH,
    MAX_STEPS,
    MOMENT,
    Missing,
    Moment,
    Run,
    clipped,
)
from perdure.definitions.expression_compiler import Compiler
from perdure.definitions.expression_loops import size
from perdure.definitions.expression_reads import ITEM, RESERVED, Read, check_depth, reads_of
from perdure.definitions.json_values import to_json_value
from perdure.definitions.signatures import Code
from perdure.errors import ExpressionError

__all__ = ["ITEM", "MOMENT", "RESERVED", "Expression", "Moment", "Read", "evaluate", "parse", "parsed_once"]

_FILE = "<perdure expression>"
_SECRET = re.compile(r"secrets\.([A-Za-z_][A-Za-z0-9_]*)")
_seen: ContextVar[dict[str, "Expression"]] = ContextVar("seen")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expression:
    """A parsed expression: its text, and what static checks need to know of it.

    `roots` are the names that it reads, `nodes` the nodes, `variables` the names that its comprehensions bind. `place`
    are the keys that lead to its string within the template, `offset` is where its text begins in that string.
    """

    text: str
    reads: tuple[Read, ...]
    variables: frozenset[str]
    place: tuple[str | int, ...]
    offset: int
    code: Code
    slots: int
    steps: int
    plain: bool

    @property
    def roots(self) -> frozenset[str]:
        """Return the names at the beginning of what is read."""
        return frozenset(read.path[0] for read in self.reads)

    @property
    def nodes(self) -> frozenset[str]:
        """Return the names of the nodes that are read."""
        return frozenset(read.path[1] for read in self.reads if read.path[0] == "nodes")

    @property
    def secret(self) -> str | None:
        """Return the name of the secret that it stands for: `secrets.NAME` and nothing else is one."""
        found = _SECRET.fullmatch(self.text)
        return found[1] if found else None

    def __repr__(self) -> str:
        """Return the text in its braces."""
        return f"${{{{ {self.text} }}}}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __reduce__(self) -> tuple[Any, ...]:
        return parse, self.identity

    @property
    def identity(self) -> tuple[str, tuple[str | int, ...], int]:
        """Return what tells it from the other expressions of a template."""
        return self.text, self.place, self.offset


def parse(text: str, place: tuple[str | int, ...] = (), offset: int = 0) -> Expression:
    """Parse a bare expression, whose text begins at `offset` of the string at `place` of a template.

    Raises ExpressionError when it is not one of the subset; its `offset` is the place of the error in that string.
    """
    offset += len(text) - len(text.lstrip())
    text = text.strip()
    seen = _seen.get({})  # outside of parsed_once: nothing is kept
    if text not in seen:
        seen[text] = _parse(text, offset)
    return replace(seen[text], place=place, offset=offset)


def _parse(text: str, offset: int) -> Expression:
    try:
        tree = _tree(text, offset)
        check_depth(tree)
        reads, variables = reads_of(tree, text)
        compiler = Compiler()
        code = compiler.compile(tree)
    except ExpressionError as error:
        reason = str(error)
        shown = reason if "cannot read" in reason else f"{reason}, in {clipped(text)!r}"
        raise ExpressionError(shown, offset if error.offset is None else error.offset) from None
    plain = all(isinstance(part, _PLAIN) for part in ast.walk(tree))
    return Expression(text, reads, variables, (), offset, code, compiler.slots, size(tree), plain)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Parse each text only once meanwhile: a definition is checked, and then compiled."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


_PLAIN = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Load)
"""The parts of a mere read, whose result is data that was there before."""


def evaluate(expression: Expression, scope: Mapping[str, Any]) -> Any:
    """Evaluate on the JSON data in `scope`, which may hold a Moment under MOMENT for now() and uuid().

    Raises ExpressionError naming the expression and what went wrong.
    """
    run = Run(scope, expression.identity, expression.slots, MAX_STEPS - expression.steps)
    try:
        value = expression.code(run)
        if not expression.plain:
            run.check_result(value)
        return to_json_value(value)
    except Missing as error:
        reason = error.reason(expression.text)
    except ExpressionError as error:
        reason = str(error)
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise ExpressionError(f"in '{clipped(expression.text)}': {reason}", expression.offset)


_PYTHON = {
    "&&": "and",
    "||": "or",
    "===": "==",
    "!==": "!=",
    "!": "not",
    "?": "A if TEST else B",
    "=>": "[A for x in B]",
}
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_FOREIGN = re.compile(r"&&|\|\||!==|===|=>|\?|!(?!=)")


def _python_for(text: str) -> str:
    """Say what is written for an operator of another language that stands in a text, outside of its strings."""
    found = _FOREIGN.search(_QUOTED.sub("", text))
    return f": for {found.group()!r} write {_PYTHON[found.group()]!r}" if found else ""


# Filters of warnings are the process's, and CPython before 3.11.8 counts the depth of all threads' trees together.
_parsing = threading.Lock()


def _tree(text: str, offset: int) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"cannot read the expression: it is longer than {MAX_LENGTH} characters")
    column: int | None = None
    try:
        with _parsing, warnings.catch_warnings():
            warnings.filterwarnings("error", module=_FILE)  # what Python will refuse one day is refused today
            return ast.parse(text, _FILE, mode="eval").body
    except SyntaxError as error:
        reason, column = error.msg, error.offset
        if "escape sequence" in reason:
            reason += "; write r'...' around a pattern"
        reason += _python_for(text)
        if error.lineno == 1 and column is not None:
            column = max(column - 1, 0)
            reason += f" (at character {column + 1})"
        else:
            column = None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) if isinstance(error, ValueError) else "too deeply nested"
    raise ExpressionError(f"cannot read the expression {clipped(text)!r}: {reason}", offset + (column or 0))

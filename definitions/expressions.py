"""The expression language: a small, safe subset of Python over JSON data, parsed once and evaluated often."""

import ast
import threading
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from functools import partial
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression  # type: ignore[import-untyped]

from perdure.definitions.json_values import to_json_value
from perdure.errors import ExpressionError

MAX_LENGTH = 10_000
MAX_TEXT = 1_000_000
MAX_BITS = 256
_MAX_DIGITS = 300


def _round(number: float, digits: int = 0) -> Any:
    if abs(digits) > _MAX_DIGITS:  # the time that it takes grows with them
        raise ExpressionError(f"round takes at most {_MAX_DIGITS} digits")
    return round(number, digits) if digits else round(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len, "sum": sum, "min": min, "max": max, "sorted": sorted, "round": _round, "abs": abs,
    "any": any, "all": all, "str": str, "int": int, "float": float, "bool": bool,
}  # fmt: skip

METHODS: dict[type, frozenset[str]] = {
    str: frozenset({"upper", "lower", "strip", "split", "join", "replace", "startswith", "endswith", "title"}),
    list: frozenset({"index", "count"}),
    dict: frozenset({"get", "keys", "values", "items"}),
}

_ALLOWED = (
    ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Dict,
    ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.BoolOp, ast.And, ast.Or, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
    ast.Is, ast.IsNot, ast.IfExp, ast.Call, ast.keyword, ast.ListComp, ast.GeneratorExp, ast.DictComp,
    ast.comprehension,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: its text, its syntax tree, the root names and the nodes that it reads."""

    text: str
    tree: ast.expr
    roots: frozenset[str]
    nodes: frozenset[str]


def parse(text: str) -> Expression:
    """Parse a bare expression; raise ExpressionError when it is not one of the subset."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "too deeply nested"
        raise ExpressionError(f"cannot read the expression {text.strip()!r}: {reason}") from None
    bound: set[str] = set()
    read: set[str] = set()
    called: set[int] = set()
    for part in ast.walk(tree):
        _check(part, text)
        if isinstance(part, ast.Call):
            called.add(id(part.func))
        elif isinstance(part, ast.Name) and id(part) not in called:  # a call comes before its function in the walk
            (bound if isinstance(part.ctx, ast.Store) else read).add(part.id)
    roots = frozenset(read - bound)
    return Expression(text.strip(), tree, roots, frozenset(_nodes_read(tree)))


def evaluate(expression: Expression, scope: Mapping[str, Any]) -> Any:
    """Evaluate on the data in `scope`; raise ExpressionError naming the expression and what went wrong."""
    evaluator = _evaluator()
    evaluator.names = scope
    try:
        return to_json_value(evaluator.eval(expression.text, previously_parsed=expression.tree))
    except (
        ExpressionError,
        InvalidExpression,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:
        reason = error.args[0] if isinstance(error, ExpressionError) else f"{type(error).__name__}: {error}"
        raise ExpressionError(f"in '{expression.text}': {reason}") from None
    finally:
        evaluator.names = {}


def _check(part: ast.AST, text: str) -> None:
    if not isinstance(part, _ALLOWED):
        raise ExpressionError(f"{type(part).__name__} is not part of the expression language, in {text.strip()!r}")
    if isinstance(part, ast.Attribute) and part.attr.startswith("_"):
        raise ExpressionError(f"names do not begin with '_', in {text.strip()!r}")
    if isinstance(part, ast.Constant) and not (part.value is None or isinstance(part.value, str | int | float)):
        raise ExpressionError(f"{part.value!r} is not a JSON value, in {text.strip()!r}")
    if isinstance(part, ast.keyword) and part.arg is None:
        raise ExpressionError(f"'**' is not part of the expression language, in {text.strip()!r}")
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id not in FUNCTIONS:
        raise ExpressionError(f"there is no function {part.func.id!r}; there are {', '.join(sorted(FUNCTIONS))}")


def _nodes_read(tree: ast.expr) -> set[str]:
    found = set()
    direct = 0
    for part in ast.walk(tree):
        direct -= isinstance(part, ast.Name) and part.id == "nodes"
        value = getattr(part, "value", None)
        if not (isinstance(value, ast.Name) and value.id == "nodes"):
            continue
        if isinstance(part, ast.Attribute):
            found.add(part.attr)
            direct += 1
        elif isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant):
            found.add(str(part.slice.value))
            direct += 1
    if direct:
        raise ExpressionError("name the node that is read: nodes.NAME.output, not 'nodes' as a whole")
    return found


class _Evaluator(EvalWithCompoundTypes):  # type: ignore[misc]
    """simpleeval on JSON data: an attribute is a key of the data, a method comes from the fixed list."""

    def _check_disallowed_items(self, item: Any) -> None:
        """Do nothing: only JSON data goes in, and walking it at every step would make reads quadratic."""

    def _eval_attribute(self, node: ast.Attribute) -> Any:
        value = self._eval(node.value)
        if isinstance(value, Mapping):
            if node.attr in value:
                return value[node.attr]
            there = ", ".join(map(str, value)) or "nothing"
            raise ExpressionError(f"{ast.unparse(node.value)} has no {node.attr!r}; it has {there}")
        raise ExpressionError(f"{ast.unparse(node.value)} is {_describe(value)} and has no {node.attr!r}")

    def _eval_call(self, node: ast.Call) -> Any:
        arguments = [self._eval(argument) for argument in node.args]
        options = {keyword.arg: self._eval(keyword.value) for keyword in node.keywords if keyword.arg}
        if isinstance(node.func, ast.Attribute):
            result = self._method(node.func)(*arguments, **options)
            return list(result) if isinstance(result, KeysView | ValuesView | ItemsView) else result
        if isinstance(node.func, ast.Name):
            return FUNCTIONS[node.func.id](*arguments, **options)
        raise ExpressionError("only functions and methods by name can be called")

    def _eval_binop(self, node: ast.BinOp) -> Any:
        left, right = self._eval(node.left), self._eval(node.right)
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            raise ExpressionError("text has no operator %; put the values into the text with ${{ }}")
        return _bounded(self.operators[type(node.op)](left, right))

    def _method(self, node: ast.Attribute) -> Callable[..., Any]:
        value = self._eval(node.value)
        if isinstance(value, str) and node.attr in _GROWING:
            return partial(_GROWING[node.attr], value)
        for kind, names in METHODS.items():
            if isinstance(value, kind) and node.attr in names:
                method: Callable[..., Any] = getattr(value, node.attr)
                return method
        raise ExpressionError(f"{_describe(value)} has no method {node.attr!r}")


def _bounded(value: Any) -> Any:
    """Refuse what grows without end when it is computed with again and again."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ExpressionError(f"a number of more than {MAX_BITS} bits")
    return value


def _replace(text: str, old: str, new: str) -> str:
    if len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise ExpressionError(f"text of more than {MAX_TEXT} characters")
    return text.replace(old, new)


def _join(separator: str, parts: Iterable[str]) -> str:
    parts = list(parts)
    if sum(len(part) for part in parts) + len(separator) * len(parts) > MAX_TEXT:
        raise ExpressionError(f"text of more than {MAX_TEXT} characters")
    return separator.join(parts)


_GROWING: dict[str, Callable[..., str]] = {"replace": _replace, "join": _join}

_local = threading.local()


def _evaluator() -> _Evaluator:
    # One a thread: building one is slow, and it holds the names of the evaluation under way.
    if not hasattr(_local, "evaluator"):
        _local.evaluator = _Evaluator(functions=dict(FUNCTIONS), names={})
    evaluator: _Evaluator = _local.evaluator
    return evaluator


def _describe(value: Any) -> str:
    kinds = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
    }
    return kinds.get(type(value), "an object")

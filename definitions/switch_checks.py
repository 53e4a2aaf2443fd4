"""Checks the arms of a switch: finds those that an earlier arm always takes the place of."""

import ast
from collections.abc import Callable, Iterator
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from perdure.definitions.findings import Finding
from perdure.definitions.nodes import SwitchNode
from perdure.definitions.reads import tree_of
from perdure.definitions.yaml_source import Path

_OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: lt, ast.LtE: le, ast.Gt: gt, ast.GtE: ge, ast.Eq: eq, ast.NotEq: ne,
}  # fmt: skip
_UP, _DOWN = (ast.Gt, ast.GtE), (ast.Lt, ast.LtE)


def switch_findings(node: SwitchNode, at: Path) -> Iterator[Finding]:
    """Yield the arms that can never be taken, and a default that can never be."""
    trees: list[ast.expr] = []
    always: int | None = None
    for index, case in enumerate(node.switch.cases):
        where = (*at, "switch", "cases", index, "when")
        tree = condition_of(case.when)
        if tree is None:
            continue
        if always is not None:
            yield Finding(where, f"arm {always + 1} always holds, so this one is never reached; put it before")
        elif (earlier := next((number for number, one in enumerate(trees) if _implies(tree, one)), None)) is not None:
            text = ast.unparse(trees[earlier])
            what = f"whenever this holds, '{text}' of an earlier arm does, so this arm is never reached; put it before"
            yield Finding(where, what)
        elif is_constant(tree, value=False):
            yield Finding(where, "this arm never holds; leave it out", warning=True)
        trees.append(tree)
        always = index if always is None and is_constant(tree, value=True) else always
    if always is not None and node.switch.default:
        what = f"arm {always + 1} always holds, so the default is never reached; leave it out"
        yield Finding((*at, "switch", "default"), what, key=True)


def condition_of(value: bool | str) -> ast.expr | None:
    """Return the syntax tree of a condition; None where it cannot be read."""
    return tree_of(str(value).strip().removeprefix("${{").removesuffix("}}"))


def is_constant(tree: ast.expr | None, *, value: bool) -> bool:
    """Return whether a condition is always true, or always false."""
    return isinstance(tree, ast.Constant) and tree.value is value


def _implies(first: ast.expr, second: ast.expr) -> bool:
    """Return whether the second condition surely holds where the first does; False where that is not plain to see."""
    if ast.dump(first) == ast.dump(second):
        return True
    if isinstance(first, ast.BoolOp) and isinstance(first.op, ast.Or):
        return all(_implies(part, second) for part in first.values)
    if isinstance(second, ast.BoolOp) and isinstance(second.op, ast.And):
        return all(_implies(first, part) for part in second.values)
    if isinstance(second, ast.BoolOp) and any(_implies(first, part) for part in second.values):
        return True
    if isinstance(first, ast.BoolOp):
        return any(_implies(part, second) for part in first.values)
    return _comparison_implies(first, second)


def _comparison_implies(first: ast.expr, second: ast.expr) -> bool:
    one, other = _comparison(first), _comparison(second)
    if one is None or other is None or one[0] != other[0] or isinstance(one[2], str) != isinstance(other[2], str):
        return False
    _, operator, value = one
    _, wanted, bound = other
    if operator is ast.Eq:
        return _OPERATORS[wanted](value, bound)
    for direction in (_UP, _DOWN):
        if operator in direction and wanted in direction:
            strict = operator is direction[0] or wanted is direction[1]
            return _OPERATORS[direction[1]](value, bound) if strict else _OPERATORS[direction[0]](value, bound)
        if operator in direction and wanted is ast.NotEq:
            return not _OPERATORS[operator](bound, value)
    return False


def _comparison(tree: ast.expr) -> tuple[str, type[ast.cmpop], Any] | None:
    """Return what is compared, how, and with which number or text."""
    match tree:
        case ast.Compare(left=left, ops=[operator], comparators=[ast.Constant(value=value)]):
            plain = isinstance(value, int | float | str) and not isinstance(value, bool)
            return (ast.dump(left), type(operator), value) if plain and type(operator) in _OPERATORS else None
        case _:
            return None

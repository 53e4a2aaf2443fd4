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
Comparison = tuple[str, type[ast.cmpop], Any]
"""What is compared, how, and with which number or text."""

Alternative = dict[str, Comparison | None]
"""Conditions that hold together, by their text, with what is known of each."""

_COMPARED = 100  # so that very long switches are checked in good time
_UP, _DOWN = (ast.Gt, ast.GtE), (ast.Lt, ast.LtE)


def switch_findings(node: SwitchNode, at: Path) -> Iterator[Finding]:
    """Yield the arms that can never be taken, and a default that can never be."""
    earlier = _Earlier()
    always: int | None = None
    for index, case in enumerate(node.switch.cases):
        where = (*at, "switch", "cases", index, "when")
        tree = condition_of(case.when)
        if tree is None:
            continue
        alternatives = list(_alternatives(tree))
        if always is not None:
            yield Finding(where, f"arm {always + 1} always holds, so this one is never reached; put it before")
        elif all(earlier.covers(each) for each in alternatives):
            what = "whenever this holds, the condition of an earlier arm does, so it is never reached; put it before"
            yield Finding(where, what)
        elif is_constant(tree, value=False):
            yield Finding(where, "this arm never holds; leave it out", warning=True)
        for each in alternatives:
            earlier.add(each)
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


def _alternatives(tree: ast.expr) -> Iterator[Alternative]:
    """Yield what stands between the `or` of a condition: each the parts between its `and`."""
    for each in tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.Or) else [tree]:
        parts = each.values if isinstance(each, ast.BoolOp) and isinstance(each.op, ast.And) else [each]
        yield {ast.dump(part): _comparison(part) for part in parts}


class _Earlier:
    """What the arms so far hold for, kept so that a later arm is compared with few of them."""

    def __init__(self) -> None:
        self.single: set[str] = set()
        self.ranges: dict[str, list[Comparison]] = {}
        self.joint: list[Alternative] = []

    def add(self, parts: Alternative) -> None:
        """Take in what stands between two `or` of an arm."""
        if len(parts) > 1:
            self.joint.append(parts)
            return
        ((text, comparison),) = parts.items()
        self.single.add(text)
        if comparison is not None and comparison[1] is not ast.Eq:  # equal ones have the same text
            self.ranges.setdefault(comparison[0], []).append(comparison)

    def covers(self, parts: Alternative) -> bool:
        """Return whether some earlier arm surely holds where these parts do."""
        if not self.single.isdisjoint(parts):
            return True
        known = [comparison for comparison in parts.values() if comparison is not None]
        if any(_comparison_implies(one, other) for one in known for other in self.ranges.get(one[0], ())[:_COMPARED]):
            return True
        return any(_all_held(parts, known, joint) for joint in self.joint[:_COMPARED])


def _all_held(parts: Alternative, known: list[Comparison], joint: Alternative) -> bool:
    return all(
        text in parts or (other is not None and any(_comparison_implies(one, other) for one in known))
        for text, other in joint.items()
    )


def _comparison_implies(one: Comparison, other: Comparison) -> bool:
    """Return whether the second comparison surely holds where the first does."""
    if one[0] != other[0] or isinstance(one[2], str) != isinstance(other[2], str):
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


def _comparison(tree: ast.expr) -> Comparison | None:
    """Return what is compared, how, and with which number or text."""
    match tree:
        case ast.Compare(left=left, ops=[operator], comparators=[ast.Constant(value=value)]):
            plain = isinstance(value, int | float | str) and not isinstance(value, bool)
            return (ast.dump(left), type(operator), value) if plain and type(operator) in _OPERATORS else None
        case _:
            return None

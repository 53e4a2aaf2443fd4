"""Finds nodes that can never run, and reads of nodes that may have been skipped."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import Node, SwitchNode
from perdure.definitions.places import Body, Place, places_of
from perdure.definitions.plan import find_cycle, needs_of
from perdure.definitions.reads import Read, paths_in
from perdure.definitions.switch_checks import condition_of, is_constant
from perdure.definitions.type_checks import expressions_at
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_DEEPEST = 100
Arms = frozenset[tuple[str, int]]
"""A switch and the number of one of its arms, for each arm that leads to a node."""


@dataclass(frozen=True)
class Order:
    """The nodes of one body, what each of them waits for, and what leads to them."""

    body: Body

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """What each node waits for: its needs, and what leads to it."""
        found = {name: dict.fromkeys(_needs(node, at)) for name, (node, at) in self.body.nodes.items()}
        for name, leading in (*self.arms.items(), *self.handlers.items()):
            found[name].update(dict.fromkeys(one for one, _ in leading))
        return {
            name: tuple(need for need in wanted if need in found and need != name) for name, wanted in found.items()
        }

    @cached_property
    def arms(self) -> dict[str, Arms]:
        """The arms that lead to a node."""
        found: dict[str, set[tuple[str, int]]] = {}
        for name, (node, _) in self.body.nodes.items():
            if isinstance(node, SwitchNode):
                for number, target in _targets(node):
                    found.setdefault(target, set()).add((name, number))
        return {name: frozenset(arms) for name, arms in found.items() if name in self.body.nodes}

    @cached_property
    def handlers(self) -> dict[str, Arms]:
        """The nodes whose catch leads to a node."""
        found: dict[str, set[tuple[str, int]]] = {}
        for name, (node, _) in self.body.nodes.items():
            for index, catch in enumerate(node.catch):
                if catch.then in self.body.nodes:
                    found.setdefault(str(catch.then), set()).add((name, index))
        return {name: frozenset(leading) for name, leading in found.items()}

    @cached_property
    def ordered(self) -> list[str]:
        """The nodes so that needs come first; empty where they form a circle."""
        if find_cycle(self.needs):
            return []
        placed: dict[str, None] = {}
        missing = {name: len(needs) for name, needs in self.needs.items()}
        ready = [name for name, count in missing.items() if not count]
        for name in ready:
            placed[name] = None
            for dependant in self.dependants[name]:
                missing[dependant] -= 1
                if not missing[dependant]:
                    ready.append(dependant)
        return list(placed)

    @cached_property
    def dependants(self) -> dict[str, list[str]]:
        """The nodes that wait for each."""
        found: dict[str, list[str]] = {name: [] for name in self.needs}
        for name, needs in self.needs.items():
            for need in needs:
                found[need].append(name)
        return found

    def node(self, name: str) -> Node:
        """Return a node of the body."""
        return self.body.nodes[name][0]

    @cached_property
    def may_skip(self) -> frozenset[str]:
        """The nodes that may be skipped."""
        found: set[str] = set()
        for name in self.ordered:
            node, needs = self.node(name), self.needs[name]
            behind = [need for need in needs if need in found]
            by_needs = behind and node.join != "all_done" and (node.join == "all_succeeded" or behind == list(needs))
            if name in self.arms or name in self.handlers or by_needs or _may_be_false(node):
                found.add(name)
        return frozenset(found)

    def skipped_with(self, name: str, reader: str) -> bool:
        """Return whether a node is surely skipped when another is, for whatever reason that was."""
        node, reasons = self.node(name), list[Callable[[str], bool]]()
        if name in self.arms:
            reasons.append(lambda other: other in self.arms and self.arms[other] <= self.arms[name])
        if _may_be_false(node):
            condition = _condition_text(node)
            reasons.append(lambda other: _condition_text(self.node(other)) == condition)
        return all(self._follows(reader, why, {name: True}) for why in reasons or [_no_other])

    def _follows(self, name: str, skipped: Callable[[str], bool], known: dict[str, bool], depth: int = 0) -> bool:
        """Return whether a node is skipped when those are that `skipped` tells; in doubt, far away, that it is."""
        if name not in known:
            join, needs = self.node(name).join, self.needs[name]
            some = any if join == "all_succeeded" else all
            known[name] = (
                depth > _DEEPEST
                or skipped(name)
                or (
                    bool(needs and join != "all_done")
                    and some(self._follows(need, skipped, known, depth + 1) for need in needs)
                )
            )
        return known[name]


def _no_other(_: str) -> bool:
    return False


def _condition_text(node: Node) -> str | None:
    text = str(node.if_).strip().removeprefix("${{").removesuffix("}}").strip()
    return text if node.if_ is not None else None


def _needs(node: Node, at: Path) -> tuple[str, ...]:
    try:
        return needs_of(node, at)
    except ExpressionError:
        return tuple(node.needs)  # the expression checks say so


def _targets(node: SwitchNode) -> Iterator[tuple[int, str]]:
    for number, case in enumerate(node.switch.cases):
        yield from ((number, name) for name in case.then)
    yield from ((len(node.switch.cases), name) for name in node.switch.default or [])


def _may_be_false(node: Node) -> bool:
    return node.if_ is not None and not is_constant(condition_of(node.if_), value=True)


def skip_findings(workflow: Workflow, all_orders: Iterable[Order]) -> Iterator[Finding]:
    """Yield nodes that can never run, and unguarded reads of nodes that may be skipped."""
    orders = {order.body.path: order for order in all_orders}
    for order in orders.values():
        yield from _dead_findings(order)
    for place in places_of(workflow):
        for at, expression in expressions_at(place.field.path, place.field.value, bare=place.field.bare):
            for read in paths_in(expression):
                if len(read.path) > 3 and read.path[0] == "nodes" and read.path[2] == "output" and not read.guarded:
                    yield from _read_findings(orders, place, at, read)


def _dead_findings(order: Order) -> Iterator[Finding]:
    allowed: dict[str, dict[str, frozenset[int]]] = {}
    for name in order.ordered:
        node, at = order.body.nodes[name]
        if node.if_ is not None and is_constant(condition_of(node.if_), value=False):
            yield Finding((*at, "if"), f"node {name!r} never runs: its condition is always false", warning=True)
        taken: dict[str, frozenset[int]] = {}
        for switch, number in order.arms.get(name, ()):
            taken[switch] = taken.get(switch, frozenset()) | {number}
        if node.join == "all_succeeded":
            for switch, arms in (item for need in order.needs[name] for item in allowed[need].items()):
                both = taken.get(switch, arms) & arms
                if not both and taken.get(switch):
                    yield Finding(at, _exclusive(name, switch), key=True)
                taken[switch] = both
        elif name not in order.arms and node.join != "all_done":
            taken = _common([allowed[need] for need in order.needs[name]])
        allowed[name] = taken


def _common(parts: list[dict[str, frozenset[int]]]) -> dict[str, frozenset[int]]:
    """Return the arms that must have been taken for at least one of several nodes to run."""
    if not parts:
        return {}
    shared = set(parts[0]).intersection(*parts[1:])
    return {switch: frozenset().union(*(part[switch] for part in parts)) for switch in shared}


def _exclusive(name: str, switch: str) -> str:
    return (
        f"node {name!r} is unreachable: it needs nodes of different arms of switch {switch!r}, of which only one runs, "
        "and joins all_succeeded; use `join: none_failed` or `any_succeeded`"
    )


def _read_findings(orders: dict[Path, Order], place: Place, at: Path, read: Read) -> Iterator[Finding]:
    name = read.path[1]
    if name in read.tested:
        return
    body, reader = place.body, place.node
    guards = [_guards(body, reader) if place.field.path[-1] != "if" else set()]
    while name not in body.nodes and body.outer is not None:
        body, reader = body.outer, body.owner
        guards.append(_guards(body, reader))
    if name not in body.nodes or name == reader or any(name in guard for guard in guards):
        return
    shown = ".".join(read.path).replace(".[]", "[]")
    how = f"write `default({shown}, ...)`"
    if body is not place.body and reader is None:
        yield Finding(at, f"'{shown}' may not be there: node {name!r} need not have run by then; {how}", warning=True)
        return
    order = orders[body.path]
    if name not in order.may_skip:
        return
    if reader is None or not order.skipped_with(name, reader):
        how += " or give this node `join: all_succeeded`" if reader is not None else ""
        yield Finding(at, f"'{shown}' fails when node {name!r} is skipped: its output is null; {how}", warning=True)


def _guards(body: Body, reader: str | None) -> set[str]:
    """Return the nodes whose result a node's own condition asks for."""
    condition = body.nodes[reader][0].if_ if reader is not None else None
    if not isinstance(condition, str):
        return set()
    return {
        read.path[1]
        for _, expression in expressions_at((), condition, bare=True)
        for read in paths_in(expression)
        if read.path[0] == "nodes" and len(read.path) > 1
    }

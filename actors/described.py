"""A state as plain data that people can read, and the differences between two of them, place by place."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from immutables import Map

from perdure.actors.listeners import active_states
from perdure.actors.state import BodyState, ExecutionState, NodeState, Purged, Started
from perdure.definitions.paths import inner_body, node_in

_EMPTY = BodyState()
_NONE: Map[str, BodyState] = Map()
_T = TypeVar("_T")


class Difference(NamedTuple):
    """What differs at one place, such as `nodes.classify.status`: before and after, None where there is nothing."""

    place: str
    before: Any
    after: Any


def described(execution: str, state: ExecutionState) -> dict[str, Any]:
    """Return an execution's state as JSON data: what it is, how it stands, its nodes by path, what it waits for."""
    if isinstance(state, Purged):
        return {"id": execution, "status": "purged", "summary": msgspec.to_builtins(state.summary)}
    if not isinstance(state, Started):
        return {"id": execution, "status": "queued"}
    return _described(execution, state, state.nodes, active_states(state))


def _described(execution: str, state: Started, nodes: Mapping[str, NodeState], states: list[str]) -> dict[str, Any]:
    chart = state.main.chart
    return {
        "id": execution,
        "workflow": state.started.workflow,
        "digest": state.started.digest,
        "status": state.status,
        "input": state.started.input,
        "nodes": {path: node_described(node) for path, node in sorted(nodes.items())},
        **({"states": states} if states else {}),
        **({"context": chart.context} if chart is not None else {}),
        **({"timers": timers} if (timers := _timers(state)) else {}),
        **({"signals": dict(state.signals)} if state.signals else {}),
        "outcome": msgspec.to_builtins(state.outcome),
    }


def changes(execution: str, before: ExecutionState, after: ExecutionState) -> list[Difference]:
    """Return the differences of two states of one execution; what they share is not looked at, so that many go fast."""
    if not (isinstance(before, Started) and isinstance(after, Started)):
        return list(differences(described(execution, before), described(execution, after)))
    changed = _Changed()
    for root in dict.fromkeys(["", *before.ends, *after.ends]):
        changed.look(root, *(state.ends.get(root) if root else state.main for state in (before, after)))
    one, other = (
        _described(execution, state, nodes, active_states(state) if changed.charts else [])
        for state, nodes in ((before, changed.was), (after, changed.now))
    )
    return list(differences(one, other))


class _Changed:
    """The nodes of two states that are not the same objects, and whether they are in a statechart."""

    def __init__(self) -> None:
        self.was: dict[str, NodeState] = {}
        self.now: dict[str, NodeState] = {}
        self.charts = False

    def look(self, at: str, one: BodyState | None, other: BodyState | None) -> None:
        """Take in a body as it was and as it is, and what is within it."""
        one, other = one or _EMPTY, other or _EMPTY
        self.charts |= (one.chart or other.chart) is not None
        for name, mine, theirs in _differing(one.nodes, other.nodes):
            path = node_in(at, name)
            if mine is not None and one.chart is None:
                self.was[path] = mine
            if theirs is not None and other.chart is None:
                self.now[path] = theirs
            for key, body, after in _differing(mine.bodies if mine else _NONE, theirs.bodies if theirs else _NONE):
                self.look(inner_body(path, key), body, after)


def _differing(one: Map[str, _T], other: Map[str, _T]) -> Iterator[tuple[str, _T | None, _T | None]]:
    """Yield the keys whose values are not the same object, with both values."""
    if one is other:
        return
    for key, value in other.items():
        before = one.get(key)
        if before is not value:
            yield key, before, value
    for key, value in one.items():
        if key not in other:
            yield key, value, None


def node_described(node: NodeState) -> dict[str, Any]:
    """Return a node as JSON data; what is within it has paths of its own."""
    data: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(node, bodies=Map()), enc_hook=dict)
    data.pop("bodies", None)
    return data


def _timers(state: Started) -> dict[str, str]:
    return {timer: due.isoformat() for timer, due in sorted(state.timers.items())}


def differences(before: Any, after: Any, place: str = "") -> Iterator[Difference]:
    """Yield where two values of JSON data differ: of objects key by key, of anything else as a whole."""
    if before == after:
        return
    if not (isinstance(before, dict) and isinstance(after, dict)):
        yield Difference(place, before, after)
        return
    for key in dict.fromkeys([*before, *after]):
        yield from differences(before.get(key), after.get(key), f"{place}.{key}" if place else key)

"""A state as plain data that people can read, and the differences between two of them, place by place."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from perdure.actors.listeners import active_states
from perdure.actors.state import ExecutionState, NodeState, Purged, Started


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
    chart = state.main.chart
    return {
        "id": execution,
        "workflow": state.started.workflow,
        "digest": state.started.digest,
        "status": state.status,
        "input": state.started.input,
        "nodes": {path: node_described(node) for path, node in sorted(state.nodes.items())},
        **({"states": states} if (states := active_states(state)) else {}),
        **({"context": chart.context} if chart is not None else {}),
        **({"timers": timers} if (timers := _timers(state)) else {}),
        **({"signals": dict(state.signals)} if state.signals else {}),
        "outcome": msgspec.to_builtins(state.outcome),
    }


def node_described(node: NodeState) -> dict[str, Any]:
    """Return a node as JSON data; what is within it has paths of its own."""
    data: dict[str, Any] = msgspec.to_builtins(node, enc_hook=dict)
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

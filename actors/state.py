"""The state of an execution, and `evolve`: the fold that makes it from events, and nothing else."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec
from immutables import Map

from perdure.errors import CorruptEntry
from perdure.events.entry import Entry, Recorded
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    Event,
    ExecutionFailed,
    ExecutionPurged,
    ExecutionStarted,
    ExecutionSucceeded,
    NodeAttemptFailed,
    NodeCancelled,
    NodeFailed,
    NodeResumed,
    NodeScheduled,
    NodeSkipped,
    NodeSucceeded,
    TimerArmed,
    TimerCancelled,
    TimerFired,
)

NodeStatus = Literal["running", "retrying", "succeeded", "failed", "skipped", "cancelled"]
SETTLED: frozenset[NodeStatus] = frozenset({"succeeded", "failed", "skipped", "cancelled"})

_replace = msgspec.structs.replace


class NodeState(msgspec.Struct, frozen=True):
    """Where one node stands. `resumed` counts how often the current attempt was run again by a new owner."""

    status: NodeStatus
    attempt: int = 0
    resumed: int = 0
    input: Any = None
    output: Any = None
    error: Error | None = None
    reason: str | None = None


class NotStarted(msgspec.Struct, frozen=True):
    """Nothing has happened yet."""


class Started(msgspec.Struct, frozen=True):
    """An execution that began, and perhaps ended.

    running: the nodes that should be at work now. settled: how many nodes will not change any more.
    """

    started: ExecutionStarted
    nodes: Map[str, NodeState] = Map()
    running: Map[str, NodeState] = Map()
    timers: Map[str, datetime] = Map()
    settled: int = 0
    outcome: ExecutionSucceeded | ExecutionFailed | None = None

    @property
    def status(self) -> Literal["running", "succeeded", "failed"]:
        """The execution's status in one word."""
        if self.outcome is None:
            return "running"
        return "succeeded" if isinstance(self.outcome, ExecutionSucceeded) else "failed"


class Purged(msgspec.Struct, frozen=True):
    """An execution that ended and whose past was removed; nothing happens to it any more."""

    summary: ExecutionPurged


ExecutionState = NotStarted | Started | Purged
INITIAL: ExecutionState = NotStarted()


def evolve(state: ExecutionState, event: Event) -> ExecutionState:  # noqa: C901 (one line per event type)
    """Return the state after one event."""
    if isinstance(event, CommandRefused):
        return state
    if isinstance(event, ExecutionStarted):
        return Started(event)
    if isinstance(event, ExecutionPurged):
        return Purged(event)
    if not isinstance(state, Started):
        raise ValueError(f"{type(event).__name__} before ExecutionStarted")  # noqa: TRY004 (a wrong order, not type)
    match event:
        case NodeScheduled(node, attempt, value):
            return _with_node(state, node, NodeState("running", attempt, input=value))
        case NodeResumed(node):
            return _with_node(state, node, _replace(state.nodes[node], resumed=state.nodes[node].resumed + 1))
        case NodeSucceeded(node, attempt, output):
            return _with_node(state, node, NodeState("succeeded", attempt, output=output))
        case NodeAttemptFailed(node, attempt, error):
            return _with_node(state, node, _replace(state.nodes[node], status="retrying", error=error))
        case NodeFailed(node, attempt, error):
            return _with_node(state, node, NodeState("failed", attempt, error=error))
        case NodeSkipped(node, reason):
            return _with_node(state, node, NodeState("skipped", reason=reason))
        case NodeCancelled(node, reason):
            return _with_node(state, node, _replace(state.nodes[node], status="cancelled", reason=reason))
        case TimerArmed(timer, due):
            return _replace(state, timers=state.timers.set(timer, due))
        case TimerFired(timer) | TimerCancelled(timer):
            return _replace(state, timers=state.timers.delete(timer))
        case ExecutionSucceeded() | ExecutionFailed():
            return _replace(state, outcome=event)


def _with_node(state: Started, name: str, node: NodeState) -> Started:
    if node.status == "running":
        running = state.running.set(name, node)
    else:
        running = state.running.delete(name) if name in state.running else state.running
    settled = state.settled + (node.status in SETTLED)
    return _replace(state, nodes=state.nodes.set(name, node), running=running, settled=settled)


class Folded(msgspec.Struct, frozen=True):
    """An execution as of its entry number `n`: its state, and what the next append needs to know.

    handled: ids of the commands already answered. epoch: the newest owner's. last: the last entry as it is stored.
    """

    state: ExecutionState = INITIAL
    n: int = 0
    position: int = 0
    epoch: int = 0
    handled: Map[str, None] = Map()
    last: Recorded | None = None

    @property
    def prev(self) -> str:
        """The digest of the last entry, which the next one names; "" before the first."""
        return self.last.digest if self.last is not None else ""

    def after(self, recorded: Recorded, entry: Entry | None = None) -> "Folded":
        """Fold one more stored entry (decoded already, where the caller has it)."""
        entry = entry or recorded.entry
        if entry.n != self.n + 1 and not any(isinstance(event, ExecutionPurged) for event in entry.events):
            raise CorruptEntry(
                f"execution {recorded.execution!r}: entry {entry.n} follows entry {self.n}; what is between is missing"
            )
        handled, state = self.handled, self.state
        for cause in entry.causes:
            handled = handled.set(cause, None)
        for event in entry.events:
            state = evolve(state, event)
        return Folded(
            state=state,
            n=entry.n,
            position=recorded.position,
            epoch=max(self.epoch, entry.epoch),
            handled=handled,
            last=recorded,
        )


def fold(events: Iterable[Event], state: ExecutionState = INITIAL) -> ExecutionState:
    """Return the state after all of these events."""
    for event in events:
        state = evolve(state, event)
    return state

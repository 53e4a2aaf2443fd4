"""The state of an execution: what its events amount to."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec
from immutables import Map

from perdure.actors.chart_state import ChartState
from perdure.definitions.paths import UNDO, body_of, inner_body, node_in, steps_to
from perdure.events.vocabulary import (
    ChildRequested,
    CompensationStarted,
    Error,
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionFailing,
    ExecutionPaused,
    ExecutionPurged,
    ExecutionStarted,
    ExecutionSucceeded,
    ExecutionTerminated,
    LimitClaim,
    Outcome,
)

NodeStatus = Literal[
    "running", "waiting", "open", "retrying", "stuck", "catching",
    "succeeded", "caught", "failed", "skipped", "cancelled", "compensated",
]  # fmt: skip
Status = Literal[
    "queued", "running", "paused", "cancelling", "compensating",
    "succeeded", "failed", "cancelled", "terminated", "compensated",
]  # fmt: skip
SETTLED: frozenset[NodeStatus] = frozenset({"succeeded", "caught", "failed", "skipped", "cancelled", "compensated"})


class NodeState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one node stands, and the bodies within it.

    resumed: how often the current attempt was run again by a new owner. order: its place in the order in which nodes
    completed, or began to wait. choice: what a switch chose, or the handler of a caught one. ended, failed: how many of
    its bodies did. before: the attempts that no longer count, for somebody has mended what they failed of.
    secrets: JSON pointers to the references to secrets in its input. child: the one that it waits for, or succeeded by.
    waits_for: what its call waits for in a queue. limits: what it claims of limits. usage: what a model took for its
    output.
    reused: it was done in the past of a fork, whose effects are not the fork's to undo.
    """

    status: NodeStatus
    attempt: int = 0
    resumed: int = 0
    input: Any = None
    output: Any = None
    error: Error | None = None
    reason: str | None = None
    order: int = 0
    choice: list[str] = []
    ended: int = 0
    failed: int = 0
    before: int = 0
    bodies: "Map[str, BodyState]" = Map()
    secrets: list[str] = []
    child: str = ""
    waits_for: str = ""
    limits: list[LimitClaim] = []
    usage: dict[str, Any] | None = None
    reused: bool = False


class BodyState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one body stands: its nodes, how many of them will not change any more, and how it ended.

    chart: of a statechart, whose states are its nodes.
    """

    status: Literal["running", "succeeded", "failed"] = "running"
    nodes: Map[str, NodeState] = Map()
    settled: int = 0
    output: Any = None
    error: Error | None = None
    chart: ChartState | None = None


class NotStarted(msgspec.Struct, frozen=True):
    """Nothing has happened yet."""


class Started(msgspec.Struct, frozen=True, omit_defaults=True):
    """An execution that began, and perhaps ended.

    ends: the bodies that run at its end, by name. running: the nodes that should be at work now, by path. waiting:
    those that wait for the outside. undoing: what is still to be compensated, by the body or the node around it.
    signals: those that nobody has taken, by name; signalled: their names in the order in which they came.
    children: those that have not said that they ended, by their ids.
    inputs: those given by hand to nodes that have not begun. undone: how often nodes were compensated. retries: how
    often it went on after it had failed. held: timers that came due during a pause. completed: how many nodes
    completed, or began to wait. queued: the limit that has not let it in yet. slots: what it has asked of limits, to be
    given back at its end, by how often it was retried and the limit: `0/quota:a`.
    """

    started: ExecutionStarted
    main: BodyState = BodyState()
    ends: Map[str, BodyState] = Map()
    running: Map[str, NodeState] = Map()
    waiting: Map[str, NodeState] = Map()
    timers: Map[str, datetime] = Map()
    undoing: Map[str, CompensationStarted] = Map()
    signals: Map[str, tuple[Any, ...]] = Map()
    signalled: tuple[str, ...] = ()
    children: Map[str, ChildRequested] = Map()
    inputs: Map[str, Any] = Map()
    undone: Map[str, int] = Map()
    retries: int = 0
    held: tuple[str, ...] = ()
    completed: int = 0
    queued: LimitClaim | None = None
    slots: Map[str, LimitClaim] = Map()
    paused: ExecutionPaused | None = None
    failing: ExecutionFailing | None = None
    cancelling: ExecutionCancelling | None = None
    compensating: ExecutionCompensating | None = None
    outcome: Outcome | None = None

    @property
    def nodes(self) -> dict[str, NodeState]:
        """All nodes that the state still knows, by path."""
        roots = [("", self.main), *sorted(self.ends.items())]
        return {path: node for body, state in roots for path, node in nodes_in(body, state)}

    @property
    def status(self) -> Status:
        """The execution's status in one word."""
        match self.outcome:
            case None:
                if self.cancelling:
                    return "cancelling"
                if self.queued:
                    return "queued"
                return "paused" if self.paused else "compensating" if self.compensating else "running"
            case ExecutionSucceeded():
                return "succeeded"
            case ExecutionFailed():
                return "failed"
            case ExecutionCancelled():
                return "cancelled"
            case ExecutionTerminated():
                return "terminated"
            case ExecutionCompensated():
                return "compensated"

    def body(self, path: str) -> BodyState | None:
        """Return the body at a path, or None where it has not begun or is forgotten."""
        if not path:
            return self.main
        root, steps = steps_to(path)
        body = self.ends.get(root) if root else self.main
        for name, key in steps:
            node = body.nodes.get(name) if body is not None else None
            body = node.bodies.get(key) if node is not None else None
        return body

    def node(self, path: str) -> NodeState | None:
        """Return the node at a path, or None where it has not begun or is forgotten."""
        at, _, name = path.rpartition("/")
        body = self.body(at) if at else self.main
        return body.nodes.get(name) if body is not None else None

    def tries_around(self, path: str) -> tuple[int, ...]:
        """Return the attempts of the nodes around a node, outer ones first: with its path they name one run of it."""
        root, steps = steps_to(body_of(path))
        body = self.ends.get(root) if root else self.main
        tries: list[int] = []
        for name, key in steps:
            node = body.nodes.get(name) if body is not None else None
            tries.append((node.attempt if node is not None else 0) or 1)  # a state has no attempts
            body = node.bodies.get(key) if node is not None else None
        return tuple(tries)


def nodes_in(path: str, body: BodyState) -> Iterator[tuple[str, NodeState]]:
    """Yield every node within a body with its path, outer ones first; of a statechart only its calls."""
    for name, node in body.nodes.items():
        at = node_in(path, name)
        if body.chart is None:
            yield at, node
        for key, inner in node.bodies.items():
            yield from nodes_in(inner_body(at, key), inner)


def still_done(node: NodeState) -> NodeState | None:
    """Return a node without the calls that tried to undo what is within it; None where it is not done, or undone."""
    if node.status not in ("succeeded", "caught"):
        return None
    bodies: dict[str, BodyState] = {}
    for key, body in node.bodies.items():
        inner = {name: each for name, each in body.nodes.items() if not name.endswith(UNDO)}
        if any(each.status == "compensated" for each in inner.values()):
            return None
        kept = {
            name: still_done(each) if each.status in ("succeeded", "caught") else each for name, each in inner.items()
        }
        if None in kept.values():
            return None
        nodes = Map({name: each for name, each in kept.items() if each is not None})
        bodies[key] = msgspec.structs.replace(body, nodes=nodes)
    return msgspec.structs.replace(node, bodies=Map(bodies)) if bodies else node


class Purged(msgspec.Struct, frozen=True):
    """An execution that ended and whose past was removed; nothing happens to it any more."""

    summary: ExecutionPurged


ExecutionState = NotStarted | Started | Purged
INITIAL: ExecutionState = NotStarted()

"""Two executions beside each other: how they ended, what their nodes gave, and what that took in time and money."""

import re
from datetime import datetime
from typing import Any

import msgspec

from perdure.actors.state import NodeState, Started
from perdure.cluster.history import History, Step
from perdure.events.vocabulary import (
    ChildRequested,
    ExecutionFailed,
    ExecutionSucceeded,
    NodeCharged,
    NodeOpened,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
)

_BEGINS = NodeScheduled | NodeOpened | NodeWaiting | ChildRequested


class NodeSummary(msgspec.Struct):
    """What became of a node. seconds: from its first beginning to its end here; None where it did not run here.

    tokens, cost: what was paid here for it, and for what is within it.
    """

    status: str
    output: Any = None
    error: str | None = None
    attempts: int = 0
    seconds: float | None = None
    reused: bool = False
    tokens: int = 0
    cost: float = 0.0


class Summary(msgspec.Struct):
    """What became of an execution. tokens, cost: what its own entries paid for, not the past of a fork."""

    execution: str
    workflow: str
    digest: str
    status: str
    input: Any
    output: Any
    error: str | None
    seconds: float
    tokens: int
    cost: float
    nodes: dict[str, NodeSummary]


class Comparison(msgspec.Struct):
    """Two executions, and the names of the nodes whose status or output differs, or that only one of them has."""

    one: Summary
    other: Summary
    nodes: list[str]

    @property
    def same(self) -> bool:
        """Whether both ended in the same way, with the same output."""
        one, other = self.one, self.other
        return (one.status, one.output, one.error) == (other.status, other.output, other.error)


async def compared(one: History, other: History) -> Comparison:
    """Compare two executions as they stand now. Raises ExecutionNotFound, BadInput for one that was purged."""
    first, second = await summary_of(one), await summary_of(other)
    return Comparison(first, second, differing(first.nodes, second.nodes))


def differing(one: dict[str, NodeSummary], other: dict[str, NodeSummary]) -> list[str]:
    """Return the nodes that only one has, or whose status or output differs."""
    return [path for path in dict.fromkeys([*one, *other]) if _seen(one.get(path)) != _seen(other.get(path))]


def _seen(node: NodeSummary | None) -> tuple[Any, ...] | None:
    return None if node is None else (node.status, node.output, node.error)


async def summary_of(history: History) -> Summary:
    """Fold an execution's past to what became of it. Raises as History.step."""
    times = Times()
    async for step in history.steps():
        times.take(step)
    state = (await history.step()).after.state
    assert isinstance(state, Started)  # noqa: S101 (step has looked)
    return summarized(history.execution, state, times)


def summarized(execution: str, state: Started, times: "Times") -> Summary:
    """Return the summary of a state that came to be in these times."""
    outcome = state.outcome
    failed = outcome.error if isinstance(outcome, ExecutionFailed) else None
    return Summary(
        execution, state.started.workflow, state.started.digest, state.status, state.started.input,
        outcome.output if isinstance(outcome, ExecutionSucceeded) else None,
        f"{failed.type}: {failed.message}" if failed else None,
        times.seconds, times.tokens, round(times.cost, 9),
        {path: _node(path, node, times) for path, node in sorted(state.nodes.items())},
    )  # fmt: skip


def _node(path: str, node: NodeState, times: "Times") -> NodeSummary:
    error = f"{node.error.type}: {node.error.message}" if node.error else None
    seconds = None if node.reused else times.of(path)
    tokens, cost = times.paid_for(path)
    return NodeSummary(node.status, node.output, error, node.attempt, seconds, node.reused, tokens, cost)


class Times:
    """What the entries of an execution tell of time and money."""

    def __init__(self) -> None:
        self.began: dict[str, datetime] = {}
        self.ended: dict[str, datetime] = {}
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.tokens = 0
        self.cost = 0.0
        self._paid: dict[str, tuple[int, float]] = {}

    def take(self, step: Step) -> None:
        """Take in one more entry."""
        at = step.entry.at
        self.first, self.last = self.first or at, at
        for event in step.entry.events:
            if isinstance(event, _BEGINS):
                self.began.setdefault(event.node, at)
            elif (node := getattr(event, "node", None)) is not None:
                self.ended[node] = at
            if isinstance(event, NodeCharged | NodeSucceeded) and event.usage:
                self._pay(event.node, event.usage)

    def _pay(self, path: str, usage: dict[str, Any]) -> None:
        tokens, cost = (usage.get("input") or 0) + (usage.get("output") or 0), usage.get("cost") or 0
        self.tokens, self.cost = self.tokens + tokens, self.cost + cost
        for end in (*(found.start() for found in re.finditer(r"[/\[]", path)), len(path)):  # for what it is within, too
            before = self._paid.get(path[:end], (0, 0.0))
            self._paid[path[:end]] = before[0] + tokens, before[1] + cost

    def paid_for(self, path: str) -> tuple[int, float]:
        """Return tokens and cost of a node, and of what is within it."""
        tokens, cost = self._paid.get(path, (0, 0.0))
        return tokens, round(cost, 9)

    @property
    def seconds(self) -> float:
        """Return the seconds from the first entry to the last."""
        return (self.last - self.first).total_seconds() if self.first and self.last else 0.0

    def of(self, path: str) -> float | None:
        """Return the seconds from a node's first beginning to its end."""
        if path not in self.began or path not in self.ended:
            return None
        return (self.ended[path] - self.began[path]).total_seconds()

"""What the calls, waits and children of a past execution came to: the results that an evaluation does not pay again."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from perdure.actors.evolve import evolve
from perdure.actors.fork_fold import entries, with_past
from perdure.actors.listeners import OURS
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.definitions.plan import Plan
from perdure.definitions.secret_references import revealed
from perdure.events.entry import Entry
from perdure.events.vocabulary import (
    ChildRequested,
    Error,
    Event,
    EventHeld,
    EventIgnored,
    ExecutionForked,
    ExecutionRetried,
    ExecutionStarted,
    MacrostepTaken,
    NodeAttemptFailed,
    NodeCancelled,
    NodeCatching,
    NodeCaught,
    NodeFailed,
    NodeResumed,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
    SignalTaken,
    TimerFired,
)

_FAILS = NodeAttemptFailed | NodeFailed | NodeCatching | NodeCaught


class Result(msgspec.Struct):
    """What one attempt was given, by which definition, and what it came to; it has not ended where `ended` is false.

    at, number: when it ended, or was given up, and its place among all events.
    """

    given: Any
    making: Any
    at: datetime
    number: int
    ended: bool = False
    output: Any = None
    error: Error | None = None


class Told(NamedTuple):
    """An event that came to a statechart from outside: when, its place among all events, its name and its data."""

    at: datetime
    number: int
    event: str
    data: Any


class Record:
    """A past execution as an evaluation needs it. A fork's past counts.

    results: those of each attempt, by the node's path and the attempt's number: several where what is around it was
    begun again; of what a retry or a fork of the execution made again, only what came of that. told: what statecharts
    were told, in order. plans: those that the execution, and what it is a fork of, ran under, by digest.
    """

    def __init__(self, plans: Mapping[str, Plan], past: Iterable[Entry]) -> None:
        self.results: dict[tuple[str, int], list[Result]] = {}
        self._old: set[tuple[str, int]] = set()
        self.told: list[Told] = []
        self._plans = plans
        self._number = 0
        self._open: dict[str, Result] = {}
        self._take(past)

    def _take(self, past: Iterable[Entry]) -> None:
        state: ExecutionState = INITIAL
        plan: Plan | None = None
        before: Event | None = None
        for at, event in ((entry.at, event) for entry in past for event in entry.events):
            if isinstance(event, ExecutionStarted):
                plan = self._plans[event.digest]
            elif isinstance(event, ExecutionForked):
                self._take(entries(event))
            if isinstance(event, ExecutionForked | ExecutionRetried):
                self._old = set(self.results)
            state = evolve(state, event)
            self._number += 1
            self._at = at
            if plan is not None:
                self._note(plan, state, event, before)
            before = event
        for result in self._open.values():  # they were given up with the execution
            result.at, result.number = self._at, self._number
        self._open.clear()

    def _note(self, plan: Plan, state: ExecutionState, event: Event, before: Event | None) -> None:
        if isinstance(event, NodeScheduled | NodeWaiting | ChildRequested | NodeResumed):
            self._begin(plan, state, event)
        elif isinstance(event, NodeSucceeded):
            if isinstance(before, SignalTaken) and before.node == event.node:  # it did not have to wait
                self._put(plan, event, {"signal": before.signal})
            self._end(event, event.output, None)
        elif isinstance(event, _FAILS):
            self._end(event, None, event.error)
        elif isinstance(event, NodeCancelled) and event.node in self._open:
            result = self._open.pop(event.node)
            result.at, result.number = self._at, self._number
        elif isinstance(event, MacrostepTaken | EventIgnored | EventHeld) and _from_outside(event, before):
            self.told.append(Told(self._at, self._number, event.event, event.data))

    def _begin(self, plan: Plan, state: ExecutionState, event: Any) -> None:
        node = state.node(event.node) if isinstance(state, Started) else None
        if isinstance(state, Started) and node is not None:
            given = event.input if isinstance(event, ChildRequested) else asked(state, plan, event.node, node)
            self._put(plan, event, given)

    def _put(self, plan: Plan, event: Any, given: Any) -> None:
        result = Result(given, making_of(plan, event.node, given), self._at, self._number)
        key = event.node, event.attempt
        there = self.results.setdefault(key, [])
        if key in self._old:
            self._old.discard(key)
            there.clear()
        elif isinstance(event, NodeResumed) and there and not there[-1].ended:
            there.pop()
        there.append(result)
        self._open[event.node] = result

    def _end(self, event: Any, output: Any, error: Error | None) -> None:
        there = self.results.get((event.node, event.attempt))
        result = there[-1] if there else None
        if result is not None and not (result.ended and error is not None):
            result.ended, result.output, result.error = True, output, error
            result.at, result.number = self._at, self._number
            self._open.pop(event.node, None)


def digests_in(past: Iterable[Entry]) -> set[str]:
    """Return the digests of the definitions that an execution, and what it is a fork of, ran under."""
    events = (event for entry in past for event in entry.events)
    return {event.digest for event in with_past(events) if isinstance(event, ExecutionStarted)}


def _from_outside(event: MacrostepTaken | EventIgnored | EventHeld, before: Event | None) -> bool:
    """Say whether a statechart was told an event: it is not its beginning, no delay, and no end of a call."""
    if not event.event or event.of or event.event.startswith(OURS) or getattr(event, "held", False):
        return False
    return not isinstance(before, TimerFired) and getattr(event, "timer", None) is None


def asked(state: Started, plan: Plan, path: str, node: NodeState) -> Any:
    """Return what a call is given, as data to compare: of a model's reply the whole conversation."""
    return msgspec.to_builtins(given_to(state, plan, path, node, _named))


def _named(value: Any, pointers: Iterable[str]) -> Any:
    return revealed(value, pointers, "[secret {}]".format)


def making_of(plan: Plan, path: str, given: Any) -> Any:
    """Return all of a definition that says how a node's call is made: the node, its agent, its tool."""
    node = plan.node(path)
    agent = given.get("agent") if node.calls == "model" and isinstance(given, dict) else node.target
    called = plan.agents.get(str(agent)) if node.calls in ("agent", "model") else plan.tools.get(node.target)
    return (node.model, node.called, called)

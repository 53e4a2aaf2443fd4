"""What the calls, waits and children of a past execution came to: the results that an evaluation does not pay again."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from perdure.actors.evolve import evolve
from perdure.actors.fork_fold import entries, with_past
from perdure.actors.inputs import (
    ChangeInput,
    CompleteNode,
    Control,
    PauseExecution,
    ResumeExecution,
    SignalExecution,
    SkipNode,
)
from perdure.actors.listeners import OURS
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.actors.usage import Usage
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
    ExecutionPaused,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    InputChanged,
    Intervened,
    MacrostepTaken,
    NodeAttemptFailed,
    NodeCancelled,
    NodeCatching,
    NodeCaught,
    NodeCharged,
    NodeFailed,
    NodeResumed,
    NodeScheduled,
    NodeSkipped,
    NodeStuck,
    NodeSucceeded,
    NodeWaiting,
    SignalTaken,
    TimerArmed,
    TimerCancelled,
    TimerFired,
    TimerHeld,
)

_FAILS = NodeAttemptFailed | NodeFailed | NodeCatching | NodeCaught | NodeStuck


class Result(msgspec.Struct):
    """What one attempt was given, by which definition, and what it came to; it has not ended where `ended` is false.

    at, number: when it ended, or was given up, and its place among all events. usage: what it took a model.
    """

    given: Any
    making: Any
    at: datetime
    number: int
    ended: bool = False
    output: Any = None
    error: Error | None = None
    usage: Usage | None = None


class Command(NamedTuple):
    """What somebody told the execution, but for answers to calls and waits: when, its place among all events, what."""

    at: datetime
    number: int
    given: Control


class Record:
    """A past execution as an evaluation needs it. A fork's past counts.

    results: those of each attempt, by the node's path and the attempt's number: several where what is around it was
    begun again; of what a retry or a fork of the execution made again, only what came of that. A timer has the number
    0; it was given how long it was to take, and ended when it fired. commands: what people did by hand, and told
    statecharts, in order. starts: the digests and inputs with which it, and what it is a fork of, began. plans: the
    definitions of these, by digest.
    """

    def __init__(self, plans: Mapping[str, Plan], past: Iterable[Entry]) -> None:
        self.results: dict[tuple[str, int], list[Result]] = {}
        self._old: set[tuple[str, int]] = set()
        self.commands: list[Command] = []
        self._by_hand: tuple[int, Intervened] | None = None
        self._plans = plans
        self._number = 0
        self._open: dict[tuple[str, int], Result] = {}
        self._taken: dict[str, str] = {}
        self.starts: list[tuple[str, Any]] = []
        self._take(past)

    def _take(self, past: Iterable[Entry]) -> None:
        state: ExecutionState = INITIAL
        plan: Plan | None = None
        before: Event | None = None
        for at, event in ((entry.at, event) for entry in past for event in entry.events):
            if isinstance(event, ExecutionStarted):
                plan = self._plans[event.digest]
                self.starts.append((event.digest, event.input))
            elif isinstance(event, ExecutionForked):
                self._take(entries(event))
            if isinstance(event, ExecutionForked | ExecutionRetried):
                self._old = set(self.results)
            self._number, self._at = self._number + 1, at
            if isinstance(event, NodeCancelled | NodeSkipped) and isinstance(state, Started):
                node = state.node(event.node)
                self._give_up((event.node, node.attempt if node is not None else 1))
            state = evolve(state, event)
            if plan is not None:
                self._note(plan, state, event, before)
            before = event
        for key in list(self._open):  # they were given up with the execution
            self._give_up(key)

    def _note(self, plan: Plan, state: ExecutionState, event: Event, before: Event | None) -> None:
        if isinstance(event, NodeScheduled | NodeWaiting | ChildRequested | NodeResumed):
            self._begin(plan, state, event)
        elif isinstance(event, SignalTaken):
            self._taken[event.node] = event.signal
        elif isinstance(event, NodeCharged) and (event.node, event.attempt) in self._open:
            self._open[event.node, event.attempt].usage = event.usage
        elif isinstance(event, NodeSucceeded | _FAILS):
            self._end(plan, event)
        elif isinstance(event, TimerArmed):
            self._arm(event)
        elif isinstance(event, TimerFired | TimerHeld) and (event.timer, 0) in self._open:
            self._open[event.timer, 0].ended = True  # one that is held fires again in the decision to resume
            self._give_up((event.timer, 0))
        elif isinstance(event, TimerCancelled):
            self._give_up((event.timer, 0))
        self._note_command(event, before)

    def _note_command(self, event: Event, before: Event | None) -> None:
        """Note the command by which an event came about, where that is to be given again."""
        command: Control | None = None
        name = f"again/{self._number}"
        if isinstance(event, Intervened):
            self._by_hand = self._number, event
            if event.action == "skip":
                command = SkipNode(name, "", event.node, event.reason, event.by)
        elif isinstance(event, MacrostepTaken | EventIgnored | EventHeld):
            command = SignalExecution(name, "", event.event, event.data) if _from_outside(event, before) else None
        elif isinstance(event, ExecutionPaused) and not isinstance(before, NodeStuck):
            command = PauseExecution(name, "", event.reason, event.by)
        elif isinstance(event, ExecutionResumed):
            command = ResumeExecution(name, "", event.by)
        if command is not None:
            self.commands.append(Command(self._at, self._number, command))
        elif self._by_hand is not None and isinstance(event, InputChanged | NodeSucceeded):
            self._note_by_hand(event, *self._by_hand)

    def _note_by_hand(self, event: InputChanged | NodeSucceeded, number: int, said: Intervened) -> None:
        """Note what somebody gave a node: at the place where that was said, before what it put an end to."""
        if event.node == said.node and said.action in ("input", "complete"):
            told = (f"again/{number}", "", event.node)
            command: Control
            if isinstance(event, NodeSucceeded):
                command = CompleteNode(*told, event.output, said.reason, said.by)
            else:
                command = ChangeInput(*told, event.input, said.reason, said.by)
            self.commands.append(Command(self._at, number, command))
            self._by_hand = None

    def _begin(self, plan: Plan, state: ExecutionState, event: Any) -> None:
        node = state.node(event.node) if isinstance(state, Started) else None
        if isinstance(state, Started) and node is not None:
            given = event.input if isinstance(event, ChildRequested) else asked(state, plan, event.node, node)
            self._put(plan, event, given)

    def _put(self, plan: Plan, event: Any, given: Any) -> None:
        key = event.node, event.attempt
        there = self.results.setdefault(key, [])
        if key in self._old:
            self._old.discard(key)
            there.clear()
        elif isinstance(event, NodeResumed) and there and not there[-1].ended:
            there.pop()
        self._open[key] = Result(given, making_of(plan, event.node, given), self._at, self._number)
        there.append(self._open[key])

    def _arm(self, event: TimerArmed) -> None:
        """Begin a timer; one that is moved, or armed again by a retry or a fork, is still the one that it was."""
        key = event.timer, 0
        there = self.results.setdefault(key, [])
        if not there or not (key in self._open or key in self._old):
            there.append(Result(event.due - self._at, None, self._at, self._number))
        self._old.discard(key)
        self._open[key], there[-1].ended = there[-1], False

    def _give_up(self, key: tuple[str, int]) -> None:
        result = self._open.pop(key, None)
        if result is not None:
            result.at, result.number = self._at, self._number

    def _end(self, plan: Plan, event: Any) -> None:
        if event.node in self._taken:  # it did not have to wait
            self._put(plan, event, {"signal": self._taken.pop(event.node)})
        key = event.node, event.attempt
        there = self.results.get(key)
        error = None if isinstance(event, NodeSucceeded) else event.error
        if there and not (there[-1].ended and error is not None):
            there[-1].ended, there[-1].error = True, error
            if isinstance(event, NodeSucceeded):
                there[-1].output, there[-1].usage = event.output, event.usage
            there[-1].at, there[-1].number = self._at, self._number
            self._open.pop(key, None)


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

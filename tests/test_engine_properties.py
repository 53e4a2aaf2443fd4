"""Properties of the engine over random workflows and whatever may happen to them: what must hold always."""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_workflows import Choose, favourable, possible, random_plan
from scenario import BOOM, EXECUTION, NOW, start

from perdure.actors.decisions import decide
from perdure.actors.evolve import evolve, fold
from perdure.actors.folded import Folded
from perdure.actors.inputs import (
    CompensateExecution,
    Continue,
    Input,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    TerminateExecution,
)
from perdure.actors.snapshot import pack, unpack
from perdure.actors.state import INITIAL, SETTLED, BodyState, ExecutionState, Started
from perdure.definitions.paths import UNDO, body_of, is_within, node_in, steps_to
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import (
    BodyFailed,
    ChildEnded,
    ChildRequested,
    CommandRefused,
    CompensationStarted,
    Event,
    ExecutionCancelled,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionRetried,
    ExecutionTerminated,
    Intervened,
    NodeAttemptFailed,
    NodeCatching,
    NodeCaught,
    NodeFailed,
    NodeOpened,
    NodeScheduled,
    NodeSucceeded,
    NodeWaiting,
    Parent,
)

ENOUGH = 400
"""Favourable inputs after which every execution of these sizes has ended."""


class Watcher:
    """Follows the events of an execution by rules of its own, and fails where one is broken."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: ExecutionState = INITIAL
        self.events: list[Event] = []
        self.results: Counter[Any] = Counter()
        self.completed: list[str] = []  # what could be undone, in the order of completion
        self.history: list[str] = []
        self.under_way: set[str] = set()  # what is being undone
        self.asked: dict[str, str] = {}  # the last child of each node
        self.has_ended = ""  # the child that has said so just now

    def tell(self, given_input: Input) -> None:
        self.has_ended = ""
        events, state = decide(self.plan, EXECUTION, self.state, given_input, NOW)
        for event in events:
            self._look_before(event)
            self.state = evolve(self.state, event)
            self.events.append(event)
            self._look_after(event)
        assert self.state == state
        self._look_between()

    def _look_before(self, event: Event) -> None:
        state = self.state
        if not isinstance(state, Started):
            return
        allowed = CommandRefused | ChildEnded | Intervened | ExecutionRetried | ExecutionCompensating
        assert state.outcome is None or isinstance(event, allowed), f"{event} after the end"
        if isinstance(event, NodeScheduled | NodeWaiting | NodeOpened | ChildRequested) and not event.node.endswith(
            UNDO
        ):
            self._needs_are_settled(state, event.node)
            self._is_live(state, event.node)
        if isinstance(event, NodeSucceeded | NodeAttemptFailed | NodeFailed | NodeCatching | NodeCaught):
            before = state.node(event.node)
            if before is None or before.status not in ("catching", "retrying"):
                self.results[event.node, state.tries_around(event.node), event.attempt] += 1

    def _needs_are_settled(self, state: Started, path: str) -> None:
        node = self.plan.node(path)
        for need in node.needs:
            other = state.node(node_in(body_of(path), need))
            assert other is not None, (path, need)
            assert other.status in SETTLED or (other.status == "catching" and need == node.handler_of), (path, need)

    def _is_live(self, state: Started, path: str) -> None:
        root, steps = steps_to(body_of(path))
        assert root or not (state.failing or state.cancelling)
        body = state.ends[root] if root else state.main
        for name, key in steps:
            assert body.status == "running"
            assert body.nodes[name].status == "open"
            body = body.nodes[name].bodies[key]
        assert body.status == "running"

    def _look_after(self, event: Event) -> None:  # noqa: C901 (one case per event)
        match event:
            case CompensationStarted(within, _, undo):
                expected = [path for path in reversed(self.completed) if is_within(path, within)]
                expected.sort(key=lambda path: path not in self.under_way)
                assert set(undo) == set(expected)
                assert [p for p in undo if p not in self.under_way] == [p for p in expected if p not in self.under_way]
                assert set(undo[: len(self.under_way & set(undo))]) == self.under_way & set(undo)
            case NodeScheduled(path, attempt) | NodeWaiting(path, attempt) if path.endswith(UNDO):
                self._undo_begins(path.removesuffix(UNDO), attempt)
            case ChildRequested(path, attempt, child):
                self.asked[path] = child
                if path.endswith(UNDO):
                    self._undo_begins(path.removesuffix(UNDO), attempt)
            case ChildEnded(child):
                self.has_ended = child
            case NodeSucceeded(path) | NodeFailed(path) if path.endswith(UNDO):
                self.under_way.discard(path.removesuffix(UNDO))
                self.completed.remove(path.removesuffix(UNDO))
            case NodeSucceeded(path) if self._can_be_undone(path):
                self.completed = [each for each in self.completed if not is_within(each, path)] + [path]
                self.history = [each for each in self.history if each != path] + [path]
            case NodeFailed(path) | NodeAttemptFailed(path) | NodeCatching(path):
                assert not any(is_within(each, path) for each in self.completed), "left behind"
            case BodyFailed(body):
                assert not any(is_within(each, body) for each in self.completed), "left behind"
            case ExecutionRetried() | ExecutionCompensating():
                self.results.clear()
                left = [path for path in self.history if self._is_done(path)]  # tried in vain to undo, or not at all
                self.completed = [path for path in left if not any(is_within(path, other) for other in left)]
            case ExecutionFailed() | ExecutionCancelled() if not self._main_succeeded():  # else only `finally` failed
                assert not any(is_within(each, "") for each in self.completed), "left behind"
            case ExecutionCompensated():
                assert not any(is_within(each, "") for each in self.completed), "left behind"

    def _can_be_undone(self, path: str) -> bool:
        undo = self.plan.node(path).undo
        return undo is not None and (undo.kind != "compensation" or self.asked.get(path) == self.has_ended)

    def _is_done(self, path: str) -> bool:
        node = self.state.node(path) if isinstance(self.state, Started) else None
        return node is not None and node.status == "succeeded"

    def _main_succeeded(self) -> bool:
        return isinstance(self.state, Started) and self.state.main.status == "succeeded"

    def _undo_begins(self, path: str, attempt: int) -> None:
        assert isinstance(self.state, Started)
        assert path in self.completed
        (within,) = [key for key in self.state.undoing if is_within(path, key)]
        last = [each for each in self.completed if is_within(each, within)][-1]
        if attempt == 1:
            assert path == last, f"{last} is to be undone before {path}"
            assert not any(is_within(each, within) for each in self.under_way), "one after the other"
            assert not self.state.paused
        self.under_way.add(path)

    def _look_between(self) -> None:
        state = self.state
        assert isinstance(state, Started)
        assert all(count == 1 for count in self.results.values()), self.results.most_common(1)
        if state.outcome is not None:
            _nothing_is_left(state)
            return
        self._is_not_stuck(state)
        for timer in (*state.timers, *state.held):
            kind, _, path = timer.partition("/")
            node = state.node(path) if path else None
            assert kind == "execution" or (node is not None and node.status not in SETTLED | {"catching"}), timer
        for path, node in state.nodes.items():
            assert (path in state.running) == (node.status == "running")
            assert (path in state.waiting) == (node.status == "waiting")
        for body in _bodies(state):
            settled = [name for name, node in body.nodes.items() if node.status in SETTLED and not name.endswith(UNDO)]
            assert body.settled in (0, len(settled)), "one that was kept for a compensation counts none"
        assert all(started.undo for started in state.undoing.values())
        assert decide(self.plan, EXECUTION, state, Continue(), NOW)[0] == []

    def _is_not_stuck(self, state: Started) -> None:
        tries = [timer for timer in state.timers if timer.startswith("retry/")]
        assert state.paused or state.running or state.waiting or tries, "stuck"


def _bodies(state: Started) -> Iterator[BodyState]:
    yield from (state.main, *state.ends.values())
    for node in state.nodes.values():
        yield from node.bodies.values()


def _nothing_is_left(state: Started) -> None:
    assert not state.running
    assert not state.waiting
    assert not state.timers
    assert not state.held
    assert not state.undoing
    if isinstance(state.outcome, ExecutionTerminated):
        return
    assert all(node.status in SETTLED for node in state.nodes.values())


def play(choose: Choose) -> Watcher | None:
    """Let random things happen to a random workflow, then only good ones until it ends."""
    plan = random_plan(choose)
    if plan is None:
        return None
    watcher, told = Watcher(plan), list[Input]()
    watcher.tell(msgspec.structs.replace(start(plan, {}), parent=Parent("up", "x", 1, "0")))
    for _ in range(choose(30)):
        assert isinstance(watcher.state, Started)
        if watcher.state.outcome is not None:
            break
        told.append(possible(watcher.state, choose, told))
        watcher.tell(told[-1])
        _is_deaf_to_the_same(watcher, told[-1])
    _come_to_the_end(watcher)
    if choose(3) == 0:
        watcher.tell(RetryExecution("y", EXECUTION))
        _come_to_the_end(watcher)
    for number in range(choose(3)):
        watcher.tell(CompensateExecution(f"u-{number}", EXECUTION, Parent("up", "x~undo", 1, "0"), BOOM))
        _go_wrong(watcher, choose)
        _come_to_the_end(watcher)
    return watcher


def _go_wrong(watcher: Watcher, choose: Choose) -> None:
    for _ in range(choose(4)):
        if isinstance(watcher.state, Started) and watcher.state.outcome is None:
            watcher.tell(possible(watcher.state, choose, []))


def _is_deaf_to_the_same(watcher: Watcher, report: Input) -> None:
    state = watcher.state
    if isinstance(report, ReportSuccess | ReportFailure) and isinstance(state, Started):
        node = state.running.get(report.node)
        if node is None or node.attempt != report.attempt:
            assert decide(watcher.plan, EXECUTION, state, report, NOW)[0] == []


def _come_to_the_end(watcher: Watcher) -> None:
    for _ in range(ENOUGH):
        state = watcher.state
        assert isinstance(state, Started)
        if state.outcome is not None:
            return
        watcher.tell(_help(watcher) if state.paused else favourable(state)[0])
    raise AssertionError("it does not come to an end")


def _help(watcher: Watcher) -> Input:
    """Resume what paused after its last try; what pauses again and again is given up."""
    pauses = sum(isinstance(event, ExecutionPaused) for event in watcher.events)
    return ResumeExecution("r", EXECUTION) if pauses < 20 else TerminateExecution("x", EXECUTION)


def _is_replayed(watcher: Watcher) -> None:
    """State from all events, and from a snapshot and the tail behind it, equals the live state."""
    state, events = watcher.state, watcher.events
    assert fold(events) == state
    for cut in (1, len(events) // 2, len(events)):
        packed = pack(Folded(state=fold(events[:cut]), n=1))
        saved = unpack(packed) if packed is not None else None
        if saved is None:
            assert cut == 0
        else:
            assert fold(events[cut:], saved[0].state) == state


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_happens_the_rules_of_the_engine_hold_and_every_execution_can_end(data: st.DataObject) -> None:
    watcher = play(lambda below: data.draw(st.integers(0, below - 1)))
    assume(watcher is not None)
    assert watcher is not None
    _is_replayed(watcher)


if __name__ == "__main__":  # for long: python tests/test_engine_properties.py FIRST LAST
    tried = 0
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            played = play(random.Random(seed).randrange)
            tried += played is not None
            if played is not None:
                _is_replayed(played)
        except BaseException:
            print("seed", seed)  # noqa: T201
            raise
    print(tried, "executions of", int(sys.argv[2]) - int(sys.argv[1]))  # noqa: T201

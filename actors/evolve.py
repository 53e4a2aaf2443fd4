"""`evolve`: the fold that makes the state of an execution from events, and nothing else."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from immutables import Map

from perdure.actors import chart_fold, fork_fold
from perdure.actors.node_fold import NODE_FOLD
from perdure.actors.state import (
    INITIAL,
    BodyState,
    ExecutionState,
    NodeState,
    Purged,
    Started,
    still_done,
)
from perdure.actors.tree import to_undo_anew, with_node, without
from perdure.definitions.paths import UNDO
from perdure.events.vocabulary import (
    CallQueued,
    ChildEnded,
    ChildRequested,
    CommandRefused,
    Event,
    EventHeld,
    EventIgnored,
    ExecutionAdmitted,
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionFailing,
    ExecutionForked,
    ExecutionPaused,
    ExecutionPurged,
    ExecutionQueued,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionSucceeded,
    ExecutionTerminated,
    InputChanged,
    Intervened,
    MacrostepTaken,
    Outcome,
    SignalReceived,
    SignalTaken,
    TimerArmed,
    TimerCancelled,
    TimerFired,
    TimerHeld,
)

_replace = msgspec.structs.replace


def evolve(state: ExecutionState, event: Event) -> ExecutionState:
    """Return the state after one event."""
    change = _EVOLVE.get(type(event))
    if change is not None and isinstance(state, Started):
        return change(state, event)
    if isinstance(event, CommandRefused):
        return state
    if isinstance(event, ExecutionStarted):
        return Started(event)
    if isinstance(event, ExecutionPurged):
        return Purged(event)
    raise ValueError(f"{type(event).__name__} before ExecutionStarted")


def _input_changed(state: Started, event: InputChanged) -> Started:
    return _replace(state, inputs=state.inputs.set(event.node, event.input))


def _intervened(state: Started, _: Intervened) -> Started:
    return state


def _retried(state: Started, _: ExecutionRetried) -> Started:
    """Forget all that did not succeed, or was undone, and whatever was on its way to an end."""
    if state.main.chart is not None:
        main = chart_fold.retried(state.main)
    else:
        nodes = {name: still_done(node) for name, node in state.main.nodes.items() if not name.endswith(UNDO)}
        kept = Map({name: node for name, node in nodes.items() if node is not None})
        main = BodyState(nodes=kept, settled=len(kept))
    return Started(
        state.started, main, signals=state.signals, signalled=state.signalled, children=state.children,
        inputs=state.inputs, undone=state.undone, completed=state.completed, retries=state.retries + 1,
        slots=state.slots,
    )  # fmt: skip


def _exec_queued(state: Started, event: ExecutionQueued) -> Started:
    slots = state.slots.set(f"{state.retries}/{event.claim.limit}", event.claim)
    return _replace(state, queued=event.claim, slots=slots)


def _exec_admitted(state: Started, _: ExecutionAdmitted) -> Started:
    return _replace(state, queued=None)


def _child_requested(state: Started, event: ChildRequested) -> Started:
    state = _replace(state, children=state.children.set(event.child, event))
    state = chart_fold.call_begun(state, event.node)
    if event.detached:
        return state
    given: dict[str, Any] = {"child": event.child}
    if chart_fold.around(state, event.node) is not None:
        given |= {"id": None, "input": event.input}  # what another attempt begins with
    node = NodeState("waiting", event.attempt, input=given, order=state.completed, child=event.child)
    return _replace(with_node(state, event.node, node), completed=state.completed + 1)


def _child_ended(state: Started, event: ChildEnded) -> Started:
    return _replace(state, children=without(state.children, event.child))


def _timer_armed(state: Started, event: TimerArmed) -> Started:
    return _replace(state, timers=state.timers.set(event.timer, event.due))


def _timer_gone(state: Started, event: TimerFired | TimerCancelled) -> Started:
    held = tuple(timer for timer in state.held if timer != event.timer)
    return _replace(state, timers=without(state.timers, event.timer), held=held)


def _timer_held(state: Started, event: TimerHeld) -> Started:
    return _replace(state, timers=without(state.timers, event.timer), held=(*state.held, event.timer))


def _signal_received(state: Started, event: SignalReceived) -> Started:
    queue = (*state.signals.get(event.signal, ()), event.data)
    return _replace(state, signals=state.signals.set(event.signal, queue), signalled=(*state.signalled, event.signal))


def _signal_taken(state: Started, event: SignalTaken) -> Started:
    before = state.signals[event.signal]
    queue = before[: event.number] + before[event.number + 1 :]
    signals = state.signals.set(event.signal, queue) if queue else state.signals.delete(event.signal)
    places = [place for place, name in enumerate(state.signalled) if name == event.signal]
    gone = places[event.number]
    return _replace(state, signals=signals, signalled=state.signalled[:gone] + state.signalled[gone + 1 :])


def _paused(state: Started, event: ExecutionPaused) -> Started:
    return _replace(state, paused=event)


def _continued(state: Started, _: ExecutionResumed) -> Started:
    return _replace(state, paused=None)


def _being_failed(state: Started, event: ExecutionFailing) -> Started:
    return _replace(state, failing=event)


def _being_cancelled(state: Started, event: ExecutionCancelling) -> Started:
    return _replace(state, cancelling=event, paused=None)


def _being_compensated(state: Started, event: ExecutionCompensating) -> Started:
    """Let an execution that has ended be at work again, on its end: nothing in it begins but what undoes it."""
    main = _replace(to_undo_anew(state.main), status="succeeded")
    return _replace(state, main=main, outcome=None, compensating=event)


def _ended(state: Started, event: Outcome) -> Started:
    return _replace(state, outcome=event, undoing=Map(), held=())


def _forked(state: Started, event: ExecutionForked) -> Started:
    """Take the past of another execution for its own, but for what begins anew."""
    past = fold(event for entry in fork_fold.entries(event) for event in entry.events)
    return fork_fold.forked(state.started, past if isinstance(past, Started) else state, event.anew)


_EVOLVE: dict[type, Callable[[Started, Any], Started]] = {
    **NODE_FOLD,
    ExecutionForked: _forked,
    InputChanged: _input_changed,
    Intervened: _intervened,
    ExecutionRetried: _retried,
    ExecutionQueued: _exec_queued,
    ExecutionAdmitted: _exec_admitted,
    ChildRequested: _child_requested,
    ChildEnded: _child_ended,
    TimerArmed: _timer_armed,
    TimerFired: _timer_gone,
    TimerCancelled: _timer_gone,
    TimerHeld: _timer_held,
    MacrostepTaken: chart_fold.macrostep,
    EventIgnored: chart_fold.ignored,
    EventHeld: chart_fold.held,
    CallQueued: chart_fold.call_queued,
    SignalReceived: _signal_received,
    SignalTaken: _signal_taken,
    ExecutionPaused: _paused,
    ExecutionResumed: _continued,
    ExecutionFailing: _being_failed,
    ExecutionCancelling: _being_cancelled,
    ExecutionSucceeded: _ended,
    ExecutionFailed: _ended,
    ExecutionCancelled: _ended,
    ExecutionTerminated: _ended,
    ExecutionCompensated: _ended,
    ExecutionCompensating: _being_compensated,
}


def fold(events: Iterable[Event], state: ExecutionState = INITIAL) -> ExecutionState:
    """Return the state after all of these events."""
    for event in events:
        state = evolve(state, event)
    return state

"""How the events of statecharts fold into the state of an execution."""

from collections.abc import Callable
from typing import Any

import msgspec
from immutables import Map

from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.actors.state import SETTLED, BodyState, NodeState, Started
from perdure.actors.tree import with_body, with_node, without_node
from perdure.definitions.paths import UNDO, body_of, chart_of, entry_of, node_in
from perdure.events.vocabulary import CallQueued, EventHeld, EventIgnored, MacrostepTaken

_replace = msgspec.structs.replace


def macrostep(state: Started, event: MacrostepTaken) -> Started:
    """Move the chart on, and forget the calls of what was left that are over."""
    body = state.body(event.chart) or BodyState()
    before = body.chart or ChartState()
    after, left = _moved(before, event)
    state = with_body(state, event.chart, _replace(body, chart=after))
    for path, entry in left:
        state = _forget(state, entry_of(event.chart, path, entry))
    if event.of and (node := state.node(event.of)) is not None and node.status in SETTLED - {"succeeded"}:
        state = without_node(state, event.of)
    for path in event.undo:
        state = with_node(state, path, NodeState("succeeded", order=state.completed))
        state = _replace(state, completed=state.completed + 1)
    return state


def _moved(before: ChartState, event: MacrostepTaken) -> tuple[ChartState, list[tuple[str, int]]]:
    """Return where the chart stands after a macrostep, and the states' entries that it left."""
    active, entries, left = dict.fromkeys(before.configuration), before.entries, list[tuple[str, int]]()
    for step in event.steps:
        for path in step.exited:
            active.pop(path, None)
            left.append((path, entries.get(path, 0)))
        for path in step.entered:
            active[path] = None
            entries = entries.set(path, entries.get(path, 0) + 1)
    history = before.history.update({path: tuple(states) for path, states in event.history.items()})
    asked = before.asked
    for call in event.calls:
        name = call.partition(UNDO[0])[0]
        asked = asked.set(name, asked.get(name, 0) + 1)
    for path, entry in left:
        gone = entry_of(event.chart, path, entry) + "/"
        asked = Map({name: times for name, times in asked.items() if not name.startswith(gone)}) if asked else asked
    after = ChartState(
        configuration=tuple(active),
        entries=entries,
        history=history,
        context={**before.context, **event.context} if event.context else before.context,
        held=before.held.delete(before.turn) if event.held else before.held,
        turn=before.turn + event.held,
        calls=before.calls,
        asked=asked,
        steps=before.steps + 1,
        ended=event.ended,
        output=event.output,
        failed=event.failed,
    )
    return after, left


def _forget(state: Started, at: str) -> Started:
    """Forget the calls of an entry that are over; one under way goes on, what may be undone stays."""
    body = state.body(at)
    for name, node in (body.nodes if body is not None else Map[str, Any]()).items():
        if node.status in SETTLED and node.status != "succeeded" and not name.endswith(UNDO):
            state = without_node(state, node_in(at, name))
    return state


def ignored(state: Started, event: EventIgnored) -> Started:
    """Forget an event that was held, and was not taken then; keep a result that a retry takes again."""
    if event.of:
        kept = ChartEvent(event.event, event.data, of=event.of)
        return _with_chart(state, event.chart, lambda chart: _first(chart, kept, anew=not event.held))
    return _with_chart(state, event.chart, _without_first) if event.held else state


def _without_first(chart: ChartState) -> ChartState:
    return _replace(chart, held=chart.held.delete(chart.turn), turn=chart.turn + 1)


def _first(chart: ChartState, event: ChartEvent, *, anew: bool) -> ChartState:
    """Hold an event before all others, or in the place of the first."""
    turn = chart.turn - anew
    return _replace(chart, held=chart.held.set(turn, event), turn=turn)


def held(state: Started, event: EventHeld) -> Started:
    """Keep an event for the resume."""
    kept = ChartEvent(event.event, event.data, event.error, event.of, event.timer)
    return _with_chart(
        state, event.chart, lambda chart: _replace(chart, held=chart.held.set(chart.turn + len(chart.held), kept))
    )


def call_queued(state: Started, event: CallQueued) -> Started:
    """Put a call behind those that wait for their turn."""
    return _with_chart(state, chart_of(event.node), lambda chart: _replace(chart, calls=(*chart.calls, event)))


def call_begun(state: Started, path: str) -> Started:
    """Strike a call that begins off those that wait; a node of no chart is left alone."""
    chart = around(state, path)
    if chart is None or not chart.calls:
        return state
    rest = tuple(call for call in chart.calls if call.node != path)
    return _with_chart(state, chart_of(path), lambda chart: _replace(chart, calls=rest))


def around(state: Started, path: str) -> ChartState | None:
    """Return the chart that a node is a call of; None where it is a call of none."""
    if "]" not in path or not body_of(path).endswith("]"):  # it is asked for each event, and seldom is one
        return None
    body = state.body(chart_of(path))
    return body.chart if body is not None else None


def _with_chart(state: Started, at: str, change: Callable[[ChartState], ChartState]) -> Started:
    body = state.body(at) or BodyState()
    return with_body(state, at, _replace(body, chart=change(body.chart or ChartState())))


def retried(main: BodyState) -> BodyState:
    """Return what a chart goes on from when its failed execution is retried: from the beginning, if it was undone."""
    undone = any(
        node.status == "compensated" or name.endswith(UNDO)
        for state in main.nodes.values()
        for body in state.bodies.values()
        for name, node in body.nodes.items()
    )
    if undone and main.chart is not None:  # later entries are told from those that were undone
        return BodyState(chart=ChartState(entries=main.chart.entries, steps=main.chart.steps))
    return BodyState(nodes=main.nodes, chart=main.chart)

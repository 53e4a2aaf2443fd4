"""The statecharts of an execution as those who send it events meet them: which one an event is for."""

from collections.abc import Iterator
from typing import Any

from perdure.actors import charts, statechart
from perdure.actors.chart_state import ChartState
from perdure.actors.draft import Draft
from perdure.actors.state import BodyState, Started, nodes_in
from perdure.definitions.chart_plan import (
    DONE_INVOKE,
    DONE_STATE,
    ERROR_ACTION,
    ERROR_EXECUTION,
    ERROR_INVOKE,
    PROGRESS_INVOKE,
)
from perdure.definitions.paths import inner_body, node_in
from perdure.definitions.plan import Plan

OURS = (DONE_STATE, DONE_INVOKE, ERROR_ACTION, ERROR_EXECUTION, ERROR_INVOKE, PROGRESS_INVOKE)
"""How the events begin that only perdure raises."""


def charts_in(plan: Plan, state: Started) -> Iterator[tuple[str, ChartState]]:
    """Yield the statecharts of an execution that have begun and not ended: the path of their body, where they stand."""
    if state.outcome is not None:
        return
    if state.main.chart is not None and state.main.status == "running":
        yield "", state.main.chart
    elif plan.has_charts:
        for root, body in (("", state.main), *sorted(state.ends.items())):
            yield from _within(root, body)


def active_states(state: Started) -> list[str]:
    """Return the paths of the active states, also of a chart at its end; a node's are `node/chart/state`."""
    main = [] if state.main.chart is None else [("", state.main.chart)]
    charts_of = main or [each for root, body in (("", state.main), *state.ends.items()) for each in _within(root, body)]
    return [node_in(path, each) for path, chart in charts_of for each in chart.configuration]


def accepted(plan: Plan, state: Started) -> list[str]:
    """Return the events and signals that something waits for now: names, or descriptors such as `order.*`."""
    found: dict[str, None] = {}
    for path, chart in charts_in(plan, state):
        compiled = plan.body(path).chart
        if compiled is not None and not chart.ended:
            found.update(dict.fromkeys(statechart.accepts(compiled, chart)))
    for node in state.waiting.values():
        if (signal := node.input.get("signal")) is not None:
            found[signal] = None
    return [each for each in found if not each.startswith(OURS)]


def _within(root: str, body: BodyState) -> Iterator[tuple[str, ChartState]]:
    for path, node in nodes_in(root, body):
        for key, inner in node.bodies.items():
            if inner.chart is not None and inner.status == "running":
                yield inner_body(path, key), inner.chart


def listener(draft: Draft, event: str) -> str | None:
    """Return the chart that an event is for: the first that takes it now, else the first that ever does.

    A workflow that is a statechart gets them all. None where none of a DAG's charts knows it.
    """
    if draft.plan.main.chart is not None:
        return ""
    knowing = [
        (path, chart) for path, chart in sorted(charts_in(draft.plan, draft.state), key=lambda each: each[0])
        if charts.plan_of(draft, path).ever_takes(event)
    ]  # fmt: skip
    now = (path for path, chart in knowing if statechart.takes(charts.plan_of(draft, path), chart, event))
    return next(now, knowing[0][0] if knowing else None)


def schema_of(draft: Draft, chart: str, event: str) -> dict[str, Any] | None:
    """Return the schema that a statechart declares for an event's data, if it does."""
    return (charts.plan_of(draft, chart).events or {}).get(event)

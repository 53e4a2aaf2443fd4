"""Checks what the expressions of statecharts read against what is known of `context`, `event` and the input."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

from perdure.definitions.chart import Chart
from perdure.definitions.chart_places import actions_of, chart_fields, charts_of, delay_fields
from perdure.definitions.findings import Finding
from perdure.definitions.node_types import Own, Types
from perdure.definitions.places import Body, Field
from perdure.definitions.value_types import STRING, Record, Type
from perdure.definitions.yaml_source import Path

Check = Callable[[Types, Body | None, Field, Own], Iterator[Finding]]


def chart_type_findings(types: Types, check: Check) -> Iterator[Finding]:
    """Yield reads in statecharts that cannot succeed."""
    for chart, at in charts_of(types.workflow):
        # The input of a node's statechart is what the node gives it under `with`.
        own: Own = {"context": _context(types, chart), **({"input": None} if at else {})}
        for field in chart_fields(chart):
            named = {**own, "event": _event(types, chart, field.path)}
            for finding in check(types, None, field, named if field.path != ("context",) else own):
                yield replace(finding, path=(*at, *finding.path))
        for field in delay_fields(chart):
            for finding in check(types, None, field, {**own, "event": None}):
                yield replace(finding, path=(*at, *finding.path), key=True)


def _context(types: Types, chart: Chart) -> Type:
    """Return the type of `context`: what it begins with, and what is set on the way."""
    keys: dict[str, Type] = {key: types.of_value(None, value) for key, value in chart.model.context.items()}
    for each in chart.states.values():
        for _, action in actions_of(each):
            keys.update(dict.fromkeys(action.set or {}))
    return Record(keys)


def _event(types: Types, chart: Chart, path: Path) -> Type:
    """Return the type of `event` in a transition that one declared event leads to."""
    for key, event in pairwise(path):
        if key == "on" and chart.model.events and event in chart.model.events:
            return Record({"name": STRING, "data": types.schema(chart.model.events[str(event)])}, open=True)
    return None

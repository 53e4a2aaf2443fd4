"""Checks what SCXML asks of a chart so that it is always in a legal configuration, and of the names of events."""

from collections.abc import Iterable, Iterator
from itertools import combinations

from perdure.definitions.chart import Chart, ChartState, transitions_of
from perdure.definitions.chart_places import actions_of
from perdure.definitions.findings import Finding
from perdure.definitions.yaml_source import Path


def rule_findings(chart: Chart) -> Iterator[Finding]:
    """Yield what could lead a chart into a configuration that is not legal, and names that no event can have."""
    yield from _together(chart, chart.model.initial, None, ("initial",))
    for each in chart.states.values():
        yield from _region_findings(chart, each)
        yield from _together(chart, each.state.initial, each.path, (*each.at, "initial"))
        for at, way in transitions_of(each):
            yield from _together(chart, way.target, None, (*at, "target"))
        if each.kind == "history":
            yield from _together(chart, each.state.default, None, (*each.at, "default"))
            yield from _default_findings(chart, each)
        yield from _name_findings(each)


def _region_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    """Find regions that can never be done, and states that have none to be in (SCXML 3.3, 3.4)."""
    if each.kind == "final" and each.parent is not None and chart.states[each.parent].kind == "parallel":
        what = f"final state {each.path!r} is a region of parallel state {each.parent!r}"
        yield Finding(each.at, f"{what}; put it into a region that comes to its end", key=True)
    if each.kind == "compound" and all(chart.states[path].kind == "history" for path in chart.children(each.path)):
        yield Finding(each.at, f"state {each.path!r} has histories but no state to be in; add one", key=True)


def _default_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    """Find defaults of a history that do not lie within the state that it remembers (SCXML 3.10)."""
    for index, name in enumerate(each.state.default or []):
        meant = chart.resolve(name)
        if len(meant) != 1 or each.parent is None:
            continue
        lies_within = meant[0].startswith(f"{each.parent}.")
        if not lies_within:
            what = f"default {name!r} of history {each.path!r} does not lie within {each.parent!r}"
            yield Finding((*each.at, "default", index), what)
        elif chart.states[meant[0]].kind == "history" and chart.states[meant[0]].parent == each.parent:
            what = f"default {name!r} of history {each.path!r} is a history of the same state; name a state"
            yield Finding((*each.at, "default", index), what)


def _together(chart: Chart, names: Iterable[str] | None, within: str | None, at: Path) -> Iterator[Finding]:
    """Find states that are entered together, and cannot be (SCXML 3.11)."""
    paths: list[str] = []
    for name in names or ():
        meant = (chart.resolve(f"{within}.{name}") if within else []) or chart.resolve(name)
        if len(meant) != 1:
            return
        paths.append(meant[0])
    for one, other in combinations(dict.fromkeys(paths), 2):
        if not _can_be_together(chart, one, other):
            what = f"states {one!r} and {other!r} cannot be entered together: they lie in no two regions of a parallel"
            yield Finding(at, f"{what} state; name one of them")


def _can_be_together(chart: Chart, one: str, other: str) -> bool:
    """Say whether two states lie in two regions of a parallel state; a history stands for all of its parent."""
    around, among = _lineage(chart, one), _lineage(chart, other)
    shared = [path for path in around if path in among]
    if not shared or shared[0] in (around[0], among[0]):
        return False
    return chart.states[shared[0]].kind == "parallel"


def _lineage(chart: Chart, path: str) -> list[str]:
    """Return a state and those around it, inner ones first; of a history only those around it."""
    found, at = list[str](), chart.states[path].parent if chart.states[path].kind == "history" else path
    while at is not None:
        found.append(at)
        at = chart.states[at].parent
    return found


def _name_findings(each: ChartState) -> Iterator[Finding]:
    """Find descriptors and names of events that are none (SCXML 3.12.1)."""
    for event in each.state.on:
        if not all(map(_is_descriptor, event.split() or [""])):
            what = f"{event!r} is no event: give a name such as 'order.paid', a prefix such as 'order.*', or '*'"
            yield Finding((*each.at, "on", event), what, key=True)
    for at, action in actions_of(each):
        if action.raise_ is not None and not _is_name(action.raise_):
            yield Finding((*at, "raise"), f"{action.raise_!r} is no event's name: give one such as 'order.paid'")


def _is_descriptor(text: str) -> bool:
    return text == "*" or _is_name(text.removesuffix(".*").removesuffix("."))


def _is_name(text: str) -> bool:
    """Say whether a text is an event's name: tokens with dots between them, without spaces and stars."""
    return all(text.split(".")) and "*" not in text and not any(each.isspace() for each in text)

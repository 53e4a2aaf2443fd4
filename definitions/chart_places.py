"""Where expressions and actions stand in a statechart, and what each expression may read."""

from collections.abc import Iterator

from perdure.definitions.chart import Chart, ChartState, transitions_of
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import StatechartNode
from perdure.definitions.places import Field, bodies_of
from perdure.definitions.states import Action, Statechart
from perdure.definitions.yaml_source import Path

CHART_ROOTS = frozenset({"input", "execution", "context", "event"})
"""What every expression of a statechart may read."""


def chart_of(workflow: Workflow) -> Statechart:
    """Return the statechart of a workflow of that kind."""
    initial = [workflow.initial] if isinstance(workflow.initial, str) else workflow.initial
    return Statechart(initial=initial, context=workflow.context, events=workflow.events, states=workflow.states)


def charts_of(workflow: Workflow) -> Iterator[tuple[Chart, Path]]:
    """Yield every statechart of a workflow with its place: its own, and those of its nodes."""
    if workflow.states:
        yield Chart(chart_of(workflow)), ()
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            if isinstance(node, StatechartNode):
                yield Chart(node.statechart), (*at, "statechart")


def actions_of(each: ChartState) -> Iterator[tuple[Path, Action]]:
    """Yield every action of a state with its place: on entry, on exit, and along its transitions."""
    for key in ("entry", "exit"):
        yield from (((*each.at, key, index), action) for index, action in enumerate(getattr(each.state, key)))
    for at, transition in transitions_of(each):
        yield from (((*at, "do", index), action) for index, action in enumerate(transition.do))


def chart_fields(chart: Chart) -> Iterator[Field]:
    """Yield every field of a statechart that has expressions; their paths begin at the chart."""
    yield Field(("context",), chart.model.context)
    for each in chart.states.values():
        yield from _state_fields(each)


def delay_fields(chart: Chart) -> Iterator[Field]:
    """Yield the delays of a statechart that are expressions; they stand in the place of keys."""
    for each in chart.states.values():
        yield from (Field((*each.at, "after", text), text) for text in each.state.after if "${{" in text)


def _state_fields(each: ChartState) -> Iterator[Field]:
    for at, transition in transitions_of(each):
        if transition.if_ is not None:
            yield Field((*at, "if"), transition.if_, bare=True)
    for at, action in actions_of(each):
        yield from _action_fields(action, at)
    for number, invoke in enumerate(each.state.invoke):
        yield Field((*each.at, "invoke", number, "with"), invoke.with_, secrets=invoke.workflow is None)
        if invoke.workflow is not None:
            yield Field((*each.at, "invoke", number, "workflow", "id"), invoke.workflow.id)
    yield Field((*each.at, "output"), each.state.output)
    if each.state.fail is not None:
        yield Field((*each.at, "fail"), {"message": each.state.fail.message, "data": each.state.fail.data})
    if each.state.compensate is not None:
        at = (*each.at, "compensate", "with")
        local = each.state.compensate.workflow is None
        yield Field(at, each.state.compensate.with_, adds=frozenset({"error"}), secrets=local)
        if each.state.compensate.workflow is not None:
            child = each.state.compensate.workflow.id
            yield Field((*each.at, "compensate", "workflow", "id"), child, adds=frozenset({"error"}))


def _action_fields(action: Action, at: Path) -> Iterator[Field]:
    yield Field((*at, "set"), action.set)
    yield Field((*at, "data"), action.data)
    yield Field((*at, "with"), action.with_, secrets=action.start is None)
    if action.send is not None:
        yield Field((*at, "send"), {"to": action.send.to, "data": action.send.data})
    if action.start is not None:
        yield Field((*at, "start", "id"), action.start.id)

"""What a workflow calls, wherever it does so: tools and agents by name."""

from collections.abc import Iterator

from perdure.definitions.chart import Chart
from perdure.definitions.chart_places import actions_of, chart_of
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import AgentNode, AggregateNode, StatechartNode, ToolNode
from perdure.definitions.places import bodies_of
from perdure.definitions.states import Statechart


def tools_called(workflow: Workflow) -> set[str]:
    """Return the names of all tools that a workflow, or one that it carries, may call."""
    return {tool for tool, _ in _calls(workflow) if tool}


def agents_called(workflow: Workflow) -> set[str]:
    """Return the names of all agents that a workflow, or one that it carries, may ask."""
    return {agent for _, agent in _calls(workflow) if agent}


def _calls(workflow: Workflow) -> Iterator[tuple[str | None, str | None]]:
    """Yield the tool and the agent of every call; one of the two is None."""
    for body in bodies_of(workflow):
        for node, _ in body.nodes.values():
            if isinstance(node, ToolNode):
                yield node.tool, None
            elif isinstance(node, AgentNode):
                yield None, node.agent
            elif isinstance(node, AggregateNode):
                yield node.aggregate.tool, node.aggregate.agent
            elif isinstance(node, StatechartNode):
                yield from _chart_calls(node.statechart)
            if node.compensate is not None:
                yield node.compensate.tool, node.compensate.agent
    if workflow.states:
        yield from _chart_calls(chart_of(workflow))
    for child in workflow.workflows.values():
        yield from _calls(child)


def _chart_calls(chart: Statechart) -> Iterator[tuple[str | None, str | None]]:
    for each in Chart(chart).states.values():
        yield from ((action.tool, action.agent) for _, action in actions_of(each))
        yield from ((invoke.tool, invoke.agent) for invoke in each.state.invoke)
        if each.state.compensate is not None:
            yield each.state.compensate.tool, each.state.compensate.agent

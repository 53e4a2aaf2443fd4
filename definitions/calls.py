"""What a workflow calls and waits for, wherever it does so: tools, agents and signals by name."""

from collections.abc import Iterator

from perdure.definitions.agent_parts import Agent
from perdure.definitions.chart import Chart
from perdure.definitions.chart_places import actions_of, chart_of, charts_of
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    CustomNode,
    StatechartNode,
    ToolNode,
    WaitNode,
    WorkflowNode,
)
from perdure.definitions.parts import ChildWorkflow
from perdure.definitions.places import bodies_of
from perdure.definitions.states import Statechart
from perdure.definitions.yaml_source import Path

_Call = tuple[Path, str | None, str | None]
"""Where a call stands, and its tool or its agent."""


def tools_called(workflow: Workflow) -> set[str]:
    """Return the names of all tools that a workflow, or one that it carries, may call."""
    return {tool for _, tool in tool_places(workflow)}


def tool_places(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    """Yield every place that names a tool, with the tool."""
    yield from (((*at, "tool"), tool) for at, tool, _ in _calls(workflow) if tool)


def heartbeats(workflow: Workflow) -> Iterator[tuple[Path, str]]:
    """Yield every place of a `heartbeat`, with the tool that has to give it."""
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            called = node.aggregate if isinstance(node, AggregateNode) else node
            if node.heartbeat is not None and (tool := getattr(called, "tool", None)):
                yield (*at, "heartbeat"), tool
    for name, child in workflow.workflows.items():
        yield from ((("workflows", name, *at), tool) for at, tool in heartbeats(child))


def agents_called(workflow: Workflow) -> set[str]:
    """Return the names of all agents that a workflow, or one that it carries, may ask."""
    return {agent for _, _, agent in _calls(workflow) if agent}


def own_kinds_called(workflow: Workflow) -> set[str]:
    """Return the names of the node kinds of the user's own in a workflow, or one that it carries."""
    nodes = [node for body in bodies_of(workflow) for node, _ in body.nodes.values()]
    carried = (own_kinds_called(child) for child in workflow.workflows.values())
    return {node.kind for node in nodes if isinstance(node, CustomNode)}.union(*carried)


def children_called(workflow: Workflow) -> set[str]:
    """Return the names of the workflows that a workflow, or one that it carries, may start."""
    return {child.name for _, child in child_places(workflow)}


def child_places(workflow: Workflow) -> Iterator[tuple[Path, ChildWorkflow]]:
    """Yield every place that names a workflow to start, with what stands there."""
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            if isinstance(node, WorkflowNode):
                yield (*at, "workflow"), node.workflow
            if node.compensate is not None and node.compensate.workflow is not None:
                yield (*at, "compensate", "workflow"), node.compensate.workflow
    for chart, at in charts_of(workflow):
        yield from (((*at, *path), child) for path, child in _chart_children(chart))
    for name, agent in workflow.agents.items():
        for index, tool in enumerate(agent.tools):
            if tool.workflow is not None:
                yield ("agents", name, "tools", index, "workflow"), tool.workflow
    for name, carried in workflow.workflows.items():
        yield from ((("workflows", name, *at), child) for at, child in child_places(carried))


def _chart_children(chart: Chart) -> Iterator[tuple[Path, ChildWorkflow]]:
    for each in chart.states.values():
        for at, action in actions_of(each):
            if action.start is not None:
                yield (*at, "start"), action.start
        for number, invoke in enumerate(each.state.invoke):
            if invoke.workflow is not None:
                yield (*each.at, "invoke", number, "workflow"), invoke.workflow
        if each.state.compensate is not None and each.state.compensate.workflow is not None:
            yield (*each.at, "compensate", "workflow"), each.state.compensate.workflow


def signals_awaited(workflow: Workflow) -> set[str] | None:
    """Return the names of the signals that the nodes of a workflow wait for; None where a statechart takes any."""
    nodes = [node for body in bodies_of(workflow) for node, _ in body.nodes.values()]
    if workflow.states or any(isinstance(node, StatechartNode) for node in nodes):
        return None
    return {node.wait.signal for node in nodes if isinstance(node, WaitNode) and node.wait.signal}


def _calls(workflow: Workflow) -> Iterator[_Call]:
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            if isinstance(node, ToolNode):
                yield at, node.tool, None
            elif isinstance(node, AgentNode):
                yield at, None, node.agent
            elif isinstance(node, AggregateNode):
                yield (*at, "aggregate"), node.aggregate.tool, node.aggregate.agent
            elif isinstance(node, StatechartNode):
                yield from _chart_calls(node.statechart, (*at, "statechart"))
            if node.compensate is not None:
                yield (*at, "compensate"), node.compensate.tool, node.compensate.agent
    if workflow.states:
        yield from _chart_calls(chart_of(workflow), ())
    yield from _agents_calls(workflow)
    for name, child in workflow.workflows.items():
        yield from (((("workflows", name, *at), tool, agent)) for at, tool, agent in _calls(child))


def _agents_calls(workflow: Workflow) -> Iterator[_Call]:
    for name, agent in workflow.agents.items():
        yield from _agent_calls(agent, ("agents", name))


def _agent_calls(agent: Agent, at: Path) -> Iterator[_Call]:
    for index, tool in enumerate(agent.tools):
        yield (*at, "tools", index), tool.tool, tool.agent
        if tool.compensate is not None:
            yield (*at, "tools", index, "compensate"), tool.compensate.tool, None
    yield from (((*at, "handoffs", index), None, other) for index, other in enumerate(agent.handoffs))
    if agent.memory.summarise is not None:
        yield (*at, "memory", "summarise"), None, agent.memory.summarise


def _chart_calls(chart: Statechart, outer: Path) -> Iterator[_Call]:
    for each in Chart(chart).states.values():
        at = (*outer, *each.at)
        yield from (((*outer, *path), action.tool, action.agent) for path, action in actions_of(each))
        yield from (((*at, "invoke", index), one.tool, one.agent) for index, one in enumerate(each.state.invoke))
        if each.state.compensate is not None:
            yield (*at, "compensate"), each.state.compensate.tool, each.state.compensate.agent

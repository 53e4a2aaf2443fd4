"""The steps of agents that take turns, compiled as nodes: the model's replies, the calls of tools, their approvals."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perdure.definitions.agent_parts import MODEL, RECALL, REMEMBER, Agent, AgentTool
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    Approval,
    ApprovalNode,
    Compensation,
    ModelNode,
    SessionNode,
    ToolNode,
    WorkflowNode,
)
from perdure.definitions.parts import LimitUse
from perdure.definitions.places import limit_uses
from perdure.definitions.plan_nodes import ONE_TRY, PlanBody, PlanNode
from perdure.definitions.secret_references import pointers_in
from perdure.definitions.templates import compile_condition, compile_template
from perdure.definitions.undo_calls import undo_of, undo_of_child

Agents = Mapping[str, Agent]


def approval_of(call: str) -> str:
    """Return the name of the approval of a call: `refund~2` is asked for at `refund.approve~2`."""
    tool, behind, times = call.partition("~")
    return f"{tool}.approve{behind}{times}"


def with_turns(body: PlanBody, agents: Agents) -> PlanBody:
    """Return a body in which every node that asks an agent with tools, or with a session, has its turns within it."""
    if not agents:
        return body
    nodes = {name: _with_turns(node, agents) for name, node in body.nodes.items()}
    unchanged = all(nodes[name] is node for name, node in body.nodes.items())
    return body if unchanged else replace(body, nodes=nodes)


def _with_turns(node: PlanNode, agents: Agents) -> PlanNode:
    inner = {key: with_turns(each, agents) for key, each in node.bodies.items()}
    agent, session = agent_of(node), getattr(node.model, "session", None)
    if agent in agents and (agents[agent].takes_turns or session is not None):
        turn = _turn(agents, agent, node, remembers=session is not None)
        return replace(node, bodies={"do": turn}, retry=ONE_TRY)
    return node if all(inner[key] is each for key, each in node.bodies.items()) else replace(node, bodies=inner)


def agent_of(node: PlanNode) -> str:
    """Return the agent that a node asks; "" where it asks none."""
    if isinstance(node.model, AgentNode):
        return node.model.agent
    return (node.model.aggregate.agent or "") if isinstance(node.model, AggregateNode) else ""


def reached(agents: Agents, first: str) -> list[str]:
    """Return the agents that a conversation may be handed over to, the first one before them."""
    found = [first]
    for name in found:
        found += [each for each in agents[name].handoffs if each not in found and each in agents]
    return found


def paid_by(agents: Agents, first: str) -> list[str]:
    """Return the agents whose replies count in the budget of the first one: those it reaches, its helpers, itself."""
    found = [first]
    for name in found:
        asks = [*agents[name].handoffs, *(tool.agent for tool in agents[name].tools), agents[name].memory.summarise]
        found += [each for each in dict.fromkeys(asks) if each and each in agents and each not in found]
    return found


def tools_of(agents: Agents, first: str) -> dict[str, AgentTool]:
    """Return what may be called in a conversation that an agent begins, by the names that models see."""
    return {tool.offered: tool for name in reached(agents, first) for tool in agents[name].tools}


def _turn(agents: Agents, agent: str, owner: PlanNode, *, remembers: bool) -> PlanBody:
    model = ModelNode(
        retry=owner.model.retry, timeout=agents[agent].timeout, priority=owner.model.priority,
        limit=_limits_of(agents, agent, owner), queue_timeout=owner.model.queue_timeout,
    )  # fmt: skip
    nodes = {MODEL: _node(MODEL, "model", model, reads=owner.reads)}
    if remembers:
        nodes[RECALL] = _node(RECALL, "session", SessionNode(does="recall", retry=owner.model.retry))
        nodes[REMEMBER] = _node(REMEMBER, "session", SessionNode(does="remember", retry=owner.model.retry))
    for name, tool in tools_of(agents, agent).items():
        nodes[name] = _tool(name, tool, agents)
        if tool.approve not in (None, False):
            nodes[approval_of(name)] = _node(approval_of(name), "approval", ApprovalNode(approval=_ASKED))
    return PlanBody(nodes, None, frozenset(), (), turn=True)


def _limits_of(agents: Agents, agent: str, owner: PlanNode) -> list[LimitUse] | None:
    """Return the limits of each question of a conversation: the node's, and those of all agents that it may reach."""
    uses = {use.name: use for name in reached(agents, agent) for _, use in limit_uses(agents[name])}
    uses |= {use.name: use for _, use in limit_uses(owner.model)}
    return list(uses.values()) or None


_ASKED = Approval(
    title="May it be called?",
    on_timeout="reject",
    on_reject="continue",
    form={
        "type": ["object", "null"],
        "properties": {"arguments": {"type": "object"}, "reason": {"type": "string"}},
        "additionalProperties": False,  # arguments that are not said to be some would leave the model's in force
    },
)
"""How calls are decided on; `arguments` in the answer stand in the place of the model's."""

_MODIFIERS = ("retry", "timeout", "heartbeat", "queue_timeout", "limit", "priority", "resources", "pool",
              "runtime_env", "run_on")  # fmt: skip


def _tool(name: str, tool: AgentTool, agents: Agents) -> PlanNode:
    modifiers = {key: value for key in _MODIFIERS if (value := getattr(tool, key)) is not None}
    given = compile_template(tool.with_)
    asked = tool.approve not in (None, False) and not tool.always_asks
    templates = {"with": given} | ({"approve": compile_condition(tool.approve)} if asked and tool.approve else {})
    parts: dict[str, Any] = {"templates": templates, "called": tool, "secrets": tuple(pointers_in(given))}
    if tool.compensate is not None:
        undo = tool.compensate
        call = Compensation(tool=undo.tool, retry=undo.retry, timeout=undo.timeout)
        parts["undo"] = undo_of(call, {"with": None})
    if tool.tool is not None:
        return _node(name, "tool", ToolNode(tool=tool.tool, **modifiers), **parts)
    if tool.workflow is not None:
        model = WorkflowNode(workflow=tool.workflow, **modifiers)
        return _node(name, "workflow", model, **{"undo": undo_of_child(model), **parts})
    return with_turns(
        PlanBody(
            {name: _node(name, "agent", AgentNode(agent=tool.target, **modifiers), **parts)}, None, frozenset(), ()
        ),
        agents,
    ).nodes[name]


def _node(name: str, kind: str, model: Any, **parts: Any) -> PlanNode:
    empty: dict[str, Any] = {"templates": {}, "reads": frozenset(), "bodies": {}}
    return PlanNode(
        name=name, kind=kind, model=model, needs=(), dependants=(), catches=(), retry=model.retry or ONE_TRY,
        **{**empty, **parts},
    )  # fmt: skip

"""Checks agents: what they may call and hand over to is there, has a name of its own, and leads to an end."""

from collections.abc import Iterator, Mapping
from typing import Any

from perdure.definitions.agent_parts import HAND_OFF, MODEL, RECALL, REMEMBER, Agent, AgentTool
from perdure.definitions.agent_plan import reached
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Workflow
from perdure.definitions.places import bodies_of
from perdure.definitions.plan import find_cycle
from perdure.definitions.templates import compile_condition, compile_template, expressions
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_TAKEN = frozenset({MODEL, RECALL, REMEMBER})
_FIXED = frozenset({"input", "execution", "secrets"})
_ASKED = frozenset({"args", "input", "execution"})


def agent_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield what is wrong with the agents of a workflow, and with how nodes ask them."""
    for name, agent in workflow.agents.items():
        at = ("agents", name)
        if "${{" in agent.instructions:
            what = "'${{ }}' is not computed in instructions; what the agent is to know stands in the node's 'with'"
            yield Finding((*at, "instructions"), what, warning=True)
        yield from _agents_named(workflow, agent, at)
        for index, tool in enumerate(agent.tools):
            yield from _tool_findings(tool, (*at, "tools", index))
        yield from _name_findings(workflow, name, agent, at)
    yield from _circles(workflow)
    yield from _undoing(workflow)


def _agents_named(workflow: Workflow, agent: Agent, at: Path) -> Iterator[Finding]:
    named = [((*at, "tools", index, "agent"), tool.agent) for index, tool in enumerate(agent.tools) if tool.agent]
    named += [((*at, "handoffs", index), other) for index, other in enumerate(agent.handoffs)]
    named += [((*at, "memory", "summarise"), agent.memory.summarise)] if agent.memory.summarise else []
    for place, other in named:
        if other not in workflow.agents:
            hint = did_you_mean(other, workflow.agents) or "; declare it under 'agents'"
            yield Finding(place, f"there is no agent {other!r}{hint}")
    summarises = workflow.agents.get(agent.memory.summarise or "")
    if summarises is not None and summarises.takes_turns:
        yield Finding(
            (*at, "memory", "summarise"),
            "an agent that summarises is asked once: no tools, hand-overs, budget, and `repairs: 0` beside an `output`",
        )


def _tool_findings(tool: AgentTool, at: Path) -> Iterator[Finding]:
    if tool.offered in _TAKEN or tool.offered.startswith(HAND_OFF):
        yield Finding(at, f"a tool cannot be called {tool.offered!r} towards the model; give it another 'name'")
    if tool.tool is None:
        for key in ("retry", "heartbeat", "compensate", "run_on", "resources", "pool", "runtime_env", "queue_timeout"):
            if getattr(tool, key) is not None:
                yield Finding((*at, key), f"{key!r} is for tools; say it in the agent or the workflow itself", key=True)
    yield from _expression_findings(tool.with_, (*at, "with"), _FIXED if tool.tool else _FIXED - {"secrets"})
    if isinstance(tool.approve, str) and not tool.always_asks:
        yield from _expression_findings(tool.approve, (*at, "approve"), _ASKED, bare=True)


def _expression_findings(value: Any, at: Path, roots: frozenset[str], *, bare: bool = False) -> Iterator[Finding]:
    try:
        template = compile_condition(value) if bare else compile_template(value)
    except ExpressionError as error:
        yield Finding(at, str(error))
        return
    for expression in expressions(template):
        for root in sorted((expression.roots | ({"nodes"} if expression.nodes else set())) - roots):
            there = ", ".join(sorted(roots))
            yield Finding(at, f"unknown name {root!r} in '{expression.text}'; there are {there}")
        if "secrets" in expression.roots & roots and expression.secret is None:
            yield Finding(at, f"'{expression.text}' computes with a secret, which expressions never see")


def _name_findings(workflow: Workflow, name: str, agent: Agent, at: Path) -> Iterator[Finding]:
    """Yield two tools of one name that one conversation may meet."""
    seen: dict[str, AgentTool] = {}
    for each in reached(workflow.agents, name):
        for index, tool in enumerate(workflow.agents[each].tools):
            before = seen.setdefault(tool.offered, tool)
            if before is not tool and (each == name or before != tool):
                place = (*at, "tools", index) if each == name else (*at, "handoffs")
                yield Finding(place, f"there is another tool called {tool.offered!r}; give one of them another 'name'")


def _circles(workflow: Workflow) -> Iterator[Finding]:
    """Yield agents that are, in the end, tools of themselves."""
    calls: Mapping[str, tuple[str, ...]] = {
        name: tuple(
            tool.agent
            for each in reached(workflow.agents, name)
            for tool in workflow.agents[each].tools
            if tool.agent in workflow.agents
        )
        for name in workflow.agents
    }
    if (circle := find_cycle(calls)) is not None:
        yield Finding(("agents", circle[0]), f"agents are tools of each other in a circle: {' calls '.join(circle)}")


def _undoing(workflow: Workflow) -> Iterator[Finding]:
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            agent = workflow.agents.get(node.compensate.agent or "") if node.compensate is not None else None
            if agent is not None and agent.takes_turns:
                yield Finding(
                    (*at, "compensate", "agent"),
                    "what undoes a node is one call: an agent without tools, hand-overs and budget, with "
                    "`repairs: 0` beside an `output`",
                )

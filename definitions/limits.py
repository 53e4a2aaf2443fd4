"""Limits in a definition: who takes part in which, compiled, and what is wrong with what is said of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from perdure.definitions.agent_parts import Agent
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    CustomNode,
    ForeachNode,
    LoopNode,
    Node,
    ToolNode,
    WorkflowNode,
)
from perdure.definitions.parts import Given, Limit, LimitUse, Tool
from perdure.definitions.places import limit_uses, limited_parts
from perdure.definitions.plan_nodes import PlanNode
from perdure.definitions.templates import Template, compile_condition
from perdure.definitions.yaml_source import Path


@dataclass(frozen=True, slots=True)
class PlanLimit:
    """A limit as calls meet it: its name in the cluster, how much it gives, and the expressions of its key and share.

    given: None where the settings of the cluster say it.
    """

    group: str
    given: Given | None
    key: Template
    share: Template


@dataclass(frozen=True, slots=True)
class PlanUse:
    """The part that a call takes in a limit: `cost` and `spent` are numbers or expressions; None where not said."""

    limit: PlanLimit
    key: Template
    share: Template
    cost: Template = 1.0
    spent: Template = None


def compile_limits(workflow: Workflow) -> dict[str, PlanLimit]:
    """Return the limits of a workflow's nodes by name."""
    return {
        name: PlanLimit(name, None if limit.of_cluster else limit, _bare(limit.key), _bare(limit.share))
        for name, limit in workflow.limits.items()
    }


def compile_gates(workflow: Workflow) -> tuple[PlanLimit, ...]:
    """Return what a whole execution has to pass before its nodes begin, in this order."""
    gates: list[PlanLimit] = []
    if (quota := workflow.quota) is not None:
        given = Given(concurrency=quota.active, rate=quota.starts_per_minute, per=60, at_limit="reject")
        gates.append(PlanLimit(f"quota:{quota.name or workflow.name}", given, _bare(quota.key), None))
    if (running := workflow.concurrency) is not None:
        given = Given(concurrency=running.limit, at_limit=running.at_limit, weights=running.weights)
        gates.append(PlanLimit(f"workflow:{workflow.name}", given, _bare(running.key), _bare(running.share)))
    return tuple(gates)


def limits_by_target(workflow: Workflow) -> dict[tuple[str, str], tuple[LimitUse, ...]]:
    """Return the limits of agents and tools, by what they are (`agent`, `tool`) and their names."""
    tools = [each for each in workflow.tools if isinstance(each, Tool)]
    parts: dict[tuple[str, str], Agent | Tool] = {("agent", name): agent for name, agent in workflow.agents.items()}
    parts |= {("tool", each.name): each for each in tools}
    return {which: tuple(use for _, use in limit_uses(part)) for which, part in parts.items() if part.limit}


def uses_of(
    limits: Mapping[str, PlanLimit], targets: Mapping[tuple[str, str], tuple[LimitUse, ...]], node: PlanNode
) -> list[PlanUse]:
    """Return the limits that a call takes part in, in the order in which it asks for them: the same for all calls."""
    uses = {use.name: use for use in targets.get((node.calls or "", node.target), ())}
    uses |= {use.name: use for _, use in limit_uses(node.model)}
    return [_compiled(limits[name], uses[name]) for name in sorted(uses)]


def _compiled(limit: PlanLimit, use: LimitUse) -> PlanUse:
    cost = _bare(use.cost) if isinstance(use.cost, str) else use.cost
    key = limit.key if use.key is None else _bare(use.key)
    share = limit.share if use.share is None else _bare(use.share)
    return PlanUse(limit, key, share, cost, _bare(use.spent))


@lru_cache(maxsize=1024)
def _bare(text: str | None) -> Template:
    return None if text is None else compile_condition(text)


def limit_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield what is wrong with the limits, the concurrency and the quota that a workflow declares."""
    for name, limit in workflow.limits.items():
        yield from _one_limit(name, limit)
    if workflow.concurrency is not None and workflow.concurrency.weights and workflow.concurrency.share is None:
        yield Finding(("concurrency", "weights"), _WEIGHTS, key=True)
    quota = workflow.quota
    if quota is not None and quota.active is None and quota.starts_per_minute is None:
        what = "the quota limits nothing; give it 'active' or 'starts_per_minute'"
        yield Finding(("quota",), what, key=True, lack=True)
    for part, at in limited_parts(workflow):
        yield from _use_findings(workflow, limit_uses(part), at)


_WEIGHTS = "the weights are of the values of 'share', and there is none; add it"


def _one_limit(name: str, limit: Limit) -> Iterator[Finding]:
    at = ("limits", name)
    said = [key for key in ("concurrency", "rate") if getattr(limit, key) is not None]
    if limit.of_cluster and said:
        what = f"limit {name!r} is the cluster's, whose settings say how much it gives; take {said[0]!r} out"
        yield Finding((*at, said[0]), what, key=True)
    elif not said and not limit.of_cluster:
        what = f"limit {name!r} limits nothing; give it 'concurrency' or 'rate', or 'of_cluster: true'"
        yield Finding(at, what, key=True, lack=True)
    if limit.at_limit == "cancel_older" and limit.concurrency is None:
        what = "only who holds one of so many can be cancelled for another; add 'concurrency', or leave this out"
        yield Finding((*at, "at_limit"), what)
    if limit.burst is not None and limit.rate is None:
        yield Finding((*at, "burst"), "there is no 'rate' that it could be a burst of; add one", key=True, lack=True)
    if limit.weights and limit.share is None:
        yield Finding((*at, "weights"), _WEIGHTS, key=True)


def _unknown(workflow: Workflow, name: str) -> str:
    """Say that there is no such limit, and what to do."""
    hint = did_you_mean(name, workflow.limits) or "; declare it under 'limits'"
    return f"there is no limit {name!r}{hint}"


def use_findings(workflow: Workflow, node: Node, at: Path) -> Iterator[Finding]:
    """Yield what is wrong with the limits and the priority of a node."""
    uses = limit_uses(node)
    yield from _use_findings(workflow, uses, at)
    if uses and not _works(node):
        yield Finding((*at, "limit"), _no_work(node, "limit"), key=True)
    if node.priority is not None and not (_works(node) or _starts(node)):
        yield Finding((*at, "priority"), _no_work(node, "priority"), key=True)


def _use_findings(workflow: Workflow, uses: list[tuple[Path, LimitUse]], at: Path) -> Iterator[Finding]:
    for where, use in uses:
        if use.name not in workflow.limits:
            yield Finding((*at, *where), _unknown(workflow, use.name))
        if not isinstance(use.cost, str) and use.cost < 0:
            yield Finding((*at, *where, "cost"), f"{use.cost:g} is less than nothing")
    for name, often in Counter(use.name for _, use in uses).items():
        if often > 1:
            yield Finding((*at, "limit"), f"limit {name!r} stands here {often} times; a call takes part in it once")


def _works(node: Node) -> bool:
    if isinstance(node, AggregateNode):
        return node.aggregate.how is None
    single = isinstance(node, ForeachNode | LoopNode) and (node.agent or node.tool) is not None
    return single or isinstance(node, AgentNode | ToolNode | CustomNode)


def _starts(node: Node) -> bool:
    return isinstance(node, WorkflowNode) or (isinstance(node, ForeachNode | LoopNode) and node.workflow is not None)


def _no_work(node: Node, key: str) -> str:
    mend = "; take it out"
    if isinstance(node, ForeachNode | LoopNode) and node.do is not None:
        mend = "; set it on the nodes under 'do'"
    elif _starts(node):
        mend = "; limit the workflow itself by its 'concurrency', or the calls in it"
    return f"{key!r} is for what an agent or a tool does, and this node does no such work{mend}"

"""Checks of single nodes, kind by kind: parts that exclude or need each other, and names that must exist."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import count
from typing import Any

from perdure.definitions.chart_checks import chart_findings
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.limits import use_findings
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    ApprovalNode,
    CustomNode,
    FailNode,
    ForeachNode,
    LoopNode,
    Node,
    ParallelNode,
    StatechartNode,
    SwitchNode,
    Threshold,
    ToolNode,
    WaitNode,
    WorkflowNode,
)
from perdure.definitions.own_configs import config_findings
from perdure.definitions.parts import Tool
from perdure.definitions.placement import placement_findings
from perdure.definitions.places import Body
from perdure.definitions.switch_checks import switch_findings
from perdure.definitions.yaml_source import Path

ALL_ROOTS = frozenset({"input", "nodes", "execution", "secrets", "context", "event", "error", "loop", "args", "output"})
"""Every name that expressions may begin with somewhere; none of them may be hidden by a name of the user's."""


def node_findings(workflow: Workflow, body: Body, name: str, node: Node, at: Path) -> Iterator[Finding]:
    """Yield what is wrong with one node, its expressions aside."""
    yield from _kind_findings(workflow, body, name, node, at)
    yield from _catch_findings(node, at)
    yield from use_findings(workflow, node, at)
    yield from placement_findings(node, at)
    if node.retry is not None:
        for kind in sorted(set(node.retry.on or []) & set(node.retry.not_on)):
            yield Finding((*at, "retry", "not_on"), f"{kind!r} stands under 'on' and 'not_on'; keep one")
    if node.deadline is not None and node.timeout is not None and node.deadline < node.timeout:
        yield Finding((*at, "deadline"), "the deadline for all tries is shorter than the timeout of one", warning=True)
    if node.heartbeat is not None and not _runs_code(node):
        what = "only a tool gives heartbeats; take it out, or use 'timeout'"
        yield Finding((*at, "heartbeat"), what, key=True)
    if node.compensate is not None:
        if isinstance(node, FailNode):
            what = "a node that fails never completes, so there is nothing to compensate; leave it out"
            yield Finding((*at, "compensate"), what, key=True)
        if node.compensate.agent is not None:
            yield from agent_findings(workflow, node.compensate.agent, f"node {name!r}", (*at, "compensate", "agent"))
        if node.compensate.workflow is not None:
            yield from _child_findings(workflow, node.compensate.workflow.name, (*at, "compensate", "workflow"))


def _runs_code(node: Node) -> bool:
    return isinstance(node, ToolNode | CustomNode) or (
        isinstance(node, AggregateNode) and node.aggregate.tool is not None
    )


def _kind_findings(  # noqa: C901 (one line per kind)
    workflow: Workflow, body: Body, name: str, node: Node, at: Path
) -> Iterator[Finding]:
    match node:
        case AgentNode():
            yield from agent_findings(workflow, node.agent, f"node {name!r}", (*at, "agent"))
        case ToolNode():
            yield from _tool_findings(workflow, node.tool, (*at, "tool"))
        case WorkflowNode():
            yield from _child_findings(workflow, node.workflow.name, (*at, "workflow"))
        case WaitNode():
            yield from _wait_findings(workflow, node, at)
        case ApprovalNode(approval=approval):
            if approval.timeout is None and approval.on_timeout != "fail":
                yield Finding(
                    (*at, "approval", "on_timeout"), "there is no 'timeout' that could pass; add one", lack=True
                )
        case SwitchNode():
            yield from switch_findings(node, at)
        case ParallelNode():
            yield from _parallel_findings(workflow, node, at)
        case ForeachNode() | LoopNode():
            yield from _repeating_findings(workflow, name, node, at)
        case AggregateNode():
            yield from _aggregate_findings(workflow, body, name, node, at)
        case CustomNode():
            yield from config_findings(node, at)
        case StatechartNode(statechart=chart):
            yield from chart_findings(workflow, chart, (*at, "statechart"))
        case _:
            pass


def agent_findings(workflow: Workflow, agent: str, who: str, at: Path) -> Iterator[Finding]:
    """Yield a finding where there is no such agent."""
    if agent not in workflow.agents:
        hint = did_you_mean(agent, workflow.agents) or "; declare it under 'agents'"
        yield Finding(at, f"{who} asks agent {agent!r}, which does not exist{hint}")


def _tool_findings(workflow: Workflow, name: str, at: Path) -> Iterator[Finding]:
    yield from _computed(name, "tool", at)
    declared = {tool.name for tool in workflow.tools if isinstance(tool, Tool)}
    if name not in declared and ":" not in name and (hint := did_you_mean(name, declared)):
        what = f"there is no {name!r} under 'tools'{hint}; else it is looked up when the execution starts"
        yield Finding(at, what, warning=True)


def _computed(name: str, what: str, at: Path) -> Iterator[Finding]:
    if "${{" in name:
        yield Finding(at, f"the name of a {what} is not computed; write it out, and choose between several by a switch")


def _child_findings(workflow: Workflow, name: str, at: Path) -> Iterator[Finding]:
    yield from _computed(name, "workflow", at)
    if name.isidentifier() and name not in workflow.workflows and (hint := did_you_mean(name, workflow.workflows)):
        what = f"there is no {name!r} under 'workflows'{hint}; else it is looked up in the registry when it starts"
        yield Finding(at, what, warning=True)


def _catch_findings(node: Node, at: Path) -> Iterator[Finding]:
    everything, taken = False, set[str]()
    for index, catch in enumerate(node.catch):
        where = (*at, "catch", index)
        if everything:
            yield Finding(where, "an earlier catch takes every error, so this one is never reached; put it before")
        elif catch.on is not None and taken.issuperset(catch.on):
            what = f"earlier catches take {' and '.join(map(repr, catch.on))} already, so this one is never reached"
            yield Finding((*where, "on"), what)
        if catch.then is not None and catch.output is not None:
            yield Finding(where, "a catch has 'then' or 'output', not both: the handler's output is the node's")
        everything = everything or catch.on is None
        taken.update(catch.on or ())


def _wait_findings(workflow: Workflow, node: WaitNode, at: Path) -> Iterator[Finding]:
    wait, where = node.wait, (*at, "wait")
    given = [key for key in ("duration", "until", "signal") if getattr(wait, key) is not None]
    if len(given) != 1:
        yield Finding(
            where,
            f"a wait is for one of 'duration', 'until' or 'signal', not {' and '.join(given) or 'none'}",
            lack=True,
        )
        return
    if wait.signal is None:
        for key, value in (("schema", wait.schema_), ("timeout", wait.timeout)):
            if value is not None:
                yield Finding((*where, key), f"{key!r} belongs to a wait for a signal", key=True)
    elif wait.timeout is None and wait.on_timeout != "fail":
        yield Finding((*where, "on_timeout"), "there is no 'timeout' that could pass; add one", lack=True)
    if wait.signal:
        yield from _computed(wait.signal, "signal", (*where, "signal"))
    if wait.signal and workflow.signals is not None and wait.signal not in workflow.signals:
        hint = did_you_mean(wait.signal, workflow.signals) or "; declare it under 'signals'"
        yield Finding((*where, "signal"), f"there is no signal {wait.signal!r}{hint}")
    if wait.until is not None and "${{" not in wait.until and (what := time_problem(wait.until)):
        yield Finding((*where, "until"), what)


def time_problem(text: str) -> str | None:
    """Say what is wrong with a moment in ISO 8601, or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return f"{text!r} is not a time; write one such as 2026-03-01T09:00:00+01:00"
    return None if moment.tzinfo else f"{text!r} has no zone; add one, such as Z or +01:00"


def _parallel_findings(workflow: Workflow, node: ParallelNode, at: Path) -> Iterator[Finding]:
    parallel = node.parallel
    if isinstance(parallel.join, int) and not 1 <= parallel.join <= len(parallel.branches):
        many = len(parallel.branches)
        what = f"{parallel.join} of {many} branches can never succeed; join 1 to {many}"
        yield Finding((*at, "parallel", "join"), what)
    for name, branch in parallel.branches.items():
        where = (*at, "parallel", "branches", name)
        if branch.do is not None and branch.with_ is not None:
            yield Finding((*where, "with"), "'with' belongs to a single call; the nodes under 'do' have their own")


def _repeating_findings(workflow: Workflow, name: str, node: ForeachNode | LoopNode, at: Path) -> Iterator[Finding]:
    given = [key for key in ("agent", "tool", "workflow", "do") if getattr(node, key) is not None]
    if len(given) != 1:
        had = f"it has {' and '.join(map(repr, given))}" if given else "it has none of them"
        yield Finding(
            at,
            f"node {name!r} does its work under 'do', or by one 'agent', 'tool' or 'workflow'; {had}",
            key=True,
            lack=True,
        )
    if node.do is not None and node.with_ is not None:
        yield Finding((*at, "with"), "'with' belongs to a single call; the nodes under 'do' have their own", key=True)
    if isinstance(node, LoopNode):
        if node.loop.while_ is not None and node.loop.until is not None:
            yield Finding((*at, "loop", "until"), "a loop has 'while' or 'until', not both", key=True)
        return
    yield from _foreach_findings(node, at)


def _foreach_findings(node: ForeachNode, at: Path) -> Iterator[Finding]:
    foreach, where = node.foreach, (*at, "foreach")
    for key, word in (("as", foreach.as_), ("index", foreach.index)):
        if word in ALL_ROOTS:
            yield Finding((*where, key), f"{word!r} is a name that expressions begin with already; choose another")
    if foreach.as_ == foreach.index:
        yield Finding((*where, "as"), f"the item and its index are both named {foreach.as_!r}; rename one")
    if isinstance(foreach.on_failure, Threshold) and _share(foreach.on_failure.threshold) is None:
        what = f"{foreach.on_failure.threshold!r} is not a threshold; write a number of items such as 3, or '20%'"
        yield Finding((*where, "on_failure", "threshold"), what)


def _share(threshold: int | str) -> float | None:
    """Return how many items, or which share of them, may fail; None where it is neither."""
    if isinstance(threshold, int):
        return threshold if threshold >= 0 else None
    number = threshold.removesuffix("%")
    return int(number) / 100 if threshold.endswith("%") and number.isdecimal() and int(number) <= 100 else None


def _aggregate_findings(workflow: Workflow, body: Body, name: str, node: AggregateNode, at: Path) -> Iterator[Finding]:
    part, where = node.aggregate, (*at, "aggregate")
    if (part.from_ is None) == (part.items is None):
        yield Finding(
            where, "an aggregate takes the outputs of the nodes under 'from', or the list under 'items'", lack=True
        )
    makers = [key for key in ("how", "agent", "tool") if getattr(part, key) is not None]
    if len(makers) != 1:
        what = f"an aggregate has one of 'how', 'agent' or 'tool', not {' and '.join(makers) or 'none'}"
        yield Finding(where, what, lack=True)
    if node.with_ and part.how is not None:
        yield Finding((*at, "with"), f"'with' is for an agent or a tool; {part.how!r} takes nothing else", key=True)
    if part.agent is not None:
        yield from agent_findings(workflow, part.agent, f"node {name!r}", (*where, "agent"))
    yield from _from_findings(body.nodes, name, part.from_ or [], where)


def _from_findings(nodes: Mapping[str, Any], name: str, listed: list[str], where: Path) -> Iterator[Finding]:
    for index, other in zip(count(), listed, strict=False):
        if other == name:
            yield Finding((*where, "from", index), f"node {name!r} takes its own output")
        elif other not in nodes:
            hint = did_you_mean(other, nodes)
            yield Finding((*where, "from", index), f"node {name!r} takes {other!r}, which does not exist{hint}")

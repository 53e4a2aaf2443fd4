"""Checks a whole workflow before anything runs, and gives every finding with the path of its place."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, groupby, pairwise

from perdure.definitions.agent_checks import agent_findings
from perdure.definitions.chart_checks import chart_findings
from perdure.definitions.chart_places import chart_of
from perdure.definitions.expression_checks import expression_findings
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.limits import limit_findings
from perdure.definitions.model import Workflow
from perdure.definitions.node_checks import node_findings
from perdure.definitions.nodes import Node
from perdure.definitions.parts import Tool
from perdure.definitions.placement import tool_placement_findings
from perdure.definitions.places import Body, bodies_of
from perdure.definitions.plan import find_cycle, targets_of
from perdure.definitions.schema_checks import schema_findings, unsound_schemas
from perdure.definitions.skip_checks import Order, skip_findings
from perdure.definitions.tool_rules import tool_rule_findings
from perdure.definitions.type_checks import type_findings
from perdure.definitions.yaml_source import Path

_DAG_KEYS = ("nodes",)
_CHART_KEYS = ("states", "initial", "context", "events")
RESERVED = frozenset({"on_failure", "on_cancel", "finally"})
"""Names that stand for what runs at the end, in the paths of its nodes."""


def findings_of(workflow: Workflow) -> list[Finding]:
    """Return every finding of a well-formed workflow; one without errors can be compiled."""
    found = [
        *_kind_findings(workflow),
        *schema_findings(workflow),
        *limit_findings(workflow),
        *_tool_findings(workflow),
        *agent_findings(workflow),
        *tool_placement_findings(workflow),
        *tool_rule_findings(workflow),
    ]
    for body in bodies_of(workflow):
        found += _body_findings(workflow, body)
    found += expression_findings(workflow)
    if workflow.states:
        found += chart_findings(workflow, chart_of(workflow), ())
    for name, child in workflow.workflows.items():
        found += [replace(each, path=("workflows", name, *each.path)) for each in findings_of(child)]
    unsound = unsound_schemas(workflow, found)
    orders = [Order(body) for body in bodies_of(workflow)]
    circles = chain.from_iterable(map(_cycle_findings, orders))
    return [*found, *circles, *type_findings(workflow, unsound), *skip_findings(workflow, orders)]


def _kind_findings(workflow: Workflow) -> Iterator[Finding]:
    given = {key for key in (*_DAG_KEYS, *_CHART_KEYS) if getattr(workflow, key) not in (None, {}, [])}
    needed, refused = ("nodes", _CHART_KEYS) if workflow.kind == "dag" else ("states", _DAG_KEYS)
    if needed not in given and not given & {"nodes", "states"}:  # else it is of the other kind
        yield Finding((), f"a workflow of kind {workflow.kind} has {needed!r}, and this one has none", lack=True)
    other = "statechart" if workflow.kind == "dag" else "dag"
    for key in sorted(given.intersection(refused)):
        yield Finding(
            (key,), f"{key!r} belongs to a workflow with `kind: {other}`; this one is a {workflow.kind}", key=True
        )


def _tool_findings(workflow: Workflow) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, tool in enumerate(workflow.tools):
        if isinstance(tool, Tool) and tool.name in seen:
            yield Finding(("tools", index, "name"), f"there is another tool named {tool.name!r}; rename one of them")
        seen.add(tool.name if isinstance(tool, Tool) else "")


def _body_findings(workflow: Workflow, body: Body) -> Iterator[Finding]:
    if body.outer is None:
        for name in RESERVED & body.nodes.keys():
            yield Finding(
                (*body.path, name), f"{name!r} is the name of what runs at the end; rename the node", key=True
            )
    elif not body.nodes:
        yield Finding(body.path, "there are no nodes here; give it some", lack=True)
    for name, (node, at) in body.nodes.items():
        yield from _need_findings(body, name, node, at)
        yield from node_findings(workflow, body, name, node, at)
    yield from _led_findings(body)


def _need_findings(body: Body, name: str, node: Node, at: Path) -> Iterator[Finding]:
    for index, need in enumerate(node.needs):
        if need == name:
            yield Finding((*at, "needs", index), f"node {name!r} needs itself")
        elif need not in body.nodes:
            yield Finding((*at, "needs", index), _unknown_need(body, name, need))


def _unknown_need(body: Body, name: str, need: str) -> str:
    if body.can_read(need):
        return f"node {name!r} needs {need!r}, which is around it and has settled before; leave it out"
    others = ", ".join(sorted(body.nodes.keys() - {name})[:10])
    hint = did_you_mean(need, body.nodes) or (f"; there are {others}" if others else "; it is the only node")
    return f"node {name!r} needs {need!r}, which does not exist{hint}"


def _led_findings(body: Body) -> Iterator[Finding]:
    """Check what switches and catches lead to: there, once, and not to themselves."""
    led: dict[str, str] = {}
    for name, (node, at) in body.nodes.items():
        for path, target, how in _leads(node, at):
            if target not in body.nodes:
                hint = did_you_mean(target, body.nodes)
                yield Finding(path, f"node {name!r} leads to {target!r}, which does not exist{hint}")
            elif target == name:
                yield Finding(path, f"node {name!r} leads to itself; use a loop to go back")
            elif led.setdefault(target, f"{how} {name!r}") != f"{how} {name!r}":
                yield Finding(path, f"{target!r} is already led to by {led[target]}; only one node may lead to it")


def _leads(node: Node, at: Path) -> Iterator[tuple[Path, str, str]]:
    if targets := targets_of(node):
        switch = getattr(node, "switch")  # noqa: B009 (only switches have targets)
        for index, case in enumerate(switch.cases):
            for number, target in enumerate(case.then):
                yield (*at, "switch", "cases", index, "then", number), target, "the switch"
        for number, target in enumerate(targets[len(targets) - len(switch.default or []) :]):
            yield (*at, "switch", "default", number), target, "the switch"
    for index, catch in enumerate(node.catch):
        if catch.then is not None:
            yield (*at, "catch", index, "then"), catch.then, "the catch of"


def _cycle_findings(order: Order) -> Iterator[Finding]:
    cycle = find_cycle(_steps(order))
    if cycle:
        names = [name for name, _ in groupby(step.removesuffix(_BEGINS) for step in cycle)]
        names = names if names[0] == names[-1] else [*names, names[0]]
        _, at = order.body.nodes[names[0]]
        why = _why_circle(order.body, names)
        yield Finding(at, f"the nodes wait for each other in a circle: {' needs '.join(names)}{why}", key=True)


_BEGINS = " begins"


def _steps(order: Order) -> dict[str, tuple[str, ...]]:
    """Return what settles or begins first, before a node settles (its name), and before it begins.

    A handler begins while the node that it handles an error of is still to settle; that one settles after it.
    """
    found, nodes = dict[str, tuple[str, ...]](), order.body.nodes
    for name, (node, _) in nodes.items():
        handled = {one for one, _ in order.handlers.get(name, ())}
        found[name] = (name + _BEGINS, *(each for each in _handlers(node) if each in nodes))
        found[name + _BEGINS] = tuple(need + _BEGINS if need in handled else need for need in order.needs[name])
    return found


def _handlers(node: Node) -> list[str]:
    return [catch.then for catch in node.catch if catch.then]


def _why_circle(body: Body, cycle: Iterable[str]) -> str:
    """Name what is not written under `needs`, for that is what people do not see."""
    for name, need in pairwise(cycle):
        node, _ = body.nodes[name]
        if need in _handlers(node):
            return f" ({need!r} handles the errors of {name!r}, which settles after it)"
        if need not in node.needs:
            leads = any(target == name for _, target, _ in _leads(*body.nodes[need]))
            return f" ({need!r} leads to {name!r})" if leads else f" ({name!r} reads the output of {need!r})"
    return ""

"""The compiled form of a workflow that the engine runs: bodies of nodes in order, their needs, parsed expressions."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zlib import crc32

from perdure.definitions.agent_parts import Agent, Endpoint
from perdure.definitions.agent_plan import with_turns
from perdure.definitions.chart_calls import compile_states
from perdure.definitions.chart_places import chart_of
from perdure.definitions.chart_plan import compile_chart
from perdure.definitions.limits import PlanLimit, PlanUse, compile_gates, compile_limits, limits_by_target, uses_of
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import (
    AggregateNode,
    Node,
    StatechartNode,
    SwitchNode,
    WorkflowNode,
    kind_of,
)
from perdure.definitions.parts import LimitUse, RuntimeEnv, Tool
from perdure.definitions.paths import UNDO, body_of, name_of, steps_to
from perdure.definitions.places import Field, Inner, fields_of, inner_of
from perdure.definitions.plan_nodes import ONE_TRY, PlanBody, PlanCatch, PlanNode, key_of_input
from perdure.definitions.secret_references import names_in, pointers_in
from perdure.definitions.templates import Template, compile_condition, compile_template, expressions
from perdure.definitions.undo_calls import undo_of, undo_of_child
from perdure.definitions.yaml_source import Path


@dataclass(frozen=True)
class Plan:
    """A compiled workflow: its main body, its agents, and the bodies that run at its end.

    tools: those that it declares, by name. runtime_env: of tools that have none of their own.
    drains: whether what does not depend on a failed node goes on. apart: whether an execution has a process of its own,
    where it can. signals: the schemas of those that it takes, or None where it takes any. workflows: those that it
    carries, for its children. search: its attributes for queries. limits: of its calls; limited: which of them
    agents and tools take part in, whoever calls them; gates: what an execution has to pass before its nodes begin.
    """

    name: str
    digest: str
    main: PlanBody
    agents: Mapping[str, Agent]
    drains: bool = False
    apart: bool = False
    signals: Mapping[str, Any] | None = None
    timeout: float | None = None
    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    ends: Mapping[str, PlanBody] = field(default_factory=dict)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    runtime_env: RuntimeEnv | None = None
    search: Mapping[str, Template] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    limits: Mapping[str, PlanLimit] = field(default_factory=dict)
    limited: Mapping[tuple[str, str], tuple[LimitUse, ...]] = field(default_factory=dict)
    gates: tuple[PlanLimit, ...] = ()

    def uses_of(self, node: PlanNode) -> list[PlanUse]:
        """Return the limits that a call takes part in, in the order in which it asks for them."""
        return uses_of(self.limits, self.limited, node) if self.limits else []

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The names of the secrets that its calls read, and those of the workflows that it carries."""
        own = (_secrets_of(body) for body in (self.main, *self.ends.values()))
        carried = (compile_plan(workflow).secrets for workflow in self.workflows.values())
        keys = (each.secret for each in self.endpoints.values())
        return frozenset(key for key in keys if key is not None).union(*own, *carried)

    @cached_property
    def has_charts(self) -> bool:
        """Whether it is a statechart, or one stands in a node of it."""
        return any(_has_chart(body) for body in (self.main, *self.ends.values()))

    def body(self, path: str) -> PlanBody:
        """Return the body at a path such as `check[3]` or `race/left`."""
        root, steps = steps_to(path)
        body = self.ends[root] if root else self.main
        for name, key in steps:
            node = body.nodes[name.partition(UNDO[0])[0]]
            body = node.bodies[key if key in node.bodies else "do"]
        return body

    def node(self, path: str) -> PlanNode:
        """Return the node at a path such as `check[3]/verify`, or the call that undoes it, `check[3]/verify~undo`."""
        if (top := self.main.nodes.get(path)) is not None:  # most nodes stand there, and are asked for all the time
            return top
        name = name_of(path).partition(UNDO[0])[0]  # what follows may also say which time a chart asks for it
        node = self.body(body_of(path)).nodes[name]
        if not path.endswith(UNDO):
            return node
        assert node.undo is not None  # noqa: S101 (only what can be undone is)
        return node.undo


def digest_of(workflow: Workflow) -> str:
    """Return the digest that pins a definition: `sha256:` and the hash of its canonical JSON."""
    parts = workflow.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def compile_plan(workflow: Workflow) -> Plan:
    """Compile a workflow that `problems_of` found sound."""
    ends = {"on_failure": workflow.on_failure, "on_cancel": workflow.on_cancel, "finally": workflow.finally_}
    return Plan(
        name=workflow.name,
        digest=digest_of(workflow),
        main=with_turns(_compile_main(workflow), workflow.agents),
        agents=workflow.agents,
        drains=workflow.failure == "drain",
        apart=workflow.isolation == "process",
        signals=None if workflow.signals is None else {name: each.schema_ for name, each in workflow.signals.items()},
        timeout=workflow.timeout,
        workflows=workflow.workflows,
        ends={
            key: with_turns(_compile_nodes(nodes, (key,), None), workflow.agents)
            for key, nodes in ends.items()
            if nodes
        },
        tools={tool.name: tool for tool in workflow.tools if isinstance(tool, Tool)},
        runtime_env=workflow.runtime_env,
        search={name: compile_condition(value) for name, value in workflow.search.items()},
        endpoints=workflow.endpoints,
        limits=compile_limits(workflow),
        limited=limits_by_target(workflow),
        gates=compile_gates(workflow),
    )


def _has_chart(body: PlanBody) -> bool:
    inner = (each for node in body.nodes.values() for each in node.bodies.values())
    return body.chart is not None or any(map(_has_chart, inner))


def _compile_main(workflow: Workflow) -> PlanBody:
    output = compile_template(workflow.output)
    if workflow.kind == "statechart":
        return compile_states(compile_chart(chart_of(workflow)), output)
    return _compile_nodes(workflow.nodes, ("nodes",), output)


def _compile_nodes(nodes: Mapping[str, Node], at: Path, output: Template) -> PlanBody:
    return compile_body({name: (node, (*at, name)) for name, node in nodes.items()}, output)


def compile_body(placed: Mapping[str, tuple[Node, Path]], output: Template) -> PlanBody:
    """Compile the nodes of one body, and those within them."""
    drafts = {name: _Draft(name, node, at) for name, (node, at) in placed.items()}
    arms, handlers = _led_to(placed)
    needs = {
        name: tuple(dict.fromkeys([*draft.needs, *_lead(name, arms), *_lead(name, handlers)]))
        for name, draft in drafts.items()
    }
    needs = {name: tuple(need for need in wanted if need in placed) for name, wanted in needs.items()}
    dependants: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need in wanted:
            dependants[need].append(name)
    nodes = {
        name: drafts[name].finished(needs[name], dependants[name], arms.get(name), handlers.get(name))
        for name in _ordered(needs, dependants)
    }
    leaves = tuple(
        name for name in nodes if name not in handlers and all(handlers.get(each) == name for each in dependants[name])
    )
    return PlanBody(nodes, output, reads_of(output), leaves)


def _lead(name: str, leading: Mapping[str, str]) -> list[str]:
    return [leading[name]] if name in leading else []


def _led_to(placed: Mapping[str, tuple[Node, Path]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return which switch leads to each arm, and which caught node to each handler."""
    arms = {target: name for name, (node, _) in placed.items() for target in targets_of(node)}
    handlers = {catch.then: name for name, (node, _) in placed.items() for catch in node.catch if catch.then}
    return arms, handlers


def targets_of(node: Node) -> list[str]:
    """Return the nodes that a switch may choose; none for other nodes."""
    if not isinstance(node, SwitchNode):
        return []
    return [name for case in node.switch.cases for name in case.then] + (node.switch.default or [])


def needs_of(node: Node, at: Path = ()) -> tuple[str, ...]:
    """Return the written needs and then those that expressions in the node, or within it, read."""
    return _Draft("", node, at).needs


def reads_of(*templates: Template) -> frozenset[str]:
    """Return the names of the nodes that the templates' expressions read."""
    return frozenset(name for template in templates for part in expressions(template) for name in part.nodes)


def compile_field(each: Field) -> Template:
    """Compile a field; raise ExpressionError where an expression in it cannot be read."""
    return compile_condition(each.value) if each.bare else compile_template(each.value)


class _Draft:
    """A node under compilation: its fields compiled, its bodies too, its needs known."""

    def __init__(self, name: str, node: Node, at: Path) -> None:
        self.name = name
        self.node = node
        fields = [(each.path[len(at) :], compile_field(each)) for each in fields_of(node, at)]
        self.templates = {"/".join(map(str, path)): template for path, template in fields}
        self.bodies = {key: _compile_inner(inner) for key, inner in inner_of(node, at)}
        free = {read for body in self.bodies.values() for read in _free(body)}
        self.reads = (reads_of(*self.templates.values()) | free) - {name}
        listed = node.aggregate.from_ or [] if isinstance(node, AggregateNode) else []
        self.needs = tuple(dict.fromkeys([*node.needs, *listed, *sorted(self.reads)]))

    def finished(
        self, needs: tuple[str, ...], dependants: Iterable[str], arm_of: str | None, handler_of: str | None
    ) -> PlanNode:
        catches = tuple(
            PlanCatch(
                frozenset(catch.on) if catch.on is not None else None,
                catch.then,
                self.templates.get(f"catch/{index}/output"),
            )
            for index, catch in enumerate(self.node.catch)
        )
        return PlanNode(
            name=self.name,
            kind=kind_of(self.node) or "",
            model=self.node,
            needs=needs,
            dependants=tuple(dependants),
            reads=self.reads,
            templates=self.templates,
            retry=self.node.retry or ONE_TRY,
            catches=catches,
            bodies=self.bodies | _chart_of(self.node),
            arm_of=arm_of,
            handler_of=handler_of,
            undo=_undo(self.node, self.templates),
            secrets=tuple(pointers_in(self.templates.get(key_of_input(self.node)))),
            mixed_needs=tuple(sorted(needs, key=lambda need: crc32(need.encode()))),
        )


def _chart_of(node: Node) -> dict[str, PlanBody]:
    return {"chart": compile_states(compile_chart(node.statechart))} if isinstance(node, StatechartNode) else {}


def _undo(node: Node, templates: Mapping[str, Template]) -> PlanNode | None:
    """Compile the call that undoes a node; what a child did, its parent has undone by that child."""
    if node.compensate is not None:
        return undo_of(node.compensate, {key: templates.get(f"compensate/{key}") for key in ("with", "workflow/id")})
    return undo_of_child(node) if isinstance(node, WorkflowNode) else None


def _compile_inner(inner: Inner) -> PlanBody:
    if inner.called and inner.output.value is None:
        return compile_body(inner.nodes, compile_condition("nodes.do.output"))
    return compile_body(inner.nodes, compile_field(inner.output))


def _secrets_of(body: PlanBody) -> Iterator[str]:
    for node in body.nodes.values():
        for each in (node, node.undo):
            if each is not None and each.secrets:
                yield from names_in(each.templates[each.given])
        for inner in node.bodies.values():
            yield from _secrets_of(inner)


def _free(body: PlanBody) -> set[str]:
    """Return the names that a body reads and does not have: they are around it."""
    read = set(body.output_reads)
    for node in body.nodes.values():
        read |= node.reads
    return read - body.nodes.keys()


def find_cycle(needs: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Return one cycle as the names along it, its first name again at the end, or None."""
    done: set[str] = set()
    for start in needs:
        trail: dict[str, Iterator[str]] = {}
        current: str | None = start
        while current is not None:
            if current not in trail:
                trail[current] = iter(needs[current] if current not in done else ())
            following = next(trail[current], None)
            if following is None:
                done.add(current)
                trail.popitem()  # it is the last one
                current = next(reversed(trail), None)
            elif following in trail:
                names = list(trail)
                return [*names[names.index(following) :], following]
            else:
                current = following if following in needs else current
    return None


def _ordered(needs: Mapping[str, tuple[str, ...]], dependants: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield names so that needs come first (Kahn's algorithm), in the written order where that is free."""
    missing = {name: len(wanted) for name, wanted in needs.items()}
    ready = [name for name, count in missing.items() if not count]
    for name in ready:
        yield name
        for dependant in dependants[name]:
            missing[dependant] -= 1
            if not missing[dependant]:
                ready.append(dependant)

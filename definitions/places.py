"""Where expressions stand in a definition, and what each of them may read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from perdure.definitions.model import Workflow
from perdure.definitions.nodes import (
    AgentNode,
    AggregateNode,
    ApprovalNode,
    Branch,
    Compensation,
    CustomNode,
    FailNode,
    ForeachNode,
    LoopNode,
    Node,
    ParallelNode,
    SetNode,
    StatechartNode,
    SwitchNode,
    ToolNode,
    WaitNode,
    WorkflowNode,
)
from perdure.definitions.parts import Concurrency, Limit, LimitUse, LimitUses, Quota, Tool
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

ROOTS = frozenset({"input", "nodes", "execution"})
"""What every expression may read."""

SEARCH_ROOTS = frozenset({"input", "execution"})
"""What search attributes may read: they are evaluated at the start."""

PLACEMENT = ("resources", "pool", "runtime_env", "run_on")
"""The modifiers that say where a tool runs; those of a foreach or a loop by a single call are the call's."""

OF_CALLS = ("limit", "priority", "queue_timeout")
"""The modifiers that say how calls wait; those of a foreach or a loop by a single call are the call's, too."""

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Field:
    """A value with expressions: its place, whether it is a bare expression, and what it reads beyond the roots."""

    path: Path
    value: Any
    bare: bool = False
    adds: frozenset[str] = _NONE
    secrets: bool = False

    @property
    def to_workflow(self) -> bool:
        """Whether it is the input of another workflow: a `with` in which secrets may not stand."""
        return self.path[-1:] == ("with",) and not self.secrets


@dataclass(frozen=True, slots=True)
class Inner:
    """A body within a node: its nodes with their places, its result, and the names that it adds."""

    path: Path
    nodes: Mapping[str, tuple[Node, Path]]
    output: Field
    adds: frozenset[str] = _NONE
    called: bool = False
    """Whether it is a single call, whose output is the body's result."""


@dataclass(frozen=True)
class Body:
    """A body with the names that its expressions may read; `outer` is the body around it."""

    nodes: Mapping[str, tuple[Node, Path]]
    roots: frozenset[str]
    outer: "Body | None" = None
    path: Path = ()
    owner: str | None = None
    """The node of the body around it that it lies within; None for a body that lies within none."""

    @cached_property
    def handlers(self) -> frozenset[str]:
        """The nodes that a catch leads to: they, and what is within them, may read `error`."""
        return frozenset(catch.then for node, _ in self.nodes.values() for catch in node.catch if catch.then)

    def roots_of(self, name: str) -> frozenset[str]:
        """Return what the expressions of one of its nodes may begin with."""
        return self.roots | {"error"} if name in self.handlers else self.roots

    def within(self, name: str, inner: Inner) -> "Body":
        """Return a body within one of its nodes."""
        return Body(inner.nodes, self.roots_of(name) | inner.adds, self, inner.path, name)

    def can_read(self, name: str) -> bool:
        """Return whether expressions in this body may read a node of that name."""
        return name in self.nodes or (self.outer is not None and self.outer.can_read(name))

    def readable(self) -> set[str]:
        """Return the names of all nodes that expressions in this body may read."""
        return set(self.nodes) | (self.outer.readable() if self.outer else set())


@dataclass(frozen=True, slots=True)
class Place:
    """A field in its body; `node` is the node that it belongs to."""

    field: Field
    body: Body
    node: str | None = None

    @property
    def roots(self) -> frozenset[str]:
        """Return the names that the expression may begin with."""
        roots = self.body.roots_of(self.node) if self.node else self.body.roots
        return roots | self.field.adds | (frozenset({"secrets"}) if self.field.secrets else _NONE)


def fields_of(node: Node, at: Path) -> Iterator[Field]:
    """Yield the fields of one node, without those of the bodies within it."""
    if node.if_ is not None:
        yield Field((*at, "if"), node.if_, bare=True)
    yield from _own_fields(node, at)
    if not isinstance(node, ForeachNode | LoopNode):  # it is their call's
        for where, use in limit_uses(node):
            yield from _limit_fields(use, (*at, *where))
    if node.output is not None:
        yield Field((*at, "output"), node.output, adds=frozenset({"output"}))
    for index, catch in enumerate(node.catch):
        yield Field((*at, "catch", index, "output"), catch.output, adds=frozenset({"error"}))
    if node.compensate is not None:
        yield from _undoing_fields(node.compensate, (*at, "compensate"))


class _Limited(Protocol):
    @property
    def limit(self) -> LimitUses | None: ...


def limit_uses(part: _Limited) -> list[tuple[Path, LimitUse]]:
    """Return the limits that a node, an agent or a tool names, each with its place within that."""
    if isinstance(part.limit, list):
        return [(("limit", index), use) for index, use in enumerate(part.limit)]
    if part.limit is None:
        return []
    return [(("limit",), LimitUse(name=part.limit) if isinstance(part.limit, str) else part.limit)]


def limited_parts(workflow: Workflow) -> Iterator[tuple[_Limited, Path]]:
    """Yield what is not a node and may be under limits, with its place: agents, what they call, and tools."""
    for name, agent in workflow.agents.items():
        yield agent, ("agents", name)
        for index, called in enumerate(agent.tools):
            yield called, ("agents", name, "tools", index)
    for index, tool in enumerate(workflow.tools):
        if isinstance(tool, Tool):
            yield tool, ("tools", index)


def _limit_fields(use: LimitUse, at: Path) -> Iterator[Field]:
    for key, value in (("cost", use.cost), ("key", use.key), ("share", use.share)):
        if isinstance(value, str):
            yield Field((*at, key), value, bare=True)
    if use.spent is not None:
        yield Field((*at, "spent"), use.spent, bare=True, adds=frozenset({"output", "usage"}))


def _undoing_fields(call: Compensation, at: Path) -> Iterator[Field]:
    error = frozenset({"error"})
    if call.with_:
        yield Field((*at, "with"), call.with_, adds=error, secrets=call.workflow is None)
    if call.workflow is not None:
        yield Field((*at, "workflow", "id"), call.workflow.id, adds=error)


def _own_fields(node: Node, at: Path) -> Iterator[Field]:  # noqa: C901 (one case per kind)
    match node:
        case AgentNode() | ToolNode():
            yield Field((*at, "with"), node.with_, secrets=True)
            if isinstance(node, AgentNode) and node.session is not None:
                yield Field((*at, "session"), node.session)
        case StatechartNode():
            yield Field((*at, "with"), node.with_)
        case WorkflowNode():
            yield Field((*at, "with"), node.with_)  # no secrets: it is recorded as another execution's input
            yield Field((*at, "workflow", "id"), node.workflow.id)
        case WaitNode(wait=wait):
            for key in ("duration", "until", "timeout"):
                yield Field((*at, "wait", key), getattr(wait, key))
        case ApprovalNode(approval=approval):
            for key in ("title", "details", "assignees", "timeout"):
                yield Field((*at, "approval", key), getattr(approval, key))
        case SwitchNode(switch=switch):
            for index, case in enumerate(switch.cases):
                yield Field((*at, "switch", "cases", index, "when"), case.when, bare=True)
        case ForeachNode(foreach=foreach):
            yield _items((*at, "foreach", "items"), foreach.items)
        case LoopNode(loop=loop):
            yield Field((*at, "loop", "initial"), loop.initial)
            for key, value in (("while", loop.while_), ("until", loop.until)):
                if value is not None:
                    yield Field((*at, "loop", key), value, bare=True, adds=frozenset({"loop"}))
        case AggregateNode(aggregate=aggregate):
            yield Field((*at, "with"), node.with_, secrets=True)
            if aggregate.items is not None:
                yield _items((*at, "aggregate", "items"), aggregate.items)
        case SetNode():
            yield Field((*at, "set"), node.set)
        case CustomNode():
            yield Field((*at, node.kind), node.custom[node.kind], secrets=True)
        case FailNode(fail=fail):
            for key in ("message", "data"):
                yield Field((*at, "fail", key), getattr(fail, key))
        case _:
            pass


def items_of(node: str, value: Any) -> list[Any]:
    """Return what `items` gave; raise ExpressionError where it is no list."""
    if not isinstance(value, list):
        raise ExpressionError(f"'items' of node {node!r} gave {value!r}, which is no list")
    return value


def share_of(threshold: int | str, items: int) -> float:
    """Return how many of so many items may fail, of a number of them or a share such as `20%`."""
    return threshold if isinstance(threshold, int) else int(threshold.removesuffix("%")) / 100 * items


def _items(path: Path, value: Any) -> Field:
    return Field(path, value, bare=isinstance(value, str | bool))


def inner_of(node: Node, at: Path) -> Iterator[tuple[str, Inner]]:
    """Yield the bodies within a node by name: `do`, or the branches of a parallel."""
    match node:
        case ForeachNode(foreach=foreach):
            adds = frozenset({foreach.as_, foreach.index})
            output = Field((*at, "foreach", "output"), foreach.output, adds=adds)
            yield "do", _inner(node, at, output, adds)
        case LoopNode(loop=loop):
            adds = frozenset({"loop"})
            yield "do", _inner(node, at, Field((*at, "loop", "output"), loop.output, adds=adds), adds)
        case ParallelNode(parallel=parallel):
            for name, branch in parallel.branches.items():
                where = (*at, "parallel", "branches", name)
                yield name, _inner(branch, where, Field((*where, "output"), branch.output), _NONE)
        case _:
            pass


def _inner(part: ForeachNode | LoopNode | Branch, at: Path, output: Field, adds: frozenset[str]) -> Inner:
    if part.do is not None:
        nodes = {name: (node, (*at, "do", name)) for name, node in part.do.items()}
        return Inner((*at, "do"), nodes, output, adds)
    return Inner(at, {"do": (_call(part), at)}, output, adds, called=True)


def _call(part: ForeachNode | LoopNode | Branch) -> Node:
    """Return the node that a single call in the place of `do` stands for."""
    with_ = part.with_ or {}
    how = {} if isinstance(part, Branch) else {key: getattr(part, key) for key in OF_CALLS}
    if part.agent is not None:
        return AgentNode(agent=part.agent, with_=with_, **how)
    if part.tool is not None:
        where = {} if isinstance(part, Branch) else {key: getattr(part, key) for key in PLACEMENT}
        return ToolNode(tool=part.tool, with_=with_, **how, **where)
    if part.workflow is not None:
        return WorkflowNode(workflow=part.workflow, with_=with_)
    return SetNode(set=None)  # there is nothing to do: the checks say so


def bodies_of(workflow: Workflow) -> Iterator[Body]:
    """Yield every body of nodes, outer ones first: the main one, handlers at the end, and those within nodes."""
    main = Body(_with_places(workflow.nodes, ("nodes",)), ROOTS, path=("nodes",))
    yield from _nested(main)
    for key, nodes, roots in (
        ("on_failure", workflow.on_failure, ROOTS | {"error"}),
        ("on_cancel", workflow.on_cancel, ROOTS),
        ("finally", workflow.finally_, ROOTS | {"error"}),
    ):
        if nodes:
            yield from _nested(Body(_with_places(nodes, (key,)), roots, main, path=(key,)))


def _with_places(nodes: Mapping[str, Node], at: Path) -> dict[str, tuple[Node, Path]]:
    return {name: (node, (*at, name)) for name, node in nodes.items()}


def _nested(body: Body) -> Iterator[Body]:
    yield body
    for name, (node, at) in body.nodes.items():
        for _, inner in inner_of(node, at):
            yield from _nested(body.within(name, inner))


def places_of(workflow: Workflow) -> Iterator[Place]:
    """Yield every field of a DAG in its body; those of statecharts are yielded by `chart_checks`."""
    main: Body | None = None
    for body in bodies_of(workflow):
        main = main or body
        for name, (node, at) in body.nodes.items():
            for each in fields_of(node, at):
                yield Place(each, body, name)
            for _, inner in inner_of(node, at):
                yield Place(inner.output, body.within(name, inner))
    assert main is not None  # noqa: S101 (bodies_of yields the main one first)
    of_chart = frozenset({"context"}) if workflow.states else _NONE
    yield Place(Field(("output",), workflow.output, adds=of_chart), main)
    for name, value in workflow.search.items():
        yield Place(Field(("search", name), value, bare=True), Body({}, SEARCH_ROOTS))
    at_first = Body({}, frozenset({"input", "execution"}))
    for where, part in shared_by_key(workflow):
        for key in ("key", "share"):
            yield Place(Field((*where, key), getattr(part, key, None), bare=True), at_first)
    for limited, at in limited_parts(workflow):
        for where, use in limit_uses(limited):
            yield from (Place(each, at_first) for each in _limit_fields(use, (*at, *where)))


def shared_by_key(workflow: Workflow) -> Iterator[tuple[Path, Limit | Concurrency | Quota]]:
    """Yield what is limited by the values of an expression that reads the input, with its place."""
    for name, limit in workflow.limits.items():
        yield ("limits", name), limit
    if workflow.concurrency is not None:
        yield ("concurrency",), workflow.concurrency
    if workflow.quota is not None:
        yield ("quota",), workflow.quota

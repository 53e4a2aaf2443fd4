"""Workflows as diagrams: boxes, groups and edges, which `mermaid.py` and `dot.py` write down."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from perdure.definitions.chart import Chart, ChartState, transitions_of
from perdure.definitions.chart_places import chart_of
from perdure.definitions.loading import Definition
from perdure.definitions.nodes import (
    AggregateNode,
    ApprovalNode,
    FailNode,
    ForeachNode,
    LoopNode,
    ParallelNode,
    StatechartNode,
    SwitchNode,
    WaitNode,
    WorkflowNode,
)
from perdure.definitions.paths import inner_body, node_in
from perdure.definitions.plan_nodes import PlanBody, PlanNode
from perdure.definitions.states import Action, Transition
from perdure.definitions.yaml_source import Path

Shape = Literal["box", "round", "choice", "pause", "stop", "initial", "final", "history"]
Link = Literal["data", "control", "switch", "catch", "transition", "initial"]
_SHAPES: dict[str, Shape] = {
    "agent": "round", "switch": "choice", "wait": "pause", "approval": "pause", "fail": "stop",
}  # fmt: skip
_LONGEST = 60

MARKS = {
    "active": "#ffd966", "running": "#ffd966", "open": "#ffd966", "waiting": "#9fc5e8", "retrying": "#f9cb9c",
    "stuck": "#e06666", "catching": "#f9cb9c", "succeeded": "#b6d7a8", "caught": "#b6d7a8", "failed": "#e06666",
    "skipped": "#d9d9d9", "cancelled": "#d9d9d9", "compensated": "#d5a6bd",
}  # fmt: skip
"""How a node or a state of an execution stands, and the colour that it is drawn in."""


@dataclass(frozen=True, slots=True)
class Box:
    """One node, state or sign; `id` is made of letters and digits, `lines` are any text, `mark` is one of MARKS."""

    id: str
    lines: tuple[str, ...]
    shape: Shape
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A box with others in it; those in a parallel one are all active at once."""

    id: str
    lines: tuple[str, ...]
    parallel: bool = False
    mark: str = ""
    parts: list["Box | Group"] = field(default_factory=list)

    def boxes(self) -> Iterator[Box]:
        """Yield every box in it, at any depth."""
        for part in self.parts:
            yield from part.boxes() if isinstance(part, Group) else (part,)


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow from a box or group to another."""

    source: str
    target: str
    link: Link
    label: str = ""


@dataclass(frozen=True, slots=True)
class Diagram:
    """A whole diagram: what stands in it, and the edges."""

    root: Group
    edges: list[Edge]


def diagram_of(definition: Definition, marks: Mapping[str, str] = MappingProxyType({})) -> Diagram:
    """Return the diagram of a definition: its nodes with their bodies as groups, or its states.

    marks: what is to be seen of nodes and states by their paths, of an execution: words of MARKS.
    """
    workflow, plan = definition.workflow, definition.plan
    drawing = _Drawing(workflow.name, marks)
    if workflow.states:
        drawing.states(drawing.root, Chart(chart_of(workflow)), "")
    else:
        drawing.body(drawing.root, plan.main, "")
    for key, body in plan.ends.items():
        drawing.body(drawing.group(drawing.root, (key,)), body, key)
    return Diagram(drawing.root, drawing.edges)


class _Drawing:
    """A diagram in the making; ids are numbers in the order of the definition."""

    def __init__(self, name: str, marks: Mapping[str, str]) -> None:
        self.root = Group("workflow", (name,))
        self.marks = marks
        self.edges: list[Edge] = []
        self.count = 0

    def box(self, into: Group, lines: Iterable[str], shape: Shape, path: str | None = None) -> str:
        self.count += 1
        into.parts.append(Box(f"n{self.count}", tuple(map(_short, lines)), shape, self.mark(path)))
        return into.parts[-1].id

    def mark(self, path: str | None) -> str:
        mark = self.marks.get(path, "") if path is not None else ""
        return mark if mark in MARKS else ""

    def group(self, into: Group, lines: Iterable[str], *, parallel: bool = False, path: str | None = None) -> Group:
        self.count += 1
        made = Group(f"n{self.count}", tuple(map(_short, lines)), parallel, self.mark(path))
        into.parts.append(made)
        return made

    def edge(self, source: str, target: str, link: Link, label: str = "") -> None:
        self.edges.append(Edge(source, target, link, _short(label)))

    def body(self, into: Group, body: PlanBody, at: str | None, *, called: bool = False) -> None:
        """Draw the nodes of a body at a path (None: one of many); `called`: a single call without a name of its own."""
        ids = {
            name: self.node(into, "" if called else name, node, None if at is None else node_in(at, name))
            for name, node in body.nodes.items()
        }
        for source, target, link in body.edges:
            node, label = body.nodes[target], ""
            shown: Link = link
            if node.arm_of == source:
                shown, label = "switch", _arms(body.nodes[source], target)
            elif node.handler_of == source:
                shown, label = "catch", _errors(body.nodes[source], target)
            self.edge(ids[source], ids[target], shown, label)

    def node(self, into: Group, name: str, node: PlanNode, path: str | None) -> str:
        lines = [line for line in (name, _what(node), f"if {node.model.if_}") if line and line != "if None"]
        model = node.model
        if isinstance(model, StatechartNode):
            group = self.group(into, lines, path=path)
            self.states(group, Chart(model.statechart), None if path is None else inner_body(path, "chart"))
        elif isinstance(model, ParallelNode):
            group = self.group(into, lines, path=path)
            for key, branch in model.parallel.branches.items():
                at = None if path is None else inner_body(path, key)
                self.body(self.group(group, (key,)), node.bodies[key], at, called=branch.do is None)
        elif isinstance(model, ForeachNode | LoopNode):
            group = self.group(into, lines, path=path)
            self.body(group, node.bodies["do"], None, called=model.do is None)
        else:
            return self.box(into, lines, _SHAPES.get(node.kind, "box"), path)
        return group.id

    def states(self, into: Group, chart: Chart, at: str | None) -> None:
        """Draw the states of a chart whose body is at a path, their initial ones, and their transitions."""
        groups: dict[str | None, Group] = {None: into}
        ids: dict[str, str] = {}
        for path, each in chart.states.items():
            outer, lines, where = groups[each.parent], _state_lines(each), None if at is None else node_in(at, path)
            if each.state.states and each.kind in ("compound", "parallel"):
                groups[path] = self.group(outer, lines, parallel=each.kind == "parallel", path=where)
                ids[path] = groups[path].id
            else:
                ids[path] = self.box(outer, lines, _state_shape(each), where)
        for parent, group in groups.items():
            if not group.parallel:
                sign = self.box(group, (), "initial")
                group.parts.insert(0, group.parts.pop())  # edges into the group are led to its first box
                for first in chart.first_of(parent):
                    self.edge(sign, ids[first], "initial")
        for path, each in chart.states.items():
            for name in each.state.default or []:
                self.edge(ids[path], ids[chart.resolve(name)[0]], "transition", "at first")
            for place, transition in transitions_of(each):
                for name in transition.target:
                    target = ids[chart.resolve(name)[0]]
                    self.edge(ids[path], target, "transition", _along(each, place, transition))


def _short(text: str) -> str:
    """Return text on one line, of a length that a diagram can show."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _what(node: PlanNode) -> str:
    """Say in a few words what a node does."""
    match node.model:
        case WorkflowNode(workflow=child):
            return f"workflow {child.name}"
        case WaitNode(wait=wait):
            seconds = f"{wait.duration:g} s" if isinstance(wait.duration, float) else wait.duration
            return f"wait for signal {wait.signal}" if wait.signal else f"wait {seconds or f'until {wait.until}'}"
        case ApprovalNode(approval=approval):
            return f"approval: {approval.title}"
        case ForeachNode(foreach=foreach):
            return f"foreach {foreach.as_} in {foreach.items}"
        case LoopNode(loop=loop):
            condition = f"while {loop.while_} " if loop.while_ is not None else ""
            condition += f"until {loop.until} " if loop.until is not None else ""
            return f"loop {condition}at most {loop.max_iterations} times"
        case ParallelNode(parallel=parallel):
            return f"parallel, join {parallel.join}"
        case AggregateNode(aggregate=aggregate):
            return f"aggregate {aggregate.how or node.target}"
        case FailNode(fail=fail):
            return f"fail {fail.type}"
    return f"{node.kind} {node.target}"


def _arms(node: PlanNode, target: str) -> str:
    """Say on which conditions a switch leads to a node."""
    if not isinstance(node.model, SwitchNode):
        return ""
    switch = node.model.switch
    found = [str(case.when) for case in switch.cases if target in case.then]
    return " or ".join([*found, *(["default"] if target in (switch.default or []) else [])])


def _errors(node: PlanNode, target: str) -> str:
    """Say on which errors a catch leads to a node."""
    return " or ".join(", ".join(each.on or ["any error"]) for each in node.model.catch if each.then == target)


def _state_shape(each: ChartState) -> Shape:
    return "final" if each.kind == "final" else "history" if each.kind == "history" else "round"


def _state_lines(each: ChartState) -> list[str]:
    """Return the name of a state and what happens within it."""
    state, name = each.state, each.path.rpartition(".")[2]
    if each.kind == "history":
        return [f"{name} {'H*' if state.deep else 'H'}"]
    lines = [name]
    for key, actions in (("entry", state.entry), ("exit", state.exit)):
        lines += [f"{key} / {_doing(actions)}"] if actions else []
    lines += [f"invoke {_invoked(each, index)}" for index, _ in enumerate(state.invoke)]
    return lines + [_along(each, at, one) for at, one in transitions_of(each) if not one.target]


def _invoked(each: ChartState, index: int) -> str:
    one = each.state.invoke[index]
    return one.agent or one.tool or (one.workflow.name if one.workflow else "")


def _along(each: ChartState, at: Path, transition: Transition) -> str:
    """Return the label of a transition: `event [guard] / actions`."""
    match at[len(each.at) :]:
        case ("on", event, _):
            when = str(event)
        case ("after", time, _):
            when = f"after {time}"
        case ("invoke", int(index), how, _):
            when = f"{_invoked(each, index)} {'done' if how == 'on_done' else 'failed'}"
        case ("on_done", _):
            when = "done"
        case _:
            when = ""
    guard = f"[{transition.if_}]" if transition.if_ is not None else ""
    return " ".join(part for part in (when, guard, f"/ {_doing(transition.do)}" if transition.do else "") if part)


def _doing(actions: Iterable[Action]) -> str:
    return ", ".join(map(_action, actions))


def _action(action: Action) -> str:
    if action.set is not None:
        return f"set {' '.join(action.set)}"
    if action.send is not None:
        return f"send {action.send.event}"
    if action.start is not None:
        return f"start {action.start.name}"
    return f"raise {action.raise_}" if action.raise_ is not None else (action.tool or action.agent or "")

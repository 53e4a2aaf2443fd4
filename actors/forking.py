"""The decision to fork: what of the past is reused, what begins anew, and how long its timers have left. Pure."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.actors import admission
from perdure.actors.chart_state import ChartState
from perdure.actors.charts import delays_of
from perdure.actors.draft import Draft
from perdure.actors.state import SETTLED, BodyState, NodeState, Started, still_done
from perdure.definitions.chart_plan import ENTERED
from perdure.definitions.hints import did_you_mean
from perdure.definitions.paths import UNDO, entry_of, inner_body, node_in
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanBody, PlanNode
from perdure.errors import BadInput
from perdure.events.vocabulary import Event, ExecutionForked, ExecutionStarted, TimerArmed

_AROUND_BODIES = ("deadline", "timeout", "budget")
"""The timers of nodes that stay open; all others are of what begins anew."""


class Point(msgspec.Struct, frozen=True):
    """A place in the past of an execution: its entries up to number `at` as plain data, their state, and their time."""

    execution: str
    at: int
    time: datetime
    state: Started
    past: list[dict[str, Any]]


def fork(
    plan: Plan,
    before: Plan,
    execution: str,
    started: ExecutionStarted,
    point: Point,
    nodes: Iterable[str],
    at: datetime,
) -> list[Event]:
    """Return the events with which a fork begins at the UTC time `at`: all in one entry.

    plan, started: the fork's own. before: the plan of the past. nodes: those that are to begin anew, with all that
    follows them. Raises BadInput where there is no such node, or the plan has no place for the past.
    """
    anew = list(begin_anew(plan, before, point.state, nodes))
    forked = ExecutionForked(point.execution, point.at, anew, point.past)
    draft = Draft(plan, execution, Started(started), at)
    draft.events.append(started)
    draft.emit(forked)
    _arm(draft, point)
    if plan.gates:
        admission.enter(draft)
    return draft.events


def begin_anew(plan: Plan, before: Plan, past: Started, nodes: Iterable[str]) -> Iterator[str]:
    """Yield the paths of the nodes that a fork forgets. Raises BadInput as `fork` does."""
    if (plan.main.chart is None) != (before.main.chart is None):
        raise BadInput("a statechart cannot go on from the past of a DAG, nor the other way round")
    chosen = _chosen(plan, nodes)
    yield from _in_body(plan, before, "", past.main, chosen)


def _chosen(plan: Plan, nodes: Iterable[str]) -> set[str]:
    """Return these nodes and all that follows them."""
    chosen: set[str] = set()
    todo = list(nodes)
    if todo and plan.main.chart is not None:
        raise BadInput("a statechart has no nodes to fork from; say an entry of its history with --at")
    for name in todo:
        if name not in plan.main.nodes:
            top = re.split(r"[/\[]", name)[0]
            inner = top != name and top in plan.main.nodes
            hint = f"; what is within {top!r} begins anew with it" if inner else did_you_mean(name, plan.main.nodes)
            raise BadInput(f"there is no node {name!r} in workflow {plan.name!r} to fork from{hint}")
    while todo:
        name = todo.pop()
        if name not in chosen:
            chosen.add(name)
            node = plan.main.nodes[name]
            todo += [*node.dependants, *([node.handler_of] if node.handler_of else [])]
    return chosen


def _in_body(plan: Plan, before: Plan, at: str, body: BodyState, chosen: Iterable[str] = ()) -> Iterator[str]:
    there = plan.body(at)
    if there.chart is not None:
        yield from _in_chart(plan, before, at, body)
    elif there.turn:
        yield from _in_turn(plan, before, at, body)
    else:
        yield from _in_nodes(plan, before, at, body, chosen)


def _in_nodes(plan: Plan, before: Plan, at: str, body: BodyState, chosen: Iterable[str]) -> Iterator[str]:
    """Yield what a body of a DAG forgets: a skipped node too, where something that it needs begins anew."""
    there, gone = plan.body(at).nodes, set(chosen)
    for name, node in body.nodes.items():
        if name.endswith(UNDO) or name not in there or not _is_kept(plan, before, node_in(at, name), node):
            gone.add(name)
    for name, each in there.items():
        skipped = name in body.nodes and body.nodes[name].status == "skipped"
        if skipped and not gone.isdisjoint(each.needs):
            gone.add(name)
        if each.handler_of in gone:
            gone.add(name)
    for name, node in body.nodes.items():
        if name in gone:
            yield node_in(at, name)
        elif node.status == "open":
            yield from _within(plan, before, node_in(at, name), node)


def _is_kept(plan: Plan, before: Plan, path: str, node: NodeState) -> bool:
    """Say whether a node stays as it is: it is done, or open and of the same making."""
    if node.status in ("succeeded", "caught"):
        return still_done(node) is not None
    if node.status == "open":
        return _is_same(plan.node(path), before.node(path))
    return node.status == "skipped"


def _is_same(one: PlanNode, other: PlanNode) -> bool:
    """Say whether what is within a node can go on under another plan; an agent can, whatever it is told now."""
    return one.model == other.model and bool(one.bodies) == bool(other.bodies)


def _within(plan: Plan, before: Plan, path: str, node: NodeState) -> Iterator[str]:
    for key, inner in node.bodies.items():
        if inner.status == "running":
            yield from _in_body(plan, before, inner_body(path, key), inner)


def _in_turn(plan: Plan, before: Plan, at: str, body: BodyState) -> Iterator[str]:
    """Yield what a turn of an agent forgets: calls under way; a call that failed has been told to the model."""
    for name, node in body.nodes.items():
        path = node_in(at, name)
        if node.status == "open":
            yield from _within(plan, before, path, node)
        elif name.endswith(UNDO) or node.status not in SETTLED - {"cancelled", "compensated"}:
            yield path


def _in_chart(plan: Plan, before: Plan, at: str, body: BodyState) -> Iterator[str]:
    """Yield the calls of a statechart that are made again: what states invoke first, for it waits for nothing."""
    chart = plan.body(at).chart
    assert chart is not None  # noqa: S101 (the caller has looked)
    actions: list[str] = []
    for state in (*body.nodes, *(body.chart.configuration if body.chart else ())):
        if state not in chart.states:
            raise BadInput(f"the past is in state {state!r}, which the new definition does not have")
    for state, node in body.nodes.items():
        invoked = {each.call for each in chart.states[state].invokes}
        for entry, inner in node.bodies.items():
            for call, each in inner.nodes.items():
                path = node_in(entry_of(at, state, int(entry)), call)
                if each.status == "open" and _is_same(plan.node(path), before.node(path)):
                    yield from _within(plan, before, path, each)
                elif call.endswith(UNDO) or (call != ENTERED and each.status != "succeeded"):
                    if call in invoked:
                        yield path
                    else:
                        actions.append(path)
    yield from actions


def _arm(draft: Draft, point: Point) -> None:
    """Arm what the fork waits for: timers have as long left as they had then, those that were stopped begin anew."""
    armed = {**point.state.timers, **dict.fromkeys(point.state.held, point.time)}
    left = {timer: draft.at + max(due - point.time, timedelta()) for timer, due in armed.items()}
    for timer, due in left.items():
        kind, _, path = timer.partition("/")
        node = draft.state.node(path) if kind in _AROUND_BODIES else None
        if timer == "execution/" or (node is not None and node.status == "open"):
            draft.emit(TimerArmed(timer, due))
    if "execution/" not in left and draft.plan.timeout is not None:
        draft.arm("execution", "", draft.plan.timeout)
    for body, chart in _charts(draft.plan.main, "", draft.state.main):
        for path, seconds in delays_of(draft, body, chart):
            timer = f"after/{path}"
            draft.emit(TimerArmed(timer, left.get(timer, draft.at + timedelta(seconds=seconds))))


def _charts(plan: PlanBody, at: str, body: BodyState) -> Iterator[tuple[str, ChartState]]:
    """Yield the statecharts that have begun and not ended, each with the path of its body."""
    if body.chart is not None:
        yield at, body.chart
    for name, node in body.nodes.items():
        for key, inner in node.bodies.items() if node.status == "open" and name in plan.nodes else ():
            there = plan.nodes[name].bodies
            if inner.status == "running" and (key in there or "do" in there):
                yield from _charts(there[key if key in there else "do"], inner_body(node_in(at, name), key), inner)

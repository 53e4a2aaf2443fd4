"""The flow of a decision: what begins, settles or ends because of what was decided before, until nothing is left."""

from collections.abc import Callable, Mapping
from typing import Any

from perdure.actors import agent_loop, charts, compensated, compensation, containers, ends, failures, kinds
from perdure.actors.draft import Draft
from perdure.actors.joins import GOOD, why_not
from perdure.actors.state import SETTLED, NodeState
from perdure.definitions.paths import UNDO, body_of, inner_body, name_of, node_in, owner_of, steps_to
from perdure.definitions.plan_nodes import PlanNode
from perdure.definitions.templates import render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import BodySucceeded, Error, NodeCaught, NodeSkipped


def run(draft: Draft) -> None:
    """Decide all that follows from what was decided so far."""
    while draft.todo and not draft.over:
        what, *paths = draft.todo.popleft()
        _TASKS[what](draft, *paths)


def wake(draft: Draft) -> None:
    """Look everywhere for what may go on: after a pause, or where a decision was left off."""
    _wake_body(draft, "")
    for name in sorted(draft.state.ends):
        _wake_body(draft, name)
    for within in sorted(draft.state.undoing):
        compensation.go_on(draft, within)
    run(draft)


def _wake_body(draft: Draft, body: str) -> None:
    state = draft.state.body(body)
    if state is None or state.status != "running" or draft.state.queued is not None:
        return
    if draft.plan.body(body).chart is not None:
        charts.wake(draft, body)
        return
    if draft.plan.body(body).turn:
        for name in state.nodes:
            _wake_node(draft, node_in(body, name))
        return
    nodes = draft.plan.body(body).nodes
    if state.settled == len(nodes) and draft.is_live(body):  # a retry found nothing to do again but the end
        _body_done(draft, body)
        return
    for name, plan in nodes.items():
        path, node = node_in(body, name), state.nodes.get(name)
        if node is None:
            draft.later("consider", path)
        elif plan.bodies:
            _wake_node(draft, path)


def _wake_node(draft: Draft, path: str) -> None:
    """Look within an open node for what may go on, and then at the node."""
    node = draft.state.node(path)
    if node is None or node.status != "open":
        return
    for key in [key for key, inner in node.bodies.items() if inner.status == "running"]:
        _wake_body(draft, inner_body(path, key))
    over = all(inner.status != "running" for inner in node.bodies.values())
    if draft.plan.node(path).kind != "parallel" or over:  # a fork has forgotten how one of its branches was undone
        draft.later("progress", path)


def consider(draft: Draft, path: str) -> None:
    """Begin a node, or skip it, if all that it needs is settled."""
    body, name = body_of(path), name_of(path)
    state = draft.state.body(body)
    if state is None or name in state.nodes or draft.state.paused or not draft.is_live(body):
        return
    node = draft.plan.body(body).nodes[name]
    if not _is_ready(state.nodes, node):
        return
    reason = _not_led_to(state.nodes, node) or why_not(node.join, [state.nodes[need].status for need in node.waits_for])
    try:
        if reason is None and node.model.if_ is not None and not draft.condition(path, "if"):
            reason = "its condition is false"
    except ExpressionError as error:
        failures.fail(draft, path, 1, Error("ExpressionError", str(error)))
        return
    if reason is not None:
        draft.emit(NodeSkipped(path, reason))
        draft.later("settled", path)
        return
    if node.model.deadline is not None:
        draft.arm("deadline", path, node.model.deadline)
    begin(draft, path, 1)


def complete(draft: Draft, path: str, attempt: int, value: Any, usage: dict[str, Any] | None = None) -> None:
    """Let a node succeed with its result; where its output cannot be made from that, it fails."""
    try:
        draft.finish(path, attempt, value, usage)
    except ExpressionError as error:
        failures.fail(draft, path, attempt, Error("ExpressionError", str(error)))


def begin(draft: Draft, path: str, attempt: int) -> None:
    """Begin an attempt at a node; what fails at once is an attempt that failed."""
    try:
        kinds.start(draft, path, attempt)
    except ExpressionError as error:
        failures.fail(draft, path, attempt, Error("ExpressionError", str(error)))
    except kinds.Failed as failure:
        failures.fail_attempt(draft, path, attempt, failure.error)


def _is_ready(nodes: Mapping[str, NodeState], node: PlanNode) -> bool:
    """Say whether all that a node needs is settled; a handler goes before the node that it is for."""
    for need in node.mixed_needs:
        state = nodes.get(need)
        if state is None or not (state.status in SETTLED or (state.status == "catching" and need == node.handler_of)):
            return False
    return True


def _not_led_to(nodes: Mapping[str, NodeState], node: PlanNode) -> str | None:
    """Return why a node is skipped that a switch or a catch could have led to."""
    if node.handler_of is not None:
        caught = nodes[node.handler_of]
        if caught.status != "catching" or caught.choice != [node.name]:
            return f"there was no error of {node.handler_of!r} to handle"
    if node.arm_of is not None and node.name not in nodes[node.arm_of].choice:
        return f"switch {node.arm_of!r} did not choose it"
    return None


def _settled(draft: Draft, path: str) -> None:
    """Look at what follows a node that will not change any more."""
    body, name = body_of(path), name_of(path)
    if name.endswith(UNDO):
        within = draft.undone_around(path)
        if within is not None:
            compensation.go_on(draft, within)
        return
    state, plan = draft.state.body(body), draft.plan.body(body)
    if plan.calls:
        charts.settled(draft, path)
        return
    if state is None or state.status != "running":
        return
    if plan.turn:
        draft.later("progress", owner_of(body)[0])
        return
    node = plan.nodes[name]
    if node.handler_of is not None:
        _handled(draft, body, node, state.nodes[name])
    for dependant in node.dependants:
        if dependant not in state.nodes:
            consider(draft, node_in(body, dependant))
    state = draft.state.body(body)
    if state is not None and state.settled == len(plan.nodes) and draft.is_live(body):
        _body_done(draft, body)


def _handled(draft: Draft, body: str, node: PlanNode, handler: NodeState) -> None:
    """Let a caught node settle with what its handler gave; one that was skipped, or failed, has handled nothing."""
    path = node_in(body, node.handler_of or "")
    caught = draft.state.node(path)
    if caught is None or caught.status != "catching" or caught.choice != [node.name] or caught.error is None:
        return
    if handler.status not in GOOD:
        failures.fail_uncaught(draft, path, caught.attempt, caught.error)
        return
    draft.emit(NodeCaught(path, caught.attempt, caught.error, handler.output))
    draft.later("settled", path)


def _body_done(draft: Draft, body: str) -> None:
    """Let a body end: all its nodes are settled."""
    state, plan = draft.state.body(body), draft.plan.body(body)
    assert state is not None  # noqa: S101 (it is live)
    failed = [name for name in plan.nodes if state.nodes[name].status == "failed"]
    if failed:  # and the others have gone on to their ends
        first = state.nodes[failed[0]]
        failures.leave(draft, body, first.error or Error("Failed", ""), node_in(body, failed[0]), first.attempt)
    elif not body:
        ends.main_done(draft)
    elif not steps_to(body)[1]:
        draft.emit(BodySucceeded(body))
        draft.later("end")
    else:
        _inner_done(draft, body)


def _inner_done(draft: Draft, body: str) -> None:
    plan, state = draft.plan.body(body), draft.state.body(body)
    assert state is not None  # noqa: S101 (it is live)
    try:
        if plan.output is None:
            output = {name: state.nodes[name].output for name in plan.leaves}
        else:
            output = render(plan.output, draft.names(body, plan.output_reads))
    except ExpressionError as error:
        failures.leave(draft, body, Error("ExpressionError", f"output of {body!r}: {error}"))
        return
    draft.emit(BodySucceeded(body, output, compensation.to_keep(draft, body)))
    draft.later("progress", owner_of(body)[0])


def _progress(draft: Draft, path: str) -> None:
    try:
        goes_on = agent_loop.progress if draft.plan.node(path).takes_turns else containers.progress
        error = goes_on(draft, path)
    except ExpressionError as problem:
        error = Error("ExpressionError", str(problem))
    if error is not None:
        failures.fail_open(draft, path, error)


def _lose(draft: Draft, path: str) -> None:
    # Who has lost is looked at now, not when that was noticed: others may have come to their ends meanwhile.
    if draft.undone_around(path) is None:
        for body in containers.losers(draft, path):
            failures.fail_body(draft, body, Error("Cancelled", "another branch was first"))


def _undone(draft: Draft, within: str) -> None:
    """Go on with what a compensation was for, once it is done."""
    started = draft.state.undoing.get(within)
    if started is None or started.undo:
        return  # an error that went out further has taken it over
    if started.kind == "node":
        node = draft.state.node(within)
        failures.fail_attempt(draft, within, node.attempt if node else 1, started.error)
    elif draft.state.compensating:
        compensated.end(draft)
    else:
        failures.end_failed(draft, within, started.error)


_TASKS: dict[str, Callable[..., None]] = {
    "consider": consider,
    "settled": _settled,
    "progress": _progress,
    "wake": _wake_node,
    "lose": _lose,
    "undone": _undone,
    "end": ends.end,
    "chart": charts.begin,
    "chart_end": charts.end,
}

"""What follows an error: another try, a catch, and what it leaves behind as it goes out from body to body."""

from operator import itemgetter
from zlib import crc32

from perdure.actors.compensation import compensate
from perdure.actors.containers import stops_whole
from perdure.actors.draft import Draft
from perdure.actors.retry_after import asked
from perdure.actors.state import SETTLED, NodeState, nodes_in
from perdure.definitions.parts import Retry
from perdure.definitions.paths import UNDO, body_of, inner_body, is_within, node_in, owner_of, steps_to
from perdure.definitions.plan_nodes import PlanCatch
from perdure.definitions.templates import render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import (
    BodyFailed,
    Error,
    ExecutionFailed,
    ExecutionFailing,
    ExecutionPaused,
    NodeAttemptFailed,
    NodeCancelled,
    NodeCatching,
    NodeCaught,
    NodeFailed,
    NodeStuck,
    TimerCancelled,
)


def fail_attempt(draft: Draft, path: str, attempt: int, error: Error) -> None:
    """Arm the next attempt, or fail the node where its retries are spent or do not fit the error."""
    retry = draft.plan.node(path).retry
    draft.disarm(path, keep="deadline")
    node = draft.state.node(path)
    if not _fits(retry, error) or draft.is_past_deadline(path):
        fail(draft, path, attempt, error)
    elif attempt - (node.before if node else 0) >= retry.attempts:
        give_up(draft, path, attempt, error)
    else:
        draft.emit(NodeAttemptFailed(path, attempt, error))
        _arm_retry(draft, path, attempt, retry, asked(error.data))


def _arm_retry(draft: Draft, path: str, attempt: int, retry: Retry, at_least: float) -> None:
    delay = _delay(retry, attempt)
    if retry.jitter:
        # Spread without randomness, so that the decision stays a function of its inputs.
        delay *= 0.5 + crc32(f"{draft.execution}/{path}/{attempt}".encode()) / 2**33
    draft.arm("retry", path, max(delay, at_least))


def give_up(draft: Draft, path: str, attempt: int, error: Error) -> None:
    """Fail a node whose tries are spent, or pause for somebody to mend what is wrong."""
    if draft.plan.node(path).retry.exhausted == "fail":
        fail(draft, path, attempt, error)
        return
    draft.emit(NodeStuck(path, attempt, error))
    if draft.state.paused is None:
        draft.emit(ExecutionPaused(f"node {path!r} is stuck: {error.type}: {error.message}", "perdure"))


def _fits(retry: Retry, error: Error) -> bool:
    return (retry.on is None or error.type in retry.on) and error.type not in retry.not_on


def _delay(retry: Retry, attempt: int) -> float:
    """Return the seconds before the try after this one, without the jitter."""
    try:
        return min(retry.cap, retry.delay * retry.backoff ** (attempt - 1))
    except OverflowError:
        return retry.cap


def fail(draft: Draft, path: str, attempt: int, error: Error) -> None:
    """Fail a node for good, unless its error is caught."""
    draft.disarm(path)
    if path.endswith(UNDO):
        draft.emit(NodeFailed(path, attempt, error))
        draft.later("settled", path)
        return
    for catch in draft.plan.node(path).catches:
        if catch.on is None or error.type in catch.on:
            try:
                _catch(draft, path, attempt, error, catch)
            except ExpressionError as problem:
                error = Error("ExpressionError", str(problem))
                break
            return
    fail_uncaught(draft, path, attempt, error)


def fail_uncaught(draft: Draft, path: str, attempt: int, error: Error) -> None:
    """Fail a node, and let its error go on where the workflow does not drain."""
    draft.emit(NodeFailed(path, attempt, error))
    around = draft.plan.body(body_of(path))
    if draft.plan.drains or around.calls or around.turn:  # a statechart is told, and so is an agent
        draft.later("settled", path)
    else:
        leave(draft, body_of(path), error, path, attempt)


def _catch(draft: Draft, path: str, attempt: int, error: Error, catch: PlanCatch) -> None:
    if catch.then is not None:
        body, node = body_of(path), draft.plan.node(path)
        draft.emit(NodeCatching(path, attempt, error, catch.then))
        for name in node.dependants:
            if draft.plan.body(body).nodes[name].handler_of == node.name:
                draft.later("consider", node_in(body, name))
        return
    names = draft.names(body_of(path), draft.plan.node(path).reads)
    readable = {"type": error.type, "message": error.message, "data": error.data}
    draft.emit(NodeCaught(path, attempt, error, render(catch.output, {**names, "error": readable})))
    draft.later("settled", path)


def leave(draft: Draft, body: str, error: Error, node: str | None = None, attempt: int = 0) -> None:
    """Let an error go out of a body: what runs there stops, what was completed there is compensated first."""
    if not steps_to(body)[1]:
        leave_root(draft, body, error, node, attempt)
        return
    owner, _ = owner_of(body)
    if stops_whole(draft, owner):
        fail_open(draft, owner, error)
    else:
        fail_body(draft, body, error)


def fail_body(draft: Draft, body: str, error: Error) -> None:
    """Fail one body of a node that goes on without it."""
    stop(draft, body, error.message)
    if not compensate(draft, body, "body", error):
        end_failed(draft, body, error)


def end_failed(draft: Draft, body: str, error: Error) -> None:
    """End a body that failed, and go on with what is around it."""
    draft.emit(BodyFailed(body, error))
    owner, _ = owner_of(body)
    if owner:
        draft.later("progress", owner)
    else:
        draft.later("end")


def fail_open(draft: Draft, path: str, error: Error) -> None:
    """Fail an attempt at a node; all of its bodies end, if it has any."""
    draft.disarm(path, keep="deadline")
    stop(draft, path, error.message, node=True)
    if not compensate(draft, path, "node", error):
        node = draft.state.node(path)
        fail_attempt(draft, path, node.attempt if node else 1, error)


def leave_root(draft: Draft, body: str, error: Error, node: str | None, attempt: int) -> None:
    """Fail the execution, or one of the bodies that run at its end."""
    if body:
        fail_body(draft, body, error)
        return
    stop(draft, "", f"node {node!r} failed" if node else error.message)
    if compensate(draft, "", "execution", error, failing=ExecutionFailing(error, node, attempt)) or draft.plan.ends:
        if draft.state.failing is None:
            draft.emit(ExecutionFailing(error, node, attempt))
            draft.later("end")
    else:
        draft.emit(ExecutionFailed(error, node, attempt))


def stop(draft: Draft, within: str, reason: str, *, node: bool = False, undo: bool = False) -> None:
    """Cancel whatever is under way within a body (or a node); what is being undone goes on, but for `undo`."""
    state = draft.state.node(within) if node else draft.state.body(within)
    inner: list[tuple[str, NodeState]] = []
    if isinstance(state, NodeState):
        inner = [each for key, body in state.bodies.items() for each in nodes_in(inner_body(within, key), body)]
    elif state is not None:
        inner = list(nodes_in(within, state))
    for path, each in sorted(inner, key=itemgetter(0)):
        if each.status not in SETTLED and (undo or not path.endswith(UNDO)):
            draft.emit(NodeCancelled(path, reason))
            draft.disarm(path)
    for timer in [*draft.state.timers, *draft.state.held]:
        kind, _, path = timer.partition("/")
        if kind == "after" and is_within(path, within):
            draft.emit(TimerCancelled(timer))
    if not within:
        draft.disarm("")  # the execution's own

"""Mending by hand: retry what failed, settle what is stuck, change what has not begun; recorded with who and why."""

from datetime import timedelta

from perdure.actors import admission
from perdure.actors.draft import Draft
from perdure.actors.failures import stop
from perdure.actors.inputs import ChangeInput, CompleteNode, ExtendDeadline, RetryExecution, SkipNode
from perdure.actors.state import SETTLED
from perdure.definitions.hints import did_you_mean
from perdure.definitions.paths import UNDO, body_of, is_within, name_of
from perdure.events.vocabulary import (
    CommandRefused,
    ExecutionRetried,
    InputChanged,
    Intervened,
    NodeSkipped,
    NodeSucceeded,
    TimerArmed,
)


def retry(draft: Draft, given: RetryExecution) -> None:
    """Refuse to retry an execution that has not failed."""
    draft.emit(CommandRefused(given.id, f"it is {draft.state.status}; only a failed execution is retried"))


def retry_failed(draft: Draft, given: RetryExecution) -> None:
    """Let a failed execution go on: what succeeded, and was not compensated, stays as it is."""
    draft.emit(Intervened("retry", "", given.reason, given.by))
    draft.emit(ExecutionRetried())
    admission.enter(draft)


def skip(draft: Draft, given: SkipNode) -> None:
    """Settle a node as skipped, whether it has begun or not."""
    if _settles(draft, given, "skip"):
        draft.emit(NodeSkipped(given.node, given.reason or "skipped by hand"))
        draft.later("settled", given.node)


def complete(draft: Draft, given: CompleteNode) -> None:
    """Settle a node with an output given by hand."""
    if _settles(draft, given, "complete"):
        node = draft.state.node(given.node)
        draft.emit(NodeSucceeded(given.node, node.attempt if node else 1, given.output))
        draft.later("settled", given.node)


def _settles(draft: Draft, given: SkipNode | CompleteNode, action: str) -> bool:
    """Stop what a node is at, so that it can be settled by hand; False, and a refusal, where it cannot."""
    if (problem := _no_node(draft, given.node)) is not None:
        draft.emit(CommandRefused(given.id, problem))
        return False
    node = draft.state.node(given.node)
    if node is not None and (node.status in SETTLED or node.status == "catching"):
        draft.emit(CommandRefused(given.id, f"node {given.node!r} is {node.status} already"))
        return False
    if any(within == given.node or is_within(within, given.node) for within in draft.state.undoing):
        draft.emit(CommandRefused(given.id, f"node {given.node!r} is being compensated; wait for the end of that"))
        return False
    draft.emit(Intervened(action, given.node, given.reason, given.by))
    if node is not None:
        stop(draft, given.node, f"{action} by hand", node=True)
        draft.disarm(given.node)
    return True


def change_input(draft: Draft, given: ChangeInput) -> None:
    """Give a node that has not begun another input."""
    problem = _no_node(draft, given.node)
    if problem is None and draft.state.node(given.node) is not None:
        problem = f"node {given.node!r} has begun; its input is what it is"
    elif problem is None and "with" not in draft.plan.node(given.node).templates:
        problem = f"node {given.node!r} has no input: it is a {draft.plan.node(given.node).kind}"
    if problem is not None:
        draft.emit(CommandRefused(given.id, problem))
        return
    draft.emit(Intervened("input", given.node, given.reason, given.by))
    draft.emit(InputChanged(given.node, given.input))


def extend_deadline(draft: Draft, given: ExtendDeadline) -> None:
    """Move the deadline of a node, or the timeout of the execution."""
    timer = f"deadline/{given.node}" if given.node else "execution/"
    due = draft.state.timers.get(timer)
    if due is None:
        what = f"node {given.node!r} has no deadline now" if given.node else "the execution has no timeout"
        draft.emit(CommandRefused(given.id, what))
        return
    draft.emit(Intervened("deadline", given.node, given.reason, given.by))
    draft.emit(TimerArmed(timer, due + timedelta(seconds=given.seconds)))


def _no_node(draft: Draft, path: str) -> str | None:
    """Say why there is no such node to mend, or None."""
    body, name = body_of(path), name_of(path)
    try:
        plan = draft.plan.body(body)
        known = not name.endswith(UNDO) and name.partition(UNDO[0])[0] in plan.nodes and plan.chart is None
        known = known and (not (plan.calls or plan.turn) or draft.state.node(path) is not None)
    except KeyError:
        known = False
    if not known:
        hint = did_you_mean(path, [*(() if draft.plan.main.chart else draft.plan.main.nodes), *draft.state.nodes])
        return f"there is no node {path!r} in this workflow{hint}"
    return None if draft.is_live(body) else f"what node {path!r} is part of does not run now"

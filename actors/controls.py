"""The commands to an execution under way: each is carried out, already so, or refused with a reason."""

from collections.abc import Callable
from typing import Any

from perdure.actors import children, flow, mending
from perdure.actors.answers import decide
from perdure.actors.chart_state import ChartEvent
from perdure.actors.charts import receive
from perdure.actors.compensation import compensate
from perdure.actors.draft import Draft
from perdure.actors.failures import stop
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompleteNode,
    Control,
    DecideApproval,
    ExtendDeadline,
    Mending,
    PauseExecution,
    ReportChild,
    ReportCompensation,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    TerminateExecution,
)
from perdure.actors.listeners import OURS, listener, schema_of
from perdure.actors.signals import misfit, waiting_for
from perdure.actors.timers import fire, try_again
from perdure.definitions.hints import did_you_mean
from perdure.definitions.nodes import ApprovalNode, WaitNode
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionTerminated,
    SignalReceived,
)


def control(draft: Draft, given: Control | ReportChild | ReportCompensation) -> None:
    """Carry out a command, or refuse it."""
    queued = draft.state.queued
    if queued is not None and isinstance(given, Mending | DecideApproval):
        draft.emit(CommandRefused(given.id, f"the execution waits for limit {queued.limit!r}, and has not begun"))
        return
    _CONTROLS[type(given)](draft, given)


def after_end(draft: Draft, given: Control) -> None:
    """Let a failed execution go on; refuse any other command, but the one that asks for the end that it had."""
    status = draft.state.status
    if isinstance(given, RetryExecution) and status == "failed":
        mending.retry_failed(draft, given)
        return
    if (type(given), status) not in ((CancelExecution, "cancelled"), (TerminateExecution, "terminated")):
        draft.emit(CommandRefused(given.id, f"the execution has ended: it is {status}"))


def _signal(draft: Draft, given: SignalExecution) -> None:
    """Give a signal to the node that has waited for it longest, or keep it for one that will."""
    known = draft.plan.signals
    if not given.signal:
        draft.emit(CommandRefused(given.id, "a signal has a name, and this one is empty"))
        return
    if given.signal.startswith(OURS):
        what = f"{given.signal!r} is an event that only perdure raises; give yours another name"
        draft.emit(CommandRefused(given.id, what))
        return
    if known is not None and given.signal not in known:
        hint = did_you_mean(given.signal, known) or f"; it takes {', '.join(sorted(known)) or 'none'}"
        draft.emit(CommandRefused(given.id, f"the workflow takes no signal {given.signal!r}{hint}"))
        return
    refusal = misfit(known.get(given.signal) if known else None, given.data)
    for path in waiting_for(draft, given.signal) if refusal is None else []:
        node, model = draft.state.node(path), draft.plan.node(path).model
        assert node is not None  # noqa: S101 (it waits)
        assert isinstance(model, WaitNode)  # noqa: S101 (no other node waits for a signal)
        refusal = misfit(model.wait.schema_, given.data)
        if refusal is None:
            flow.complete(draft, path, node.attempt, given.data)
            return
    chart = listener(draft, given.signal) if draft.state.queued is None else None
    if refusal is None and chart is not None:
        refusal = misfit(schema_of(draft, chart, given.signal), given.data)
    if refusal is not None:
        draft.emit(CommandRefused(given.id, f"the data of signal {given.signal!r} does not fit: {refusal}"))
    elif chart is not None:
        receive(draft, chart, ChartEvent(given.signal, given.data))
    else:
        draft.emit(SignalReceived(given.signal, given.data))


def _answer(draft: Draft, given: DecideApproval) -> None:
    """Let an approval go on with a person's answer."""
    node = draft.state.waiting.get(given.node)
    if node is None or not node.input.get("approval"):
        was = given.node in draft.state.nodes and draft.plan.node(given.node).kind == "approval"
        asked = [path for path, each in draft.state.waiting.items() if each.input.get("approval")]
        there = did_you_mean(given.node, asked) or f"; {', '.join(sorted(asked)) or 'nothing'} is asked for"
        why = "it is decided already, or no longer asked for" if was else f"there is no such approval now{there}"
        draft.emit(CommandRefused(given.id, f"approval {given.node!r}: {why}"))
        return
    model = draft.plan.node(given.node).model
    assert isinstance(model, ApprovalNode)  # noqa: S101 (only approvals wait for one)
    if given.approved and (problem := misfit(model.approval.form, given.data)):
        draft.emit(CommandRefused(given.id, f"approval {given.node!r}: the data does not fit the form: {problem}"))
        return
    decide(draft, given.node, approved=given.approved, by=given.by, data=given.data)


def _pause(draft: Draft, given: PauseExecution) -> None:
    if draft.state.cancelling:
        draft.emit(CommandRefused(given.id, "the execution is being cancelled"))
    elif draft.state.paused is None:
        draft.emit(ExecutionPaused(given.reason, given.by))


def _resume(draft: Draft, given: ResumeExecution) -> None:
    if draft.state.paused is None:
        return
    draft.emit(ExecutionResumed(given.by))
    _go_on(draft)
    flow.wake(draft)


def _go_on(draft: Draft) -> None:
    """Try again what is stuck, and let the timers count that came due during the pause."""
    for path in sorted(path for path, node in draft.state.nodes.items() if node.status == "stuck"):
        node = draft.state.node(path)
        if node is not None and node.status == "stuck" and not draft.over:  # one may cancel another
            try_again(draft, path)
    for timer in draft.state.held:
        if timer in draft.state.held and not draft.over:  # one may disarm another
            fire(draft, timer)


def _cancel(draft: Draft, given: CancelExecution) -> None:
    if draft.state.cancelling:
        return
    if draft.state.queued is not None:  # nothing of it has begun, so there is nothing to do at its end
        draft.emit(ExecutionCancelled(given.reason))
        return
    if draft.state.main.status != "running" or draft.state.failing:
        draft.emit(CommandRefused(given.id, "the execution is at its end already; terminate it to end it at once"))
        return
    reason = given.reason or "the execution was cancelled"
    draft.emit(ExecutionCancelling(given.reason, given.by))
    stop(draft, "", reason)
    _go_on(draft)  # what is left is being undone: the pause is over
    if not compensate(draft, "", "execution", Error("Cancelled", reason)):
        draft.later("end")


def _terminate(draft: Draft, given: TerminateExecution) -> None:
    reason = given.reason or "the execution was terminated"
    for name in ("", *sorted(draft.state.ends)):
        stop(draft, name, reason, undo=True)
    draft.emit(ExecutionTerminated(given.reason, given.by))


_CONTROLS: dict[type, Callable[[Draft, Any], None]] = {
    SignalExecution: _signal,
    DecideApproval: _answer,
    PauseExecution: _pause,
    ResumeExecution: _resume,
    CancelExecution: _cancel,
    TerminateExecution: _terminate,
    RetryExecution: mending.retry,
    SkipNode: mending.skip,
    CompleteNode: mending.complete,
    ChangeInput: mending.change_input,
    ExtendDeadline: mending.extend_deadline,
    ReportChild: children.ended,
    ReportCompensation: children.undone,
}

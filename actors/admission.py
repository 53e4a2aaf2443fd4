"""How an execution is let in: past its quota and its workflow's `concurrency`, and only then do its nodes begin."""

from perdure.actors import charts, flow
from perdure.actors.claims import claim_of_gate
from perdure.actors.draft import Draft
from perdure.actors.inputs import AdmitExecution, RefuseExecution
from perdure.actors.state import Started
from perdure.errors import ExpressionError
from perdure.events.vocabulary import Error, ExecutionAdmitted, ExecutionFailed, ExecutionQueued


def enter(draft: Draft, passed: int = 0) -> None:
    """Let an execution that began, or is retried, go on behind the gates that it has passed."""
    if passed == len(draft.plan.gates):
        _begin(draft)
        return
    try:
        claim = claim_of_gate(draft, draft.plan.gates[passed])
    except ExpressionError as error:
        draft.emit(ExecutionFailed(Error("ExpressionError", str(error))))
        return
    draft.emit(ExecutionQueued(claim))


def hear(draft: Draft, given: AdmitExecution | RefuseExecution) -> None:
    """Take the word of a limit; of one that is not asked any more it counts for nothing."""
    queued = draft.state.queued
    if queued is None or (queued.limit, ticket_of(draft.execution, draft.state)) != (given.limit, given.ticket):
        return
    if isinstance(given, RefuseExecution):
        draft.emit(ExecutionFailed(given.error))
        return
    draft.emit(ExecutionAdmitted(given.limit))
    groups = [gate.group for gate in draft.plan.gates]
    enter(draft, groups.index(given.limit) + 1)


def ticket_of(execution: str, state: Started) -> str:
    """Return the name under which an execution asks its limits: another one after each retry."""
    return f"{execution}+{state.retries}" if state.retries else execution


def is_refused(state: Started) -> bool:
    """Say whether an execution ended because a limit did not let it in: nothing of it ever began."""
    return state.queued is not None and isinstance(state.outcome, ExecutionFailed)


def _begin(draft: Draft) -> None:
    if draft.plan.timeout is not None and "execution/" not in draft.state.timers:
        draft.arm("execution", "", draft.plan.timeout)
    chart = draft.state.main.chart
    if draft.plan.main.chart is not None and chart is None:
        draft.later("chart", "")
    elif chart is not None and draft.state.retries:
        charts.again(draft, "")
    if draft.state.retries or draft.state.main.nodes or chart is not None:  # it is retried, or a fork with a past
        flow.wake(draft)
        return
    for name in draft.plan.main.roots:
        draft.later("consider", name)

"""The decisions: which events follow from an input, given the plan, the state and the time. Pure."""

from datetime import datetime

from perdure.actors import admission, agent_loop, charts, children, compensated, controls, failures, flow, timers
from perdure.actors.draft import Draft
from perdure.actors.inputs import (
    AdmitExecution,
    CompensateExecution,
    Continue,
    Control,
    FireTimer,
    Input,
    Recover,
    RefuseExecution,
    Report,
    ReportChild,
    ReportCompensation,
    ReportFailure,
    ReportLoss,
    ReportProgress,
    ReportQueued,
    ReportSuccess,
    StartExecution,
)
from perdure.actors.search import with_attributes
from perdure.actors.state import ExecutionState, Purged, Started
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    Event,
    ExecutionRetried,
    ExecutionStarted,
    NodePlaced,
    NodeQueued,
    NodeResumed,
)

MAX_RESUMES = 3


Decision = tuple[list[Event], ExecutionState]
"""Events, and the state after them: the same as folding them gives, which the making of them has done already."""


def decide(plan: Plan, execution: str, state: ExecutionState, given: Input, at: datetime) -> Decision:
    """Return what follows from one input at the UTC time `at`; no events where everything is already so."""
    if isinstance(given, StartExecution):
        return _start(plan, execution, state, given, at)
    if not isinstance(state, Started):
        return [], state
    draft = Draft(plan, execution, state, at)
    if state.outcome is not None:
        if isinstance(given, Control):
            controls.after_end(draft, given)
        elif isinstance(given, ReportChild):
            children.ended(draft, given)
        elif isinstance(given, CompensateExecution):
            compensated.begin(draft, given)
    else:
        _react(draft, given)
    flow.run(draft)
    return draft.events, draft.state


def _react(draft: Draft, given: Input) -> None:
    state = draft.state
    match given:
        case ReportSuccess() | ReportFailure() | ReportLoss() | ReportQueued() | ReportProgress():
            _hear(draft, given)
        case Recover(apart):
            for node in sorted(set(state.running) - apart):
                if node in draft.state.running and not draft.over:
                    _take_up(draft, node)
            flow.wake(draft)
        case Continue():
            flow.wake(draft)
        case AdmitExecution() | RefuseExecution():
            admission.hear(draft, given)
        case FireTimer(timer=timer, due=due):
            timers.come(draft, timer, due)
        case _ if isinstance(given, Control | ReportChild | ReportCompensation):
            controls.control(draft, given)


def _hear(draft: Draft, report: Report) -> None:
    """Take the report on an attempt; one that is not wanted any more counts only for a statechart, as ignored."""
    if not _is_running(draft.state, report.node, report.attempt):
        charts.come_late(draft, report)
        return
    match report:
        case ReportSuccess(node, attempt, output, usage):
            flow.complete(draft, node, attempt, output, usage)
        case ReportFailure(node, attempt, error, usage):
            over = agent_loop.charged(draft, node, attempt, usage) if usage is not None else None
            if over is not None:
                failures.fail(draft, node, attempt, over)
            else:
                failures.fail_attempt(draft, node, attempt, error)
        case ReportLoss() | ReportQueued():
            _from_actor(draft, report)
        case ReportProgress(node, _, data):
            charts.progress(draft, node, data)


def _start(plan: Plan, execution: str, state: ExecutionState, given: StartExecution, at: datetime) -> Decision:
    if isinstance(state, Purged):
        return [CommandRefused(given.id, "the execution id was used by an execution that has been purged")], state
    if isinstance(state, Started):
        same = (state.started.digest, state.started.input) == (given.digest, given.input)
        if given.parent is not None:  # asked for again, perhaps by name after another version was activated
            same = state.started.parent == given.parent
        if not same:
            return [CommandRefused(given.id, "the execution id is taken by another definition or input")], state
        return _ask_again(plan, execution, state, at) if admission.is_refused(state) else ([], state)
    started = ExecutionStarted(
        given.workflow, given.digest, given.input, given.lane, given.tools, given.priority, given.parent,
        given.search, given.tags, at if plan.limits or plan.gates else None,
    )  # fmt: skip
    started, error = with_attributes(plan, execution, started, at)
    draft = Draft(plan, execution, Started(started), at)
    draft.events.append(started)
    if error is not None:
        failures.leave_root(draft, "", error, None, 0)
    else:
        admission.enter(draft)
    flow.run(draft)
    return draft.events, draft.state


def _ask_again(plan: Plan, execution: str, state: Started, at: datetime) -> Decision:
    """Let an execution that was not let in ask once more: to start it again is to try again."""
    draft = Draft(plan, execution, state, at)
    draft.emit(ExecutionRetried())
    admission.enter(draft)
    flow.run(draft)
    return draft.events, draft.state


def _from_actor(draft: Draft, given: ReportLoss | ReportQueued) -> None:
    """Take in what happened to a call in a node actor that was neither its result nor its error."""
    if isinstance(given, ReportLoss):
        _resume(draft, given.node, given.how)
    elif given.waits_for != draft.state.running[given.node].waits_for:
        node, attempt, waits_for = given.node, given.attempt, given.waits_for
        draft.emit(NodeQueued(node, attempt, waits_for) if waits_for else NodePlaced(node, attempt))


def _is_running(state: Started, node: str, attempt: int) -> bool:
    current = state.running.get(node)
    return current is not None and current.attempt == attempt


def _take_up(draft: Draft, path: str) -> None:
    """Go on, under a new owner, with a call that had begun, or had waited and begins now."""
    node = draft.state.running[path]
    if node.waits_for:
        draft.emit(NodePlaced(path, node.attempt))
    else:
        _resume(draft, path)


def _resume(draft: Draft, path: str, how: str = "") -> None:
    """Run an attempt again whose worker was lost, but not one that keeps taking its workers down."""
    node = draft.state.running[path]
    if node.resumed < MAX_RESUMES:
        draft.emit(NodeResumed(path, node.attempt, how))
        return
    last = f"; the last time {how}" if how else ""
    lost = Error("WorkerLost", f"the process that ran it was lost {node.resumed + 1} times{last}")
    failures.fail_attempt(draft, path, node.attempt, lost)

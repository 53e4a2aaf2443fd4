"""What an execution owes to others: to its children their starts, ends and undoing, to its parent its own end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from perdure.actors.children import to_close, to_compensate, to_start
from perdure.actors.inputs import (
    AdmitExecution,
    CompensateExecution,
    RefuseExecution,
    ReportChild,
    ReportCompensation,
)
from perdure.actors.limiting import Limits
from perdure.actors.owed_to_limits import owed_to_limits
from perdure.actors.state import Started
from perdure.definitions.paths import UNDO
from perdure.definitions.plan import Plan
from perdure.errors import BadInput, LogUnavailable
from perdure.events.vocabulary import (
    ChildRequested,
    Error,
    ExecutionCancelled,
    ExecutionCompensated,
    ExecutionFailed,
    ExecutionSucceeded,
    ExecutionTerminated,
    Outcome,
    Parent,
)

_log = logging.getLogger("perdure.execution")
_PAUSE, _LONGEST_PAUSE = 0.5, 5.0  # seconds between tries while the inbox is away


class Post(Protocol):
    """Carries messages between executions; each may arrive more than once, and counts once."""

    async def start_child(self, execution: str, state: Started, plan: Plan, request: ChildRequested) -> None:
        """Start a child. Raises BadInput where there is no such workflow, or the input does not fit it."""
        ...

    async def close_child(self, state: Started, request: ChildRequested) -> None:
        """Cancel or terminate a child."""
        ...

    async def compensate_child(self, state: Started, command: CompensateExecution) -> None:
        """Have a child that succeeded undo what it did. Raises BadInput where the error is too large to be sent."""
        ...

    async def report(self, parent: Parent, report: ReportChild | ReportCompensation) -> None:
        """Tell the parent that its child has ended, or is undone. Raises BadInput where it is too large to be sent."""
        ...

    async def close(self) -> None:
        """Close what was opened for it."""
        ...


class Outgoing:
    """Sends what an execution owes, level-triggered: what was sent before a crash is sent again after it."""

    def __init__(
        self,
        execution: str,
        post: Post,
        answer: Callable[[ReportChild | AdmitExecution | RefuseExecution], None],
        limits: Limits | None = None,
    ) -> None:
        self._id = execution
        self._post = post
        self._answer = answer
        self._limits = limits
        self._sent: set[tuple[str, str]] = set()
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether something is not sent yet."""
        return bool(self._sending)

    def reconcile(self, state: Started, plan: Plan) -> None:
        """Send whatever the state says is owed and was not sent from here yet."""
        if self._limits is not None and state.slots:
            for what, limit, say in owed_to_limits(self._id, state, plan, self._limits, self._answer):
                self._owe(what, limit, say)
        for request in to_start(state):
            self._owe("start", request.child, lambda each=request: self._start(state, plan, each))  # type: ignore[misc]
        for request in to_close(state):
            self._owe("close", request.child, lambda each=request: self._post.close_child(state, each))  # type: ignore[misc]
        for command in to_compensate(self._id, state):
            self._owe("undoing", command.id, lambda each=command: self._compensate(state, each))  # type: ignore[misc]
        parent, outcome = state.started.parent, state.outcome
        if parent is None or outcome is None or parent.detached:
            return
        if state.compensating is not None:
            report = _report_undone(self._id, state.compensating.command, parent, outcome)
            self._owe("undone", report.id, lambda: self._post.report(parent, report))
        else:
            self._owe("report", parent.execution, lambda: self._tell_end(parent, outcome))

    def refuse(self, start: str, parent: Parent) -> None:
        """Tell a parent that the id of its child is taken; `start` is the command that was refused."""
        error = Error("ExecutionExists", f"the execution id {self._id!r} is taken by another execution")
        report = ReportChild(f"{start}/refused", parent.execution, self._id, error=error)
        self._owe("refusal", start, lambda: self._post.report(parent, report))

    def cannot_compensate(self, command: CompensateExecution, why: str) -> None:
        """Tell a parent that its child is not undone, and why."""
        parent, error = command.parent, Error("CompensationFailed", why)
        report = ReportCompensation(f"{command.id}/refused", parent.execution, parent.node, self._id, error)
        self._owe("refusal", command.id, lambda: self._post.report(parent, report))

    async def sent(self) -> None:
        """Return when everything is sent."""
        await asyncio.gather(*self._sending, return_exceptions=True)

    def stop(self) -> None:
        """Stop sending; what is still owed is sent when the execution is embodied again."""
        for task in self._sending:
            task.cancel()

    def _owe(self, what: str, to: str, send: Callable[[], Awaitable[None]]) -> None:
        if (what, to) in self._sent:
            return
        self._sent.add((what, to))
        task = asyncio.create_task(self._send(what, to, send))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, what: str, to: str, send: Callable[[], Awaitable[None]]) -> None:
        pause = _PAUSE
        while True:
            try:
                return await send()
            except LogUnavailable as error:
                _log.warning("execution %s: the %s of %s: %s; tried again in %g s", self._id, what, to, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _tell_end(self, parent: Parent, outcome: Outcome) -> None:
        """Tell the parent how this execution ended; where that is too large to be sent, tell it so."""
        report = report_of(self._id, parent, outcome)
        try:
            await self._post.report(parent, report)
        except BadInput as error:
            told = Error(type(error).__name__, f"child {self._id!r} cannot say how it ended: {error}")
            await self._post.report(parent, ReportChild(report.id, parent.execution, self._id, error=told))

    async def _compensate(self, state: Started, command: CompensateExecution) -> None:
        """Have a child undone; where the error is too large to be sent, it goes without."""
        try:
            await self._post.compensate_child(state, command)
        except BadInput as problem:
            error = Error(command.error.type, f"its message cannot be sent: {problem}")
            await self._post.compensate_child(state, msgspec.structs.replace(command, error=error))

    async def _start(self, state: Started, plan: Plan, request: ChildRequested) -> None:
        try:
            await self._post.start_child(self._id, state, plan, request)
        except BadInput as error:
            failed = Error(type(error).__name__, str(error))
            self._answer(ReportChild(f"{request.child}/refused", self._id, request.child, error=failed))


def report_of(execution: str, parent: Parent, outcome: Outcome) -> ReportChild:
    """Return what an execution tells its parent of its end."""
    output = outcome.output if isinstance(outcome, ExecutionSucceeded) else None
    return ReportChild(f"{execution}/ended", parent.execution, execution, output, _error_of(execution, outcome))


def _report_undone(execution: str, command: str, parent: Parent, outcome: Outcome) -> ReportCompensation:
    error = _error_of(execution, outcome)
    return ReportCompensation(f"{command}/done", parent.execution, parent.node + UNDO, execution, error)


def _error_of(execution: str, outcome: Outcome) -> Error | None:
    match outcome:
        case ExecutionSucceeded():
            return None
        case ExecutionFailed(error) | ExecutionCompensated(error):
            return error
        case ExecutionCancelled(reason):
            return Error("Cancelled", f"child {execution!r} was cancelled" + (f": {reason}" if reason else ""))
        case ExecutionTerminated(reason):
            return Error("Terminated", f"child {execution!r} was terminated" + (f": {reason}" if reason else ""))

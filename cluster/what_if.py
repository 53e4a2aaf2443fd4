"""One past execution again, under another definition: what is unchanged is answered from the record, the rest runs.

The engine decides as always, in virtual time; nothing is stored.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from perdure.actors.admission import ticket_of
from perdure.actors.agents import parted
from perdure.actors.containers import MANY
from perdure.actors.decisions import decide
from perdure.actors.inputs import (
    AdmitExecution,
    CompleteNode,
    Continue,
    DecideApproval,
    FireTimer,
    Input,
    ReportChild,
    ReportFailure,
    ReportSuccess,
    StartExecution,
)
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.actors.work import Work, error_of
from perdure.cluster.record import Result, asked, making_of
from perdure.definitions.paths import UNDO
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import ChildRequested, Event, ExecutionQueued, NodeResumed, NodeScheduled, NodeWaiting

_UNCALLED = ("send", "session")
_MOST = 100_000  # inputs: more than any real execution has


class Runner(msgspec.Struct, frozen=True):
    """What really makes a call."""

    work: Callable[[Work], Awaitable[Any]]
    secrets: Secrets
    outside: Outside


class WhatIf:
    """One execution under another definition. reused, ran: paths of the nodes answered from the record, and made."""

    def __init__(
        self, plan: Plan, results: Mapping[tuple[str, int], Result], runner: Runner | None, began: datetime
    ) -> None:
        self.plan = plan
        self.now = began
        self.state: ExecutionState = INITIAL
        self.reused: list[str] = []
        self.ran: list[str] = []
        self.left: list[str] = []
        self.usage: list[dict[str, Any]] = []
        self._results = results
        self._runner = runner
        self._inputs: deque[Input] = deque()
        self._at_work: dict[asyncio.Task[Input], str] = {}

    async def run(self, start: StartExecution) -> Started:
        """Decide until it ends, or nothing more can happen; return the state that it came to."""
        self._execution = start.execution
        self._inputs.append(start)
        try:
            for _ in range(_MOST):
                given = await self._next()
                if given is None:
                    break
                self._decide(given)
        finally:
            for task in self._at_work:
                task.cancel()
            await asyncio.gather(*self._at_work, return_exceptions=True)
        return self._started

    @property
    def _started(self) -> Started:
        assert isinstance(self.state, Started)  # noqa: S101 (the start was decided first)
        return self.state

    async def _next(self) -> Input | None:
        """Return what happens next: what is due now, then what real calls say, then the next timer."""
        if self._inputs:
            return self._inputs.popleft()
        if self._started.outcome is not None:
            return None
        if self._at_work:
            done, _ = await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
            self._inputs += [task.result() for task in done]
            for task in done:
                del self._at_work[task]
            return self._inputs.popleft()
        timers = [(due, timer) for timer, due in self._started.timers.items()]
        if not timers:
            return None
        due, timer = heapq.nsmallest(1, timers)[0]
        self.now = max(self.now, due)
        return FireTimer.of(self._execution, timer, due)

    def _decide(self, given: Input) -> None:
        events, self.state = decide(self.plan, self._execution, self.state, given, self.now)
        for event in events:
            self._follow(event)
        if len(events) > MANY and self._started.outcome is None:
            self._inputs.append(Continue())

    def _follow(self, event: Event) -> None:
        if isinstance(event, NodeScheduled | NodeResumed):
            node = self._started.running.get(event.node)
            if node is not None and node.attempt == event.attempt:
                self._call(event.node, node)
        elif isinstance(event, NodeWaiting):
            node = self._started.waiting.get(event.node)
            if node is not None:
                self._wait(event.node, node)
        elif isinstance(event, ExecutionQueued):  # whoever is tried out is alone
            limit, ticket = event.claim.limit, ticket_of(self._execution, self._started)
            self._inputs.append(AdmitExecution(f"{ticket}/{limit}/admitted", self._execution, limit, ticket))
        elif isinstance(event, ChildRequested):
            self._child(event)

    def _call(self, path: str, node: NodeState) -> None:
        given = asked(self._started, self.plan, path, node)
        result = self._recorded(path, node.attempt, given)
        if result is not None:
            self._answer(path, node.attempt, result)
        elif path.endswith(UNDO) or self.plan.node(path).calls in _UNCALLED:
            self._inputs.append(ReportSuccess(path, node.attempt))  # effects on others are not for trying out
        else:
            self.ran.append(path)
            if self._runner is not None:
                self._at_work[asyncio.create_task(self._made(path, node, self._runner))] = path

    def _recorded(self, path: str, attempt: int, given: Any) -> Result | None:
        """Return the result of the same call in the past: made in the same way, with the same input."""
        result = self._results.get((path, attempt))
        same = result is not None and result.ended and result.given == given
        return result if same and result is not None and result.making == making_of(self.plan, path, given) else None

    def _answer(self, path: str, attempt: int, result: Result) -> None:
        """Let a call end as it did. An output that was made of the result by `output` is not made again."""
        self.reused.append(path)
        if result.error is not None:
            self._inputs.append(ReportFailure(path, attempt, result.error))
        elif "output" in self.plan.node(path).templates:
            self._inputs.append(CompleteNode(f"{path}/{attempt}", self._execution, path, result.output))
        else:
            self._inputs.append(ReportSuccess(path, attempt, result.output))

    def _wait(self, path: str, node: NodeState) -> None:
        """Answer a wait as it was answered; a time is waited for in virtual time, anything else for ever."""
        result = self._recorded(path, node.attempt, asked(self._started, self.plan, path, node))
        if path.endswith(UNDO):
            self._inputs.append(CompleteNode(path, self._execution, path))
        elif result is None:
            if f"wait/{path}" not in self._started.timers:
                self.left.append(path)
        elif result.error is None:
            self.reused.append(path)
            self._inputs.append(CompleteNode(f"{path}/{node.attempt}", self._execution, path, result.output))
        elif result.error.type == "Rejected":
            self.reused.append(path)
            self._inputs.append(DecideApproval(path, self._execution, path, approved=False, data=result.error.data))

    def _child(self, event: ChildRequested) -> None:
        """Let a child end as it did; one that is asked for something else is not run."""
        result = self._recorded(event.node, event.attempt, event.input)
        if event.detached or event.node.endswith(UNDO):
            return
        if result is None:
            self.left.append(event.node)
            return
        self.reused.append(event.node)
        report = ReportChild(f"{event.child}/ended", self._execution, event.child, result.output, result.error)
        self._inputs.append(report)

    async def _made(self, path: str, state: NodeState, runner: Runner) -> Input:
        """Really make a call."""
        node, started = self.plan.node(path), self._started
        places = started.started.tools
        try:
            value = given_to(started, self.plan, path, state, runner.secrets.reveal)
            work = Work(
                self._execution, path, node, state.attempt, value, self.plan, places.get(node.target), places=places,
                outside=runner.outside,
            )  # fmt: skip
            result, usage = parted(await runner.work(work))
            if usage is not None:
                self.usage.append(usage)
            return ReportSuccess(path, state.attempt, runner.secrets.redact(result), usage)
        except Exception as error:  # a tool may raise anything
            return ReportFailure(path, state.attempt, error_of(error, runner.secrets.redact))

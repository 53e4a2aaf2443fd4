"""One past execution again, under another definition: what is unchanged is answered from the record, the rest runs.

The engine decides as always, in virtual time; nothing is stored.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

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
    ReportCompensation,
    ReportFailure,
    ReportSuccess,
    SignalExecution,
    StartExecution,
)
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.actors.work import Work, error_of
from perdure.cluster.record import Record, Result, asked, making_of
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


class _Coming(NamedTuple):
    """What happens at a time: an input, or, where the record gave a call up, that call. path, attempt: whose it is."""

    at: datetime
    order: tuple[int, int]
    path: str = ""
    attempt: int = 0
    given: Input | None = None


class WhatIf:
    """One execution under another definition. reused, ran: paths of the nodes answered from the record, and made.

    What is recorded happens when it did then, so that what raced has the same winner, and delays the same effect.
    """

    def __init__(self, plan: Plan, record: Record, runner: Runner | None, began: datetime) -> None:
        self.plan = plan
        self.now = began
        self.state: ExecutionState = INITIAL
        self.reused: list[str] = []
        self.ran: list[str] = []
        self.left: list[str] = []
        self.usage: list[dict[str, Any]] = []
        self._record = record
        self._runner = runner
        self._inputs: deque[Input] = deque()
        self._coming: list[_Coming] = []
        self._counter = count()
        self._used: set[int] = set()
        self._at_work: dict[asyncio.Task[Input], str] = {}

    async def run(self, start: StartExecution) -> Started:
        """Decide until it ends, or nothing more can happen; return the state that it came to."""
        self._execution = start.execution
        self._inputs.append(start)
        for number, told in enumerate(self._record.told):
            signal = SignalExecution(f"told/{number}", start.execution, told.event, told.data)
            self._comes(told.at, told.number, given=signal)
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
        return self._next_in_time()

    def _next_in_time(self) -> Input | None:
        """Return what comes next of what is recorded and of the timers; of calls that are made, once they are."""
        while True:
            timer = self._timer()
            if timer is not None and (not self._coming or timer[0] < self._coming[0].at):
                due, name = timer
                self.now = max(self.now, due)
                return FireTimer.of(self._execution, name, due)
            if not self._coming:
                return None
            coming = heapq.heappop(self._coming)
            self.now = max(self.now, coming.at)
            if not coming.path:
                return coming.given
            node = self._started.node(coming.path)
            if node is None or node.status not in ("running", "waiting") or node.attempt != coming.attempt:
                continue  # it was given up before
            if coming.given is not None:
                self.reused.append(coming.path)
                return coming.given
            self._make(coming.path, node)
            if self._at_work:
                return Continue()

    def _timer(self) -> tuple[datetime, str] | None:
        """Return the timer that fires first. One of a node that is answered from the record did not fire then.

        Behind a call that a dry run does not make, nobody knows what else would time out.
        """
        if not self._started.timers:
            return None
        answered = {coming.path for coming in self._coming if coming.given is not None}
        timers = [
            (due, timer) for timer, due in self._started.timers.items()
            if timer.partition("/")[2] not in answered
            and not (self.ran and self._runner is None and not timer.startswith(("wait/", "retry/")))
        ]  # fmt: skip
        return min(timers, default=None)

    def _comes(self, at: datetime, number: int, path: str = "", attempt: int = 0, given: Input | None = None) -> None:
        heapq.heappush(self._coming, _Coming(at, (number, next(self._counter)), path, attempt, given))

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
            answer = self._answer(path, node.attempt, result) if result.ended else None
            self._comes(result.at, result.number, path, node.attempt, answer)
        elif path.endswith(UNDO) or self.plan.node(path).calls in _UNCALLED:
            self._inputs.append(ReportSuccess(path, node.attempt))  # effects on others are not for trying out
        else:
            self._make(path, node)

    def _make(self, path: str, node: NodeState) -> None:
        self.ran.append(path)
        if self._runner is not None:
            self._at_work[asyncio.create_task(self._made(path, node, self._runner))] = path

    def _recorded(self, path: str, attempt: int, given: Any) -> Result | None:
        """Return the result of the same call in the past: made so, with the same input; each in its turn."""
        making = making_of(self.plan, path, given)
        there = self._record.results.get((path, attempt), ())
        same = [each for each in there if each.given == given and each.making == making]
        result = next((each for each in same if id(each) not in self._used), same[-1] if same else None)
        self._used.add(id(result))
        return result

    def _answer(self, path: str, attempt: int, result: Result) -> Input:
        """Return how a call ended. An output that was made of the result by `output` is not made again."""
        if result.error is not None:
            return ReportFailure(path, attempt, result.error)
        if "output" in self.plan.node(path).templates:
            return CompleteNode(f"{path}/{attempt}", self._execution, path, result.output)
        return ReportSuccess(path, attempt, result.output)

    def _wait(self, path: str, node: NodeState) -> None:
        """Answer a wait as it was answered; a time is waited for in virtual time, anything else for ever."""
        result = self._recorded(path, node.attempt, asked(self._started, self.plan, path, node))
        if path.endswith(UNDO):  # a child is to undo itself: as it did, else it counts as done
            error = result.error if result is not None else None
            self._inputs.append(
                ReportCompensation(path, self._execution, path, node.input.get("compensation", ""), error)
            )
        elif result is None or not result.ended:
            if f"wait/{path}" not in self._started.timers:
                self.left.append(path)
        elif result.error is None:
            given = CompleteNode(f"{path}/{node.attempt}", self._execution, path, result.output)
            self._comes(result.at, result.number, path, node.attempt, given)
        elif result.error.type == "Rejected":
            said = {key: value for key, value in (result.error.data or {}).items() if key in ("by", "data")}
            decided = DecideApproval(path, self._execution, path, approved=False, **said)
            self._comes(result.at, result.number, path, node.attempt, decided)

    def _child(self, event: ChildRequested) -> None:
        """Let a child end as it did; one that is asked for something else is not run."""
        if event.detached:
            return
        result = self._recorded(event.node, event.attempt, event.input)
        if result is None or not result.ended:
            if event.node.endswith(UNDO):  # it counts as done
                self._inputs.append(ReportChild(f"{event.child}/ended", self._execution, event.child))
            else:
                self.left.append(event.node)
            return
        report: Input = ReportChild(f"{event.child}/ended", self._execution, event.child, result.output, result.error)
        if result.error is None and "output" in self.plan.node(event.node).templates:
            report = CompleteNode(f"{event.node}/{event.attempt}", self._execution, event.node, result.output)
        self._comes(result.at, result.number, event.node, event.attempt, report)

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

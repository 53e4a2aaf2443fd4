"""One past execution again, under another definition: what is unchanged is answered from the record, the rest runs.

The engine decides as always, in virtual time; nothing is stored.
"""

import asyncio
import heapq
from collections import deque
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

from perdure.actors.admission import ticket_of
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
    StartExecution,
)
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.cluster.record import Record, Result, asked, making_of
from perdure.cluster.what_if_calls import Runner
from perdure.definitions.paths import UNDO
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import (
    ChildRequested,
    Event,
    ExecutionQueued,
    NodeResumed,
    NodeScheduled,
    NodeWaiting,
    TimerArmed,
)

_UNCALLED = ("send", "session")
_MOST = 100_000  # inputs: more than any real execution has


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
        self._known: set[tuple[str, datetime]] = set()
        self._at_work: dict[asyncio.Task[Input], str] = {}

    async def run(self, start: StartExecution) -> Started:
        """Decide until it ends, or nothing more can happen; return the state that it came to."""
        self._execution = start.execution
        self._as_it_was = all(each == (self.plan.digest, start.input) for each in self._record.starts)
        self._inputs.append(start)
        for command in self._record.commands:
            self._comes(command.at, command.number, given=command.given)
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
            if (given := self._wanted(coming)) is not None:
                return given

    def _wanted(self, coming: _Coming) -> Input | None:
        """Return what is recorded, or make a call that was given up then; nothing where that is given up now."""
        if isinstance(coming.given, FireTimer):
            self.now = max(self.now, coming.given.due)
            return coming.given if self._fires(coming.given.timer, coming.given.due) else None
        if not coming.path:
            return coming.given
        node = self._started.node(coming.path)
        if node is None or node.status not in ("running", "waiting") or node.attempt != coming.attempt:
            return None
        if coming.given is not None:
            self.reused.append(coming.path)
            return coming.given
        self._make(coming.path, node)
        if self._inputs:
            return self._inputs.popleft()
        return Continue() if self._at_work else None

    def _timer(self) -> tuple[datetime, str] | None:
        """Return the timer that fires first. One that the record knows fires when it did, or not before all is over."""
        timers = [
            (due, timer) for timer, due in self._started.timers.items()
            if self._fires(timer, due) and not (self._coming and (timer, due) in self._known)
        ]  # fmt: skip
        return min(timers, default=None)

    def _fires(self, timer: str, due: datetime) -> bool:
        """Say whether a timer may fire: behind a call that a dry run does not make nobody knows what would time out."""
        if self.ran and self._runner is None and not timer.startswith(("wait/", "retry/")):
            return False
        return self._started.timers.get(timer) == due

    def _arm(self, event: TimerArmed) -> None:
        result = self._recorded((event.timer, 0), event.due - self.now, None)
        if result is not None:
            self._known.add((event.timer, event.due))
            if result.ended:
                fire = FireTimer.of(self._execution, event.timer, event.due)
                self._comes(result.at, result.number, given=fire)

    def _comes(self, at: datetime, number: int, path: str = "", attempt: int = 0, given: Input | None = None) -> None:
        heapq.heappush(self._coming, _Coming(at, (number, next(self._counter)), path, attempt, given))

    def _comes_when(self, result: Result | None, path: str, attempt: int, given: Input) -> None:
        """Let an input come when that happened in the past, or else now."""
        if result is None:
            self._inputs.append(given)
        else:
            self._comes(result.at, result.number, path, attempt, given)

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
        elif isinstance(event, TimerArmed):
            self._arm(event)

    def _call(self, path: str, node: NodeState) -> None:
        given = asked(self._started, self.plan, path, node)
        result = self._same(path, node.attempt, given)
        if result is not None:
            answer = self._answer(path, node.attempt, result) if result.ended else None
            self._comes(result.at, result.number, path, node.attempt, answer)
        else:
            self._make(path, node)

    def _make(self, path: str, node: NodeState) -> None:
        """Make a call, but none of an execution as it was: whatever is not recorded there stays without an answer."""
        if path.endswith(UNDO) or self.plan.node(path).calls in _UNCALLED:
            self._inputs.append(ReportSuccess(path, node.attempt))  # effects on others are not for trying out
            return
        if self._as_it_was:
            self.left.append(path)
            return
        self.ran.append(path)
        if self._runner is not None:
            self._at_work[asyncio.create_task(self._made(path, node, self._runner))] = path

    async def _made(self, path: str, node: NodeState, runner: Runner) -> Input:
        report = await runner.made(self.plan, self._execution, self._started, path, node)
        self.usage += [report.usage] if report.usage is not None else []
        return report

    def _same(self, path: str, attempt: int, given: Any) -> Result | None:
        return self._recorded((path, attempt), given, making_of(self.plan, path, given))

    def _recorded(self, key: tuple[str, int], given: Any, making: Any) -> Result | None:
        """Return the result of the same call in the past: made so, with the same input; each in its turn."""
        same = [each for each in self._record.results.get(key, ()) if each.given == given and each.making == making]
        result = next((each for each in same if id(each) not in self._used), same[-1] if same else None)
        self._used.add(id(result))
        return result

    def _answer(self, path: str, attempt: int, result: Result) -> Input:
        """Return how a call ended. An output that was made of the result by `output` is not made again."""
        if result.error is not None:
            return ReportFailure(path, attempt, result.error, result.usage)
        if "output" in self.plan.node(path).templates:
            return CompleteNode(f"{path}/{attempt}", self._execution, path, result.output)
        return ReportSuccess(path, attempt, result.output, result.usage)

    def _wait(self, path: str, node: NodeState) -> None:
        """Answer a wait as it was answered; a time is waited for in virtual time, anything else for ever."""
        result = self._same(path, node.attempt, asked(self._started, self.plan, path, node))
        if path.endswith(UNDO):  # a child is to undo itself: as it did, else it counts as done
            error = result.error if result is not None else None
            undone = ReportCompensation(path, self._execution, path, node.input.get("compensation", ""), error)
            self._comes_when(result, path, node.attempt, undone)
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
        result = self._same(event.node, event.attempt, event.input)
        if (result is None or not result.ended) and not event.node.endswith(UNDO):  # of which it counts as done
            self.left.append(event.node)
            return
        output, error = (result.output, result.error) if result is not None else (None, None)
        report: Input = ReportChild(f"{event.child}/ended", self._execution, event.child, output, error)
        if error is None and "output" in self.plan.node(event.node).templates:
            report = CompleteNode(f"{event.node}/{event.attempt}", self._execution, event.node, output)
        self._comes_when(result, event.node, event.attempt, report)

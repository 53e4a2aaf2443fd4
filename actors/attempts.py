"""The attempts under way in an execution: those that its state wants are started, the others are stopped."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from perdure.actors.at_limits import AtLimits, limited_parts
from perdure.actors.inputs import Input, ReportFailure, ReportLoss, ReportProgress, ReportQueued, ReportSuccess
from perdure.actors.log_context import about
from perdure.actors.state import NodeState, Started
from perdure.actors.surroundings import Stream, Surroundings
from perdure.actors.transcripts import given_to
from perdure.actors.usage import Bill
from perdure.actors.work import Work, WorkerLost, error_of
from perdure.definitions.paths import body_of
from perdure.definitions.plan import Plan

_NEXT_OWNER = "the next owner of the execution"

_Attempt = tuple[Any, ...]
"""One run of an attempt: a node's path, its attempt, how often that was resumed, and what began anew around it."""


class Attempts:
    """Each is a task; `put` is given what it reports."""

    def __init__(self, execution: str, around: Surroundings, put: Callable[[Input], None]) -> None:
        self._id = execution
        self._around = around
        self._put = put
        self._leaving = False
        running: dict[_Attempt, asyncio.Task[None]] = {}
        self._running = running
        self._at_limits = AtLimits(lambda: _count(running), lambda on: around.parked(execution, on))

    @property
    def under_way(self) -> int:
        """How many there are."""
        return _count(self._running)

    async def reconcile(self, state: Started | None, plan: Plan | None) -> None:
        """Start what should be running and is not, stop what is and should not; None: nothing should."""
        wanted: dict[_Attempt, NodeState] = {}
        if state is not None:
            wanted = {
                (name, node.attempt, node.resumed, state.retries, state.tries_around(name)): node
                for name, node in state.running.items()
            }
        for key in self._running.keys() - wanted.keys():
            self._running.pop(key).cancel()
        new = wanted.keys() - self._running.keys()
        if self._leaving:
            for name, attempt, *_ in (key for key in new if not wanted[key].waits_for):
                self._put(ReportQueued(name, attempt, _NEXT_OWNER))
        elif new and state is not None and plan is not None:
            await self._around.fence()
            for key in new:
                work = self._do(state, plan, key[0], wanted[key])
                self._running[key] = asyncio.create_task(work, name=self._called(plan, key[0]))
        self._at_limits.look()

    def leave(self) -> None:
        """Begin no more; what waits at limits has not begun."""
        self._leaving = True
        self._at_limits.leave()

    def stop(self) -> None:
        """Stop all."""
        self._at_limits.forget()
        for task in self._running.values():
            task.cancel()

    def _called(self, plan: Plan, path: str) -> str:
        """Return the name of a node's task, which people read when it blocks the loop."""
        node = plan.node(path)
        return f"{node.calls} {node.target!r} (node {path!r} of execution {self._id!r})"

    async def _do(self, state: Started, plan: Plan, name: str, node_state: NodeState) -> None:
        """Do one attempt and report how it went; a cancelled one reports nothing."""
        node, attempt, secrets, bill = plan.node(name), node_state.attempt, self._around.secrets, Bill()
        report: Input
        about(node=name, attempt=attempt)
        try:
            places = state.started.tools
            value = given_to(state, plan, name, node_state, secrets.reveal)
            undone, deadline = state.undone.get(name, 0), state.timers.get(f"deadline/{name}")
            work = Work(
                self._id, name, node, attempt, value, plan, places.get(node.target), undone, deadline, places,
                node_state.resumed, node_state.waits_for, self._queued(name, attempt),
                self._progress(plan, name, attempt), self._around.outside, paid=bill.add,
                **limited_parts(self._id, state, plan, name, node, node_state, self._at_limits, bill),
            )  # fmt: skip
            result = await self._told(work)
            report = ReportSuccess(name, attempt, secrets.redact(result), bill.total)
        except WorkerLost as error:
            report = ReportLoss(name, attempt, secrets.redact(str(error)))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_stopped():
                raise
            failure = error_of(error, secrets.redact)  # a tool may raise anything
            report = ReportFailure(name, attempt, failure, bill.total)
        if not _is_stopped():  # else a tool swallowed it, and what it says may be taken for another run's
            self._put(report)

    async def _told(self, work: Work) -> Any:
        """Do the work; what a model says meanwhile, and the calls that it asks for, are told to who listens."""
        called = work.node.called is not None and work.node.calls == "tool"
        if self._around.stream is None or not (called or work.node.calls in ("agent", "model")):
            return await self._around.work(work)
        stream = self._around.stream(self._id, work.path, work.attempt)
        try:
            if called:
                return await self._call(work, stream)
            return await self._around.work(msgspec.structs.replace(work, hear=stream.hear))
        finally:
            stream.close()

    async def _call(self, work: Work, stream: Stream) -> Any:
        """Make a call that an agent asked for, and tell of it."""
        stream.tell("call", work.input)
        try:
            result = await self._around.work(work)
        except Exception as error:
            stream.tell("result", {"error": msgspec.to_builtins(error_of(error, self._around.secrets.redact))})
            raise
        stream.tell("result", result)
        return result

    def _queued(self, name: str, attempt: int) -> Callable[[str], None]:
        """Return what is told for what an attempt waits."""
        return lambda waits_for: self._put(ReportQueued(name, attempt, waits_for))

    def _progress(self, plan: Plan, name: str, attempt: int) -> Callable[[Any], None]:
        """Return what is told how far an attempt is, from any thread."""
        tell, redact, loop = self._around.tell, self._around.secrets.redact, asyncio.get_running_loop()
        of_chart = plan.body(body_of(name)).calls

        def told(progress: Any) -> None:
            progress = redact(progress)
            if tell is not None:
                tell(self._id, name, attempt, progress)
            if of_chart:
                loop.call_soon_threadsafe(self._put, ReportProgress(name, attempt, progress))

        return told


def _count(running: Mapping[_Attempt, asyncio.Task[None]]) -> int:
    return sum(not task.done() for task in running.values())


def _is_stopped() -> bool:
    """Say whether it is we who stop the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""The execution actor: a mailbox, the one transact loop, and the reconcile that makes the world match the state."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec

from perdure.actors.agents import parted
from perdure.actors.alarms import NEAR, Alarms, TimerQueue
from perdure.actors.at_limits import AtLimits, limited_parts
from perdure.actors.compensated import refusal
from perdure.actors.containers import MANY
from perdure.actors.decisions import Decision, decide
from perdure.actors.folded import Folded
from perdure.actors.inputs import (
    CompensateExecution,
    Continue,
    Control,
    Input,
    Recover,
    ReportFailure,
    ReportLoss,
    ReportProgress,
    ReportQueued,
    ReportSuccess,
    StartExecution,
    is_command,
)
from perdure.actors.limiting import Limits
from perdure.actors.loading import load
from perdure.actors.log_context import about
from perdure.actors.mailbox import Mailbox
from perdure.actors.outgoing import Outgoing, Post
from perdure.actors.outside import Outside
from perdure.actors.secret_values import Secrets
from perdure.actors.snapshot import EVERY, pack
from perdure.actors.state import ExecutionState, NodeState, Started
from perdure.actors.transcripts import given_to
from perdure.actors.work import Work, Worker, WorkerLost, error_of
from perdure.definitions.paths import body_of
from perdure.definitions.plan import Plan
from perdure.definitions.plan_nodes import PlanNode
from perdure.errors import BelongsElsewhere, Deposed, LogUnavailable, VersionConflict
from perdure.events.entry import Entry, Recorded
from perdure.events.ids import new_id
from perdure.events.log import Log
from perdure.events.snapshots import Snapshots
from perdure.events.subjects import partition_of
from perdure.events.vocabulary import CommandRefused, Event, ExecutionStarted

_log = logging.getLogger("perdure.execution")

_PAUSE, _LONGEST_PAUSE = 0.5, 5.0  # seconds between tries while the log is away

MAX_INPUTS = 256

_NEXT_OWNER = "the next owner of the execution"

_Attempt = tuple[Any, ...]
"""One run of an attempt: a node's path, its attempt, how often that was resumed, and what began anew around it."""


async def _open() -> None:
    """Let everything pass: there is one owner."""


class Stream(Protocol):
    """Where a model's reply is told as it comes."""

    def hear(self, piece: str) -> None:
        """Take a piece of it."""
        ...

    def tell(self, kind: Literal["call", "result"], data: Any) -> None:
        """Tell what a tool that it calls is given, or what that gave."""
        ...

    def close(self) -> None:
        """Tell the rest, and no more."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What an execution acts through. near: timers due within so many seconds stay in this process, now.

    apart: says whether a node's work, whose tool is at this place, and that was resumed so often, runs in a process of
    its own. bring: brings the code at these places to this machine. tell: tells who listens how far an attempt is:
    execution, node, attempt, progress. stream: begins to tell them a model's reply: execution, node, attempt. fence:
    awaited before every effect; it raises Deposed where this is no owner any more. quiet: for how many seconds an
    execution that waits for the outside world is kept at hand. shared: this is a process of many executions, and there
    can be one for a single one. outside: what tools reach things with. limits: those that it takes part in. parked:
    told that all that is at work in an execution waits for limits, or not any more.
    """

    log: Log
    plan: Callable[[str], Awaitable[Plan]]
    work: Worker
    timers: TimerQueue
    epoch: int = 0
    near: Callable[[], float] = lambda: NEAR
    snapshots: Snapshots | None = None
    post: Post | None = None
    apart: Callable[[Plan, PlanNode, str | None, int], bool] = lambda _plan, _node, _place, _resumed: False
    bring: Callable[[Mapping[str, str]], Awaitable[None]] | None = None
    tell: Callable[[str, str, int, Any], None] | None = None
    secrets: Secrets = field(default_factory=Secrets)
    outside: Outside = field(default_factory=Outside)
    fence: Callable[[], Awaitable[None]] = _open
    quiet: Callable[[], float] = lambda: 0.0
    shared: bool = False
    stream: Callable[[str, str, int], Stream] | None = None
    limits: Limits | None = None
    parked: Callable[[str, bool], None] = lambda _execution, _parked: None


class Execution:
    """One execution as a logical actor: tell it inputs, and run it until it ends or has nothing to wait for here.

    new: it is not looked up in the log first, for it seems not to have begun; its first append finds out.
    """

    def __init__(self, execution: str, surroundings: Surroundings, *, new: bool = False) -> None:
        self.id = execution
        self.closed = False
        self._leaving = False
        self._around = surroundings
        self._mailbox = Mailbox()
        self._folded = Folded() if new else None
        self._plan: Plan | None = None
        running: dict[_Attempt, asyncio.Task[None]] = {}
        self._running = running
        self._alarms = Alarms(execution, surroundings.timers, surroundings.near, surroundings.fence, self._mailbox.put)
        self._tail_entries = self._tail_bytes = self._snapshot_bytes = 0
        self._saving: asyncio.Task[None] | None = None
        post = surroundings.post
        self._outgoing = Outgoing(execution, post, self._mailbox.put, surroundings.limits) if post else None
        self._at_limits = AtLimits(lambda: _count(running), lambda on: surroundings.parked(execution, on))

    async def tell(self, given: Input) -> bool:
        """Hand over a command; return when it is decided and recorded, or False when this actor has closed."""
        if self.closed:
            return False
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._mailbox.put(given, decided)
        return await decided

    def hurry(self) -> None:
        """Leave at once when it is quiet: others wait for its place. Its near timers are left to the inbox then."""
        self._mailbox.wake()
        if self._alarms.near and self._mailbox.empty:
            self._mailbox.put(Continue())

    def leave(self) -> None:
        """Begin nothing more, and leave as soon as what is under way has come to its end and is recorded."""
        self._leaving = True
        self._at_limits.leave()
        self._mailbox.put(Continue())

    async def run(self, *first: Input) -> bool:
        """Recover what was under way, then decide inputs and reconcile, until the execution ends or can be left.

        Returns whether there is such an execution: False where it never began. Raises Deposed when a newer owner has
        taken over, BelongsElsewhere when its workflow asks for another process than this, and LogUnavailable when it
        cannot be loaded; what was decided is appended for as long as the log is away.
        """
        waiting: list[asyncio.Future[bool]] = []
        about(execution=self.id, partition=partition_of(self.id))
        try:
            await self._transact([Recover()])
            inputs: list[Input] = list(first)
            while True:
                if not await self._take(inputs):
                    return False  # nothing was decided: were it to begin now, what it was told would be lost
                for decided in waiting:
                    if not decided.done():
                        decided.set_result(True)
                waiting = []
                await self._reconcile()
                if not self._can_be_left():
                    inputs, waiting = await self._drain()
                elif self._outgoing is not None and self._outgoing.busy:
                    inputs, waiting = [], []
                    await self._outgoing.sent()
                elif await self._stays_quiet():
                    return True
                else:
                    inputs, waiting = await self._drain()
        except BaseException as error:
            self._fail_tellers(waiting, error)
            raise
        finally:
            self.closed = True
            self._at_limits.forget()
            self._turn_away(waiting)
            self._stop_all()

    async def _take(self, inputs: list[Input]) -> bool:
        """Decide inputs; say whether there is an execution at all."""
        if inputs:
            await self._transact(inputs)
            self._refuse(inputs)
            self._alarms.hear(inputs)
        if not self._begun() and self._outgoing is not None:
            await self._outgoing.sent()
        return self._begun()

    async def _drain(self) -> tuple[list[Input], list[asyncio.Future[bool]]]:
        """Wait for one input and take those that queue behind it: they are decided together and leave as one entry."""
        taken = await self._mailbox.some(MAX_INPUTS)
        return [given for given, _ in taken], [decided for _, decided in taken if decided]

    async def _stays_quiet(self) -> bool:
        """Wait until it has been quiet for long enough; False when it was spoken to."""
        state = self._folded.state if self._folded else None
        over = not isinstance(state, Started) or state.outcome is not None
        self._mailbox.sleep()
        until = asyncio.get_running_loop().time() + self._around.quiet()
        while self._mailbox.empty and not over and not self._leaving and self._around.quiet():
            try:
                async with asyncio.timeout_at(until):
                    await self._mailbox.woken()
            except TimeoutError:
                break
        return self._mailbox.empty

    def _begun(self) -> bool:
        return self._folded is not None and self._folded.n > 0

    async def _transact(self, inputs: list[Input]) -> None:
        """Load, decide, append as one entry, evolve; when another writer was first, load and decide again.

        This is the only such loop.
        """
        while True:
            folded = self._folded or await self._load()
            at = datetime.now(UTC)
            fresh = _fresh(inputs, folded)
            commands = [given for given in fresh if is_command(given)]
            causes = [command.id for command in commands]
            events, state = await self._decide(folded.state, fresh, at)
            told = isinstance(folded.state, Started) and any(isinstance(command, Control) for command in commands)
            if not events and not told:  # who gave a command waits to see it in the log, even where it was so already
                return
            entry = Entry(new_id(), folded.n + 1, folded.prev, at, events, causes, self._around.epoch)
            try:
                recorded = await self._append(entry, folded.position)
            except VersionConflict:
                self._folded = None
                if not folded.n:  # it was taken for new, and has begun, perhaps as another workflow: recover what it is
                    self._plan = None
                    inputs = [Recover(), *(given for given in inputs if not isinstance(given, Recover))]
            except BaseException:
                self._folded = None  # whether it was appended is unknown: the log knows
                raise
            else:
                self._folded = folded.after(recorded, entry, state)
                if len(events) > MANY:  # it was left off there
                    self._mailbox.put(Continue())
                self._snapshot_when_due(self._folded, len(recorded.data))
                return

    async def _append(self, entry: Entry, position: int) -> Recorded:
        """Append, for as long as it takes: work goes on meanwhile, and the entry's id keeps it from counting twice."""
        pause = _PAUSE
        while True:
            await self._around.fence()
            try:
                return await self._around.log.append(self.id, entry, position)
            except LogUnavailable as error:
                _log.warning("execution %s: %s; tried again in %g s", self.id, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _load(self) -> Folded:
        folded, self._tail_entries = await load(self._around.log, self._around.snapshots, self.id)
        if folded.epoch > self._around.epoch:
            raise Deposed(f"execution {self.id!r} is owned by epoch {folded.epoch}, this is {self._around.epoch}")
        self._folded = folded
        if isinstance(folded.state, Started):
            self._alarms.remember(folded.state.timers)
        return folded

    def _snapshot_when_due(self, folded: Folded, size: int) -> None:
        """Save the state beside the hot path, once the entries since the last time are many, and weigh a third of it.

        Entries that a load had to fold count too: after a long load the next append saves what it was worth.
        """
        self._tail_entries += 1
        self._tail_bytes += size
        if self._around.snapshots is None or self._tail_entries < EVERY or 3 * self._tail_bytes < self._snapshot_bytes:
            return
        data = pack(folded)
        if data is None or (self._saving is not None and not self._saving.done()):
            return
        self._tail_entries, self._tail_bytes, self._snapshot_bytes = 0, 0, len(data)
        self._saving = asyncio.create_task(self._save(self._around.snapshots, data))

    async def _save(self, snapshots: Snapshots, data: bytes) -> None:
        try:
            await snapshots.save(self.id, data)
        except LogUnavailable as error:
            _log.warning("execution %s: %s; the next one will do", self.id, error)

    async def _decide(self, state: ExecutionState, inputs: list[Input], at: datetime) -> Decision:
        events: list[Event] = []
        for given in inputs:
            plan = await self._plan_for(state, given)
            if plan is None:
                continue  # nothing was ever started under this id, so there is nothing to recover
            if isinstance(given, Recover) and isinstance(state, Started):
                given = Recover(self._apart(state, plan))
            following, state = self._decided(plan, state, given, at)
            events += following
        return events, state

    def _decided(self, plan: Plan, state: ExecutionState, given: Input, at: datetime) -> Decision:
        """Decide; a command that no decision can be made of is refused, for it would come back for ever."""
        try:
            return decide(plan, self.id, state, given, at)
        except Exception as error:
            if not isinstance(given, Control):
                raise
            _log.exception("execution %s: the command %r cannot be decided, and is refused", self.id, given)
            return [CommandRefused(given.id, f"a fault in perdure: {type(error).__name__}: {error}")], state

    def _apart(self, state: Started, plan: Plan) -> frozenset[str]:
        nodes = {path: (plan.node(path), known.resumed) for path, known in state.running.items()}
        places, apart = state.started.tools, self._around.apart
        return frozenset(
            path for path, (node, resumed) in nodes.items() if apart(plan, node, places.get(node.target), resumed)
        )

    async def _plan_for(self, state: ExecutionState, given: Input) -> Plan | None:
        if self._plan is None:
            begun = state.started if isinstance(state, Started) else given
            if not isinstance(begun, StartExecution | ExecutionStarted):
                return None
            self._plan = await self._around.plan(begun.digest)
            if self._plan.apart and self._around.shared:
                raise BelongsElsewhere(f"execution {self.id!r} has a process of its own")
            if self._around.bring is not None:
                await self._around.bring(begun.tools)
        return self._plan

    async def _reconcile(self) -> None:
        """Start what should be running and is not, stop what is and should not: work and timers alike."""
        state = self._folded.state if self._folded else None
        wanted: dict[_Attempt, NodeState] = {}
        timers: dict[str, datetime] = {}
        if isinstance(state, Started) and state.outcome is None:
            wanted = {
                (name, node.attempt, node.resumed, state.retries, state.tries_around(name)): node
                for name, node in state.running.items()
            }
            timers = dict(state.timers.items())
        for key in self._running.keys() - wanted.keys():
            self._running.pop(key).cancel()
        new = wanted.keys() - self._running.keys()
        if self._leaving:
            for name, attempt, *_ in (key for key in new if not wanted[key].waits_for):
                self._mailbox.put(ReportQueued(name, attempt, _NEXT_OWNER))
            new = set()
        if new:
            await self._around.fence()
        for key in new:
            self._running[key] = asyncio.create_task(self._work(key[0], wanted[key]), name=self._called(key[0]))
        self._at_limits.look()
        if self._outgoing is not None and isinstance(state, Started) and self._plan is not None:
            self._outgoing.reconcile(state, self._plan)
        await self._alarms.reconcile(state.started.lane if isinstance(state, Started) else "", timers)

    def _called(self, path: str) -> str:
        """Return the name of a node's task, which people read when it blocks the loop."""
        node = self._plan.node(path) if self._plan is not None else None
        return f"{node.calls} {node.target!r} (node {path!r} of execution {self.id!r})" if node is not None else path

    def _refuse(self, inputs: list[Input]) -> None:
        """Tell a parent whose child cannot begin, for its id is taken, or cannot be undone; each time that it asks."""
        folded, outgoing = self._folded, self._outgoing
        if folded is None or outgoing is None:
            return
        for given in inputs:
            if isinstance(given, StartExecution) and given.parent is not None:
                if not isinstance(folded.state, Started) or folded.state.started.parent != given.parent:
                    outgoing.refuse(given.id, given.parent)
            elif isinstance(given, CompensateExecution) and (why := refusal(self.id, folded.state, given)):
                outgoing.cannot_compensate(given, why)

    async def _work(self, name: str, state: NodeState) -> None:
        """Do one attempt and report how it went; a cancelled one reports nothing."""
        folded, plan, attempt, secrets = self._folded, self._plan, state.attempt, self._around.secrets
        assert folded is not None  # noqa: S101 (reconcile runs on a loaded state)
        assert plan is not None  # noqa: S101
        assert isinstance(folded.state, Started)  # noqa: S101
        node = plan.node(name)
        report: Input
        about(node=name, attempt=attempt)
        try:
            places = folded.state.started.tools
            value = given_to(folded.state, plan, name, state, secrets.reveal)
            undone, deadline = folded.state.undone.get(name, 0), folded.state.timers.get(f"deadline/{name}")
            work = Work(
                self.id, name, node, attempt, value, plan, places.get(node.target), undone, deadline, places,
                state.resumed, state.waits_for, self._queued(name, attempt), self._progress(name, attempt),
                self._around.outside,
                **limited_parts(self.id, folded.state, plan, name, node, state, self._at_limits),
            )  # fmt: skip
            result, usage = parted(await self._told(work))
            report = ReportSuccess(name, attempt, secrets.redact(result), usage)
        except WorkerLost as error:
            report = ReportLoss(name, attempt, secrets.redact(str(error)))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_stopped():
                raise
            report = ReportFailure(name, attempt, error_of(error, secrets.redact))  # a tool may raise anything
        if not _is_stopped():  # else a tool swallowed it, and what it says may be taken for another run's
            self._mailbox.put(report)

    async def _told(self, work: Work) -> Any:
        """Do the work; what a model says meanwhile, and the calls that it asks for, are told to who listens."""
        called = work.node.called is not None and work.node.calls == "tool"
        if self._around.stream is None or not (called or work.node.calls in ("agent", "model")):
            return await self._around.work(work)
        stream = self._around.stream(self.id, work.path, work.attempt)
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
        return lambda waits_for: self._mailbox.put(ReportQueued(name, attempt, waits_for))

    def _progress(self, name: str, attempt: int) -> Callable[[Any], None]:
        """Return what is told how far an attempt is, from any thread."""
        tell, redact, loop = self._around.tell, self._around.secrets.redact, asyncio.get_running_loop()
        of_chart = self._plan is not None and self._plan.body(body_of(name)).calls

        def told(progress: Any) -> None:
            progress = redact(progress)
            if tell is not None:
                tell(self.id, name, attempt, progress)
            if of_chart:
                loop.call_soon_threadsafe(self._mailbox.put, ReportProgress(name, attempt, progress))

        return told

    def _can_be_left(self) -> bool:
        """Say whether nothing can happen here before the outside world speaks."""
        return self._mailbox.empty and not _count(self._running) and (self._leaving or not self._alarms.near)

    def _stop_all(self) -> None:
        for task in self._running.values():
            task.cancel()
        self._alarms.stop()
        if self._outgoing is not None:
            self._outgoing.stop()

    def _turn_away(self, waiting: list[asyncio.Future[bool]]) -> None:
        """Tell those who still wait that nothing was decided here."""
        waiting += [decided for _, decided in self._mailbox.rest() if decided]
        for decided in waiting:
            if not decided.done():
                decided.set_result(False)

    def _fail_tellers(self, waiting: list[asyncio.Future[bool]], error: BaseException) -> None:
        waiting += [decided for _, decided in self._mailbox.rest() if decided]
        for decided in waiting:
            if not decided.done():
                decided.set_exception(error)


def _count(running: Mapping[_Attempt, asyncio.Task[None]]) -> int:
    return sum(not task.done() for task in running.values())


def _fresh(inputs: list[Input], folded: Folded) -> list[Input]:
    """Return the inputs without commands that are answered already, or that come twice among these."""
    fresh: list[Input] = []
    seen: set[str] = set()
    for given in inputs:
        if is_command(given):
            if given.id in seen or folded.knows(given.id):
                continue
            seen.add(given.id)
        fresh.append(given)
    return fresh


def _is_stopped() -> bool:
    """Say whether it is we who stop the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

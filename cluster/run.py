"""The handle of one execution: what it answers is read from the log, what it is told goes through the inbox."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import UnionType
from typing import Any, Literal
from uuid import uuid4

import msgspec
from msgspec import UNSET
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from perdure.actors.charts import NEVER
from perdure.actors.folded import Folded
from perdure.actors.fork_fold import with_past
from perdure.actors.inputs import (
    CancelExecution,
    ChangeInput,
    CompleteNode,
    Control,
    DecideApproval,
    ExtendDeadline,
    PauseExecution,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    StartExecution,
    TerminateExecution,
)
from perdure.actors.listeners import accepted
from perdure.actors.loading import load as load_execution
from perdure.actors.said import said_in
from perdure.actors.state import Started
from perdure.actors.state import Status as StateStatus
from perdure.actors.transcripts import Said
from perdure.cluster.chart_waits import wait_for_state
from perdure.cluster.connection import Connection
from perdure.cluster.history import At, History
from perdure.cluster.hosting import is_driven
from perdure.cluster.listening import Heard, listen
from perdure.cluster.progress import NodeProgress, progress_subject
from perdure.cluster.settings import Settings
from perdure.cluster.users import user_of
from perdure.definitions.json_values import to_json_value
from perdure.definitions.loading import WorkflowLike
from perdure.errors import (
    BadInput,
    CommandNotAllowed,
    CorruptEntry,
    ExecutionExists,
    ExecutionFailed,
    ExecutionNotFound,
    ExecutionStopped,
    StateNotReached,
    WaitTimeout,
)
from perdure.events.blobs import tells_of_execution
from perdure.events.entry import Happened, Recorded
from perdure.events.vocabulary import (
    CommandRefused,
    EventIgnored,
    ExecutionCancelled,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionPurged,
    ExecutionRetried,
    ExecutionStarted,
    ExecutionSucceeded,
    ExecutionTerminated,
    Outcome,
)
from perdure.events.vocabulary import ExecutionFailed as Failed

Status = Literal["queued"] | StateStatus

ENDED: tuple[Status, ...] = ("succeeded", "failed", "cancelled", "terminated", "compensated")

CONFIRM_SECONDS = 2.0

_log = logging.getLogger("perdure.client")


class AsyncRun:
    """The handle of one execution: everything that it answers is read from the log."""

    __slots__ = ("__weakref__", "_connection", "_known", "_lane", "_settings", "id")

    def __init__(
        self, execution: str, connection: Connection, settings: Settings | None = None, lane: str | None = None
    ) -> None:
        self.id = execution
        self._connection = connection
        self._settings = settings
        self._lane = lane
        self._known: Folded | None = None

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, at most `timeout` seconds, and return the output.

        Raises ExecutionFailed with node, attempt and error, ExecutionStopped where it was cancelled, terminated or
        compensated, or WaitTimeout (the execution goes on).
        """
        outcome: Outcome | None = None
        try:
            async with asyncio.timeout(timeout):
                async for happened in self._until_end(0, tells_of_execution):
                    if isinstance(happened.event, Outcome):
                        outcome = happened.event  # the last one counts: it may have been retried since
        except TimeoutError:
            how = "not begun" if await self.status() == "queued" else "not ended"
            raise WaitTimeout(f"execution {self.id!r} has {how} within {timeout:g} s; it goes on by itself") from None
        assert outcome is not None  # noqa: S101 (events end with one)
        return self._output(outcome)

    def events(self, after: int = 0) -> AsyncGenerator[Happened, None]:
        """Yield the events behind the log position `after`, then new ones as they come, up to the end it came to."""
        return self._until_end(after, lambda _: True)

    async def _until_end(self, after: int, wanted: Callable[[Recorded], bool]) -> AsyncGenerator[Happened, None]:
        goes_on: type | UnionType = Failed | ExecutionSucceeded | ExecutionCompensated
        look = self._known is not None  # it has been at work for a while, and may well have ended
        async with aclosing(self._connection.log.follow(self.id, after, look=look)) as entries:  # type: ignore[type-var]
            async for recorded in entries:
                for happened in _readable(recorded) if wanted(recorded) else ():
                    yield happened
                    event = happened.event
                    if isinstance(event, ExecutionStarted) and event.parent is None:
                        goes_on = Failed  # nobody undoes it but a parent, so there is nothing to look for
                    if isinstance(event, Outcome) and not (
                        isinstance(event, goes_on) and await self._went_on(recorded.position)
                    ):
                        return

    async def progress(self) -> AsyncIterator[NodeProgress]:
        """Yield what tools tell of their progress from now on, live, up to the end of the execution.

        It is recorded nowhere: who comes later does not see it.
        """
        told: asyncio.Queue[NodeProgress | None] = asyncio.Queue()

        async def take(message: Msg) -> None:
            told.put_nowait(msgspec.json.decode(message.data, type=NodeProgress))

        async def until_end() -> None:
            async for _ in self.events():
                pass
            told.put_nowait(None)

        listening = await self._connection.nats.subscribe(progress_subject(self.id), cb=take)
        ending = asyncio.create_task(until_end())
        try:
            while (progress := await told.get()) is not None:
                yield progress
        finally:
            ending.cancel()
            with contextlib.suppress(NatsError, OSError):
                await listening.unsubscribe()

    def stream(self, node: str = "") -> AsyncIterator[Heard]:
        """Yield what its models say, and its calls of tools, as they come, up to the end of the execution.

        Of a reply that is under way all that was said so far comes first. It is recorded nowhere.
        node: hear only this node, and those within it.
        """
        return listen(self._connection, self, self._now, node)

    async def transcript(self, node: str) -> list[Said]:
        """Return what was said at an agent's node (its path), as far as it is recorded; after a failure too."""
        events = (each.event for recorded in await self.history() for each in _readable(recorded))
        return said_in(with_past(events), node)

    async def state(self) -> Started:
        """Return the state as of now, folded from the log. Raises ExecutionNotFound."""
        return (await self._now())[0]

    async def status(self) -> Status:
        """Return its status in one word; `queued` where it has not begun."""
        try:
            return (await self.state()).status
        except ExecutionNotFound:
            return "queued"

    async def is_driven(self) -> bool:
        """Say whether a host that answers serves this execution; else it goes on when one does."""
        return await is_driven(self._connection, self.id)

    def history(self) -> History:
        """Return its past: awaited, all entries so far; `await run.history().at(17)` is the state after entry 17."""
        return History(self.id, self._connection)

    async def fork(
        self, *, at: At | None = None, from_: str | Sequence[str] = (), input: Any = UNSET,
        workflow: WorkflowLike | None = None, model: str | None = None, id: str | None = None,
    ) -> "AsyncRun":  # fmt: skip
        """Begin a new execution with the past of this one, up to a place, and let it go on from there.

        at: an entry's number, or a time; all of the past where none is given. from_: nodes that begin anew, with all
        that depends on them. input, workflow (with its input schema and tools), model (of all agents): what is to be
        another; a registered one goes by its name. What was done is reused, as docs/time_travel.md says. id: the same
        one again, asked for in the same way, is the same fork.
        Raises BadInput, DefinitionError, WorkflowNotFound, WorkflowDeprecated, ExecutionNotFound or ExecutionExists.
        """
        from perdure.cluster.forks import Asked, forked

        nodes = (from_,) if isinstance(from_, str) else tuple(from_)
        asked, settings = Asked(at, nodes, input, workflow, model), self._settings or Settings()
        new = await forked(self._connection, settings, self.id, asked, id, self._lane)
        return AsyncRun(new, self._connection, self._settings, self._lane)

    async def begun(self, within: float = 0) -> ExecutionStarted | None:
        """Return the event that it began with, waiting so many seconds for it; None where it has not begun.

        Raises ExecutionExists when the id was purged.
        """
        first: Recorded | None = None
        if within:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within), aclosing(self._connection.log.follow(self.id)) as entries:  # type: ignore[type-var]
                    first = await anext(entries)
        else:
            first = next(iter([recorded async for recorded in self._connection.log.read(self.id, limit=1)]), None)
        event = first.entry.events[0] if first else None
        if isinstance(event, ExecutionPurged):
            raise ExecutionExists(f"the execution id {self.id!r} was used before, and purged; choose another id")
        return event if isinstance(event, ExecutionStarted) else None

    async def attaches(self, command: StartExecution, within: float = 0) -> bool:
        """Say whether the execution has begun as this start asks, waiting so many seconds for it to begin.

        Raises ExecutionExists when it began with another definition or input.
        """
        started = await self.begun(within)
        if started is None:
            return False
        if (started.digest, started.input) != (command.digest, command.input):
            what = "definition" if started.digest != command.digest else "input"
            raise ExecutionExists(
                f"the execution id {self.id!r} is taken: it was started with another {what}; choose another id"
            )
        return True

    async def accepts(self) -> list[str]:
        """Return the events and signals that it waits for now: names, or descriptors such as `order.*`."""
        state = await self.state()
        plan = await self._connection.registry.plan(state.started.digest)
        return accepted(plan, state) if state.outcome is None else []

    async def wait_for(self, state: str, timeout: float | None = None) -> None:
        """Wait until a state of its statechart is active, at most `timeout` seconds; it may be active already.

        state: a name or a path. Raises BadInput where there is no such state, WaitTimeout, and when the execution ends
        elsewhere StateNotReached, ExecutionFailed or ExecutionStopped.
        """
        try:
            async with asyncio.timeout(timeout):
                await wait_for_state(self._connection, self.id, state)
        except TimeoutError:
            raise WaitTimeout(f"execution {self.id!r} was not in state {state!r} within {timeout:g} s") from None
        except StateNotReached:
            await self.result()  # says it where it failed, or was stopped
            raise

    async def signal(self, name: str, data: Any = None) -> bool:
        """Give it a signal: the node that has waited for it longest goes on, or the next that will.

        data: JSON data. Raises as all commands do: CommandNotAllowed with the reason where it is refused,
        ExecutionNotFound. All return whether that is recorded; False where no host has taken the command within 2 s: it
        is safe in the inbox, and counts when one serves the execution.
        """
        return await self._tell(SignalExecution(uuid4().hex, self.id, name, _json(data)))

    send = signal

    async def approve(self, node: str, *, by: str = "", data: Any = None) -> bool:
        """Approve what the approval at `node` (a path such as `check[3]/approve`) asks.

        by: who decides, which is recorded; the user of this process where it is not said.
        """
        return await self._tell(
            DecideApproval(uuid4().hex, self.id, node, approved=True, by=self._who(by), data=_json(data))
        )

    async def reject(self, node: str, *, by: str = "", data: Any = None) -> bool:
        """Reject what the approval at `node` asks."""
        return await self._tell(
            DecideApproval(uuid4().hex, self.id, node, approved=False, by=self._who(by), data=_json(data))
        )

    async def pause(self, reason: str = "", *, by: str = "") -> bool:
        """Let nothing new start; what runs goes on to its end and is recorded."""
        return await self._tell(PauseExecution(uuid4().hex, self.id, reason, by))

    async def resume(self, *, by: str = "") -> bool:
        """Let it go on after a pause; timers that came due meanwhile count now."""
        return await self._tell(ResumeExecution(uuid4().hex, self.id, by))

    async def cancel(self, reason: str = "", *, by: str = "") -> bool:
        """Stop what runs, compensate what is completed, run `on_cancel` and `finally`, and end."""
        return await self._tell(CancelExecution(uuid4().hex, self.id, reason, by))

    async def terminate(self, reason: str = "", *, by: str = "") -> bool:
        """End it at once; nothing is compensated."""
        return await self._tell(TerminateExecution(uuid4().hex, self.id, reason, by))

    async def retry(self, reason: str = "", *, by: str = "") -> bool:
        """Let it go on from what failed; what succeeded, and was not compensated, stays as it is."""
        return await self._tell(RetryExecution(uuid4().hex, self.id, reason, by))

    async def skip_node(self, node: str, reason: str = "", *, by: str = "") -> bool:
        """Settle a node as skipped, whether it has begun or not."""
        return await self._tell(SkipNode(uuid4().hex, self.id, node, reason, by))

    async def complete_node(self, node: str, output: Any = None, reason: str = "", *, by: str = "") -> bool:
        """Settle a node by hand, with this output."""
        return await self._tell(CompleteNode(uuid4().hex, self.id, node, _json(output), reason, by))

    async def change_input(self, node: str, value: Any, reason: str = "", *, by: str = "") -> bool:
        """Give a node that has not begun another input."""
        return await self._tell(ChangeInput(uuid4().hex, self.id, node, _json(value), reason, by))

    async def extend_deadline(self, seconds: float, node: str = "", reason: str = "", *, by: str = "") -> bool:
        """Move a node's deadline, or the timeout of the execution where none is named, by so many seconds."""
        return await self._tell(ExtendDeadline(uuid4().hex, self.id, node, seconds, reason, by))

    async def _went_on(self, after: int) -> bool:
        """Say whether an execution that had failed was retried since, or one that had succeeded is undone."""
        async for recorded in self._connection.log.read(self.id, after):
            if any(isinstance(each.event, ExecutionRetried | ExecutionCompensating) for each in _readable(recorded)):
                return True
        return False

    async def _now(self) -> tuple[Started, int]:
        """Return the state as of now and its place in the log; what was read before is not read again."""
        folded = self._known
        if folded is None:
            folded, _ = await load_execution(self._connection.log, self._connection.snapshots, self.id)
        else:
            async for recorded in self._connection.log.read(self.id, folded.position):
                folded = folded.after(recorded)
        if not isinstance(folded.state, Started):
            raise ExecutionNotFound(f"there is no execution {self.id!r} in this store")
        self._known = folded
        return folded.state, folded.position

    async def tell(self, command: Control) -> bool:
        """Give it a command with an id of yours, which counts once however often it is given; else as all commands."""
        with contextlib.suppress(ExecutionNotFound):
            await self._now()
        if self._known is not None and self._known.knows(command.id):
            return True
        return await self._tell(command, again=True)

    def _who(self, by: str) -> str:
        """Return who decides; raise BadInput where that is no name."""
        if not isinstance(by, str) or len(by) > 200 or not (by.isprintable() or not by):
            raise BadInput(f"by={str(by)[:50]!r}: who decides is said in at most 200 printable characters")
        return by or (user_of(self._settings) if self._settings is not None else "")

    async def _tell(self, command: Control, *, again: bool = False) -> bool:
        """Give it a command. again: another one may give it at the same time, and have it answered before we listen."""
        try:
            state, position = await self._now()
        except ExecutionNotFound:
            queued = await self._connection.inbox.queued_start(self.id)
            if queued is not None:
                return await self._sent(command, queued.lane, 0, again=again)
            state, position = await self._now()  # it may have begun, and been left, between the two looks
        status = state.status
        if (type(command), status) in ((CancelExecution, "cancelled"), (TerminateExecution, "terminated")):
            return True  # it has the end that is asked for
        if state.outcome is not None and not (isinstance(command, RetryExecution) and status == "failed"):
            raise CommandNotAllowed(f"execution {self.id!r} has ended: it is {status}")
        return await self._sent(command, state.started.lane, position, again=again)

    async def _sent(self, command: Control, lane: str, position: int, *, again: bool) -> bool:
        async def send() -> bool:
            await self._connection.inbox.send(command, lane)
            limit.reschedule(asyncio.get_running_loop().time() + CONFIRM_SECONDS)
            return again

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await self._recorded(command.id, position, send)
                return True
        return False

    async def _recorded(self, command: str, after: int, send: Callable[[], Awaitable[bool]]) -> None:
        """Send a command and wait for the entry that answers it; raise CommandNotAllowed where it is refused."""
        async with aclosing(self._connection.log.follow(self.id, after, listening=send)) as entries:  # type: ignore[type-var]
            async for recorded in entries:
                entry = recorded.entry
                for event in entry.events:
                    if isinstance(event, CommandRefused) and event.command == command:
                        raise CommandNotAllowed(f"execution {self.id!r}: {event.reason}")
                    if isinstance(event, EventIgnored) and event.reason == NEVER and command in entry.causes:
                        _log.warning("execution %s: event %r is recorded, but %s", self.id, event.event, NEVER)
                if command in entry.causes:
                    return

    def _output(self, outcome: Outcome) -> Any:
        match outcome:
            case ExecutionSucceeded(output):
                return output
            case Failed(error, node, attempt):
                told = {"type": error.type, "message": error.message, "data": error.data}
                raise ExecutionFailed(self.id, node, attempt, told)
            case ExecutionCancelled(reason):
                raise ExecutionStopped(self.id, "cancelled", reason)
            case ExecutionTerminated(reason):
                raise ExecutionStopped(self.id, "terminated", reason)
            case ExecutionCompensated(error):
                raise ExecutionStopped(
                    self.id, "compensated", error.message if error else "it was undone with its parent"
                )


def _json(data: Any) -> Any:
    try:
        return to_json_value(data)
    except ValueError as error:
        raise BadInput(f"the data cannot be sent: {error}") from None


def _readable(recorded: Recorded) -> list[Happened]:
    """Return an entry's events; none, with a warning, where a newer release wrote what this one cannot read."""
    try:
        return recorded.unpack()
    except CorruptEntry as error:
        _log.warning("left out: %s", error)
        return []

"""The asynchronous client: opens or joins what it needs, starts executions, and follows them through the log."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

from perdure.actors.inputs import StartExecution
from perdure.actors.loading import load as load_execution
from perdure.actors.state import Started
from perdure.cluster.checks import check_id, checked
from perdure.cluster.connection import Connection
from perdure.cluster.hosting import is_driven
from perdure.cluster.inbox import SOLO, lane_of
from perdure.cluster.opening import Mode, open_store
from perdure.cluster.references import is_reference
from perdure.cluster.settings import Settings
from perdure.definitions.loading import Definition, WorkflowLike, load
from perdure.errors import CorruptEntry, ExecutionExists, ExecutionFailed, ExecutionNotFound, WaitTimeout
from perdure.events.entry import Happened, Recorded
from perdure.events.vocabulary import ExecutionFailed as Failed
from perdure.events.vocabulary import ExecutionPurged, ExecutionStarted, ExecutionSucceeded

if TYPE_CHECKING:
    from perdure.cluster.workflows import Workflows

Status = Literal["queued", "running", "paused", "cancelling", "succeeded", "failed", "cancelled", "terminated"]

_log = logging.getLogger("perdure.client")

CONFIRM_SECONDS = 2.0
_STARTS_IN_FLIGHT = 256


async def connect_async(settings: Settings | None = None, *, local: bool = False) -> "AsyncClient":
    """Open a client: the NATS server and Ray that the settings name, else embedded ones, started in parallel.

    local: run executions in this process, without Ray. Hosts that already serve this store are used as they are.
    Raises EnvironmentProblem when something cannot be reached or started.
    """
    return await AsyncClient.open(settings or Settings(), "local" if local else "ray")


class AsyncClient:
    """A client of one store. Use it as an async context manager, or call `close`."""

    def __init__(
        self, settings: Settings, connection: Connection, closing: AsyncExitStack, lane: str | None = None
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._closing = closing
        self._lane = lane
        self._projections_file = settings.store.absolute() / "projections.sqlite"

    @classmethod
    async def open(cls, settings: Settings, mode: Mode, drive: str | None = None) -> "AsyncClient":
        """Open a client whose hosts run on Ray, in this process, or nowhere (to look and to submit only).

        drive: the id of the one execution that this client's host serves; by default hosts serve all lanes.
        """
        opened = await open_store(settings, mode, drive)
        return cls(opened.settings, opened.connection, opened.closing, SOLO if drive else None)

    @cached_property
    def workflows(self) -> "Workflows":
        """The workflows that are registered in this store under their names."""
        from perdure.cluster.workflows import Workflows

        workflows = Workflows(self._settings, self._connection)
        self._closing.push_async_callback(workflows.close)
        return workflows

    async def start(
        self,
        workflow: WorkflowLike,
        input: Any = None,
        *,
        id: str | None = None,
        priority: int = 5,
        confirm: bool = True,
    ) -> "AsyncRun":
        """Start an execution and return its handle.

        workflow: a path, YAML or JSON text, a dict, a Workflow, or the name of a registered one: `order`, `order@3`,
        `order@sha256:...`. input: JSON data. id: makes the start idempotent: the same id with the same definition and
        input attaches. confirm: wait up to 2 s until the start is recorded.
        Raises DefinitionError, BadInput, ToolNotFound, ModelUnavailable, ExecutionExists, WorkflowNotFound or
        WorkflowDeprecated.
        """
        definition = await self.definition_of(workflow, id)
        run = AsyncRun(uuid4().hex if id is None else id, self._connection)
        command = self._command(definition, input, run.id, priority)
        if id is not None and await run.attaches(command):
            return run
        await self._connection.registry.put_definition(command.digest, definition.workflow)
        await self._connection.inbox.start(command)
        if confirm and not await run.attaches(command, within=CONFIRM_SECONDS):
            return run  # queued: every host is busy or away, and the start is safe in the inbox
        return run

    async def start_many(self, workflow: WorkflowLike, inputs: Iterable[Any], *, priority: int = 5) -> "list[AsyncRun]":
        """Queue one execution per input, all at once, and return their handles in the same order."""
        definition = await self.definition_of(workflow, None)
        commands = [self._command(definition, value, uuid4().hex, priority) for value in inputs]
        await self._connection.registry.put_definition(definition.plan.digest, definition.workflow)
        window = asyncio.Semaphore(_STARTS_IN_FLIGHT)

        async def start(command: StartExecution) -> None:
            async with window:
                await self._connection.inbox.start(command)

        await asyncio.gather(*map(start, commands))
        return [AsyncRun(command.execution, self._connection) for command in commands]

    async def definition_of(self, workflow: WorkflowLike, id: str | None = None) -> Definition:
        """Return the definition that a start means; an execution that has begun under this id stays with its version.

        Raises DefinitionError, BadInput, WorkflowNotFound or WorkflowDeprecated.
        """
        if not is_reference(workflow):
            return load(workflow)
        if id is not None:
            check_id(id)
        begun = None if id is None else await AsyncRun(id, self._connection).begun()
        return await self.workflows.resolve(str(workflow), begun.digest if begun else None)

    async def executions(
        self, status: Literal["running", "succeeded", "failed"] | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return the newest executions of the store: rows of the `executions` read model, brought up to date first."""
        from perdure.projections.runner import Projections

        projections = Projections(self._projections_file)
        try:
            await projections.catch_up(self._connection.log)
            return await projections.executions(status, limit)
        finally:
            projections.close()

    async def purge(
        self, older_than: float, statuses: Iterable[str] = ("succeeded", "failed"), *, dry_run: bool = False
    ) -> list[str]:
        """Remove the past of executions that ended more than `older_than` seconds ago; return their ids.

        Purges that were broken off earlier are finished first. dry_run: only return what would be purged.
        """
        from perdure.cluster.retention import purge_ended

        return await purge_ended(self._connection, self._projections_file, older_than, statuses, dry_run=dry_run)

    def export(self, execution: str) -> AsyncIterator[str]:
        """Yield an execution's whole history as lines of a file; see `import_history`. Raises ExecutionNotFound."""
        from perdure.cluster.history_file import export

        return export(self._connection, execution)

    async def import_history(self, lines: Iterable[str]) -> str:
        """Take in a history that `export` wrote, verified whole before anything is stored; return the execution's id.

        An execution that had not ended goes on here. Raises BadInput or ExecutionExists.
        """
        from perdure.cluster.history_file import import_

        return await import_(self._connection, lines)

    def get(self, execution: str) -> "AsyncRun":
        """Return the handle of an execution that was started earlier, here or elsewhere."""
        return AsyncRun(execution, self._connection)

    def _command(self, definition: Definition, value: Any, execution: str, priority: int) -> StartExecution:
        value, places = checked(self._settings, definition, value, execution, priority)
        plan, lane = definition.plan, self._lane or lane_of(execution)
        return StartExecution(uuid4().hex, execution, plan.name, plan.digest, value, lane, places, priority)

    async def close(self) -> None:
        """Stop this client's hosts and whatever was started for it; executions go on when a host serves them again."""
        await self._closing.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncRun:
    """The handle of one execution: everything that it answers is read from the log."""

    def __init__(self, execution: str, connection: Connection) -> None:
        self.id = execution
        self._connection = connection

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, at most `timeout` seconds, and return the output.

        Raises ExecutionFailed with node, attempt and error, or WaitTimeout (the execution goes on).
        """
        try:
            async with asyncio.timeout(timeout):
                async for happened in self.events():
                    outcome = happened.event
                    if isinstance(outcome, ExecutionSucceeded):
                        return outcome.output
                    if isinstance(outcome, Failed):
                        error = {
                            "type": outcome.error.type,
                            "message": outcome.error.message,
                            "data": outcome.error.data,
                        }
                        raise ExecutionFailed(self.id, outcome.node, outcome.attempt, error)
        except TimeoutError:
            how = "not begun" if await self.status() == "queued" else "not ended"
            raise WaitTimeout(f"execution {self.id!r} has {how} within {timeout:g} s; it goes on by itself") from None
        raise AssertionError("a log is followed without end")

    async def events(self, after: int = 0) -> AsyncIterator[Happened]:
        """Yield the events behind the log position `after`, then new ones as they come, up to the last one."""
        async with aclosing(self._connection.log.follow(self.id, after)) as entries:  # type: ignore[type-var]
            async for recorded in entries:
                for happened in _readable(recorded):
                    yield happened
                    if isinstance(happened.event, ExecutionSucceeded | Failed):
                        return

    async def state(self) -> Started:
        """Return the state as of now, folded from the log. Raises ExecutionNotFound."""
        folded, _ = await load_execution(self._connection.log, self._connection.snapshots, self.id)
        if not isinstance(folded.state, Started):
            raise ExecutionNotFound(f"there is no execution {self.id!r} in this store (a queued one has not begun yet)")
        return folded.state

    async def status(self) -> Status:
        """Return `queued`, `running`, `succeeded` or `failed`."""
        try:
            return (await self.state()).status
        except ExecutionNotFound:
            return "queued"

    async def is_driven(self) -> bool:
        """Say whether a host that answers serves this execution; else it goes on when one does."""
        return await is_driven(self._connection, self.id)

    async def history(self) -> list[Recorded]:
        """Return all entries so far."""
        return [recorded async for recorded in self._connection.log.read(self.id)]

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


def _readable(recorded: Recorded) -> list[Happened]:
    """Return an entry's events; none, with a warning, where a newer release wrote what this one cannot read."""
    try:
        return recorded.unpack()
    except CorruptEntry as error:
        _log.warning("left out: %s", error)
        return []

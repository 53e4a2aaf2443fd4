"""The asynchronous client: opens or joins what it needs, starts executions, and follows them through the log."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal, Self
from uuid import uuid4

from perdure.actors.inputs import StartExecution
from perdure.actors.state import Folded, Started
from perdure.actors.work import call_in_thread
from perdure.cluster.checks import checked
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.host import Host
from perdure.cluster.inbox import SOLO, Lanes, is_alive, lane_of
from perdure.cluster.nats_server import NatsServer, nats_server
from perdure.cluster.ray_cluster import RayCluster
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import keep_serving, open_host
from perdure.definitions.loading import Definition, WorkflowLike, load
from perdure.errors import (
    EnvironmentProblem,
    ExecutionExists,
    ExecutionFailed,
    ExecutionNotFound,
    WaitTimeout,
)
from perdure.events.entry import Happened, Recorded
from perdure.events.vocabulary import ExecutionFailed as Failed
from perdure.events.vocabulary import ExecutionStarted, ExecutionSucceeded

Status = Literal["queued", "running", "succeeded", "failed"]

CONFIRM_SECONDS = 2.0


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

    @classmethod
    async def open(
        cls, settings: Settings, mode: Literal["ray", "local", "none"], drive: str | None = None
    ) -> "AsyncClient":
        """Open a client whose hosts run on Ray, in this process, or nowhere (to look and to submit only).

        drive: the id of the one execution that this client's host serves; by default hosts serve all lanes.
        """
        if settings.ray_address and not settings.nats_url and mode == "ray":
            raise EnvironmentProblem(
                "a running Ray cluster cannot reach an embedded NATS server; set PERDURE_NATS_URL to a server that "
                "it can reach, or unset RAY_ADDRESS to start a local Ray"
            )
        async with AsyncExitStack() as closing:
            ray = RayCluster(settings) if mode == "ray" else None
            opening = asyncio.create_task(ray.open()) if ray else None
            try:
                server = await asyncio.to_thread(nats_server, settings)
                closing.callback(server.close)
                connection = await open_connection(server.url, server.token, settings.log_timeout, settings.replicas)
                closing.push_async_callback(connection.close)
                if opening:
                    await opening
            except BaseException:
                if opening:
                    opening.cancel()
                raise
            if ray:
                closing.push_async_callback(ray.close)
            reached = _reached(settings, server)
            lanes = await _lanes(connection, settings, drive) if mode != "none" else {}
            if ray and lanes:
                await ray.start_hosts(lanes, reached)
            elif lanes:
                closing.push_async_callback(_stop, await _serve_here(lanes, connection, reached))
            return cls(settings, connection, closing.pop_all(), SOLO if drive else None)

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

        workflow: a path, YAML or JSON text, a dict, or a Workflow. input: JSON data. id: makes the start idempotent:
        the same id with the same definition and input attaches. confirm: wait up to 2 s until the start is recorded.
        Raises DefinitionError, BadInput, ToolNotFound, ModelUnavailable or ExecutionExists.
        """
        definition = load(workflow)
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
        definition = load(workflow)
        commands = [self._command(definition, value, uuid4().hex, priority) for value in inputs]
        await self._connection.registry.put_definition(definition.plan.digest, definition.workflow)
        await asyncio.gather(*(self._connection.inbox.start(command) for command in commands))
        return [AsyncRun(command.execution, self._connection) for command in commands]

    async def executions(
        self, status: Literal["running", "succeeded", "failed"] | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return the newest executions of the store: rows of the `executions` read model, brought up to date first."""
        from perdure.projections.runner import Projections

        projections = Projections(self._settings.store.absolute() / "projections.sqlite")
        try:
            await projections.catch_up(self._connection.log)
            return await projections.executions(status, limit)
        finally:
            projections.close()

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
            raise WaitTimeout(f"execution {self.id!r} has not ended within {timeout:g} s; it goes on") from None
        raise AssertionError("a log is followed without end")

    async def events(self, after: int = 0) -> AsyncIterator[Happened]:
        """Yield the events behind the log position `after`, then new ones as they come, up to the last one."""
        async with aclosing(self._connection.log.follow(self.id, after)) as entries:  # type: ignore[type-var]
            async for recorded in entries:
                for happened in recorded.unpack():
                    yield happened
                    if isinstance(happened.event, ExecutionSucceeded | Failed):
                        return

    async def state(self) -> Started:
        """Return the state as of now, folded from the log. Raises ExecutionNotFound."""
        folded = Folded()
        async for recorded in self._connection.log.read(self.id):
            folded = folded.after(recorded)
        if not isinstance(folded.state, Started):
            raise ExecutionNotFound(f"there is no execution {self.id!r} in this store (a queued one has not begun yet)")
        return folded.state

    async def status(self) -> Status:
        """Return `queued`, `running`, `succeeded` or `failed`."""
        try:
            return (await self.state()).status
        except ExecutionNotFound:
            return "queued"

    async def history(self) -> list[Recorded]:
        """Return all entries so far."""
        return [recorded async for recorded in self._connection.log.read(self.id)]

    async def attaches(self, command: StartExecution, within: float = 0) -> bool:
        """Say whether the execution has begun as this start asks, waiting so many seconds for it to begin.

        Raises ExecutionExists when it began with another definition or input.
        """
        first: Recorded | None = None
        if within:
            try:
                async with asyncio.timeout(within), aclosing(self._connection.log.follow(self.id)) as entries:  # type: ignore[type-var]
                    first = await anext(entries)
            except TimeoutError:
                return False
        else:
            first = next(iter([recorded async for recorded in self._connection.log.read(self.id, limit=1)]), None)
        if first is None:
            return False
        started = first.entry.events[0]
        if isinstance(started, ExecutionStarted) and (started.digest, started.input) != (
            command.digest,
            command.input,
        ):
            what = "definition" if started.digest != command.digest else "input"
            raise ExecutionExists(
                f"the execution id {self.id!r} is taken: it was started with another {what}; choose another id"
            )
        return True


def _reached(settings: Settings, server: NatsServer) -> Settings:
    """Return the settings with the server as other processes reach it."""
    token_file = settings.store.absolute() / "token" if server.embedded else settings.nats_token_file
    return settings.model_copy(
        update={"nats_url": server.url, "nats_token_file": token_file, "store": settings.store.absolute()}
    )


async def _lanes(connection: Connection, settings: Settings, drive: str | None) -> dict[str, Lanes]:
    """Return the lanes that this client's hosts are to serve, by host name; none where others serve them already."""
    if drive is not None:
        lane = await _recorded_lane(connection, drive) or SOLO
        name = f"solo-{hashlib.sha256(drive.encode()).hexdigest()[:16]}"
        others = [name] if lane == SOLO else ["host0"]
        lanes = {name: Lanes.of_execution(drive, lane)}
    else:
        count = settings.hosts or max(1, (os.cpu_count() or 1) // 2)
        lanes = {f"host{number}": Lanes.of_partitions(number, count) for number in range(count)}
        others = ["host0"]
    return {} if any([await is_alive(connection.nats, other) for other in others]) else lanes


async def _recorded_lane(connection: Connection, execution: str) -> str | None:
    async for recorded in connection.log.read(execution, limit=1):
        for event in recorded.entry.events:
            if isinstance(event, ExecutionStarted):
                return event.lane
    return None


async def _serve_here(lanes: dict[str, Lanes], connection: Connection, settings: Settings) -> list[asyncio.Task[None]]:
    async def serve(name: str, share: Lanes) -> asyncio.Task[None]:
        async def reopen() -> Host:
            return await open_host(name, share, connection, settings, call_in_thread)

        return asyncio.create_task(keep_serving(await reopen(), reopen), name=f"perdure-{name}")

    return [await serve(name, share) for name, share in lanes.items()]


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

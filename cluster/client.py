"""The asynchronous client: opens or joins what it needs, starts executions, and follows them through the log."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import msgspec
from msgspec.structs import replace
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from perdure.actors.inputs import StartExecution
from perdure.actors.memories import records_of
from perdure.actors.pools import REPORTS, PoolReport
from perdure.actors.search import with_given
from perdure.actors.transcripts import Said
from perdure.cluster.batching import AsyncBatching
from perdure.cluster.checks import check_id, check_no_schedule, checked, checked_input
from perdure.cluster.code import CodeStore, shipped
from perdure.cluster.connection import Connection
from perdure.cluster.files import Files
from perdure.cluster.inbox import lane_of, solo_lane
from perdure.cluster.letting_in import let_in, was_refused
from perdure.cluster.opening import Mode, open_store
from perdure.cluster.references import is_reference
from perdure.cluster.run import CONFIRM_SECONDS, ENDED, AsyncRun
from perdure.cluster.settings import Settings
from perdure.cluster.subscribing import AsyncSubscribing
from perdure.cluster.tasks import stop
from perdure.definitions.loading import Definition, WorkflowLike, load
from perdure.errors import BadInput, EnvironmentProblem
from perdure.events.sessions import JetStreamSessions

if TYPE_CHECKING:
    from perdure.cluster.evaluation import Evaluated
    from perdure.cluster.schedules import Schedules
    from perdure.cluster.verification import Verified
    from perdure.cluster.workflows import Workflows

_STARTS_IN_FLIGHT = 128  # which is as fast as more, and takes less memory


async def connect_async(settings: Settings | None = None, *, local: bool = False) -> "AsyncClient":
    """Open a client: the NATS server and Ray that the settings name, else embedded ones, started in parallel.

    local: run executions in this process, without Ray. Hosts that already serve this store are used as they are.
    Raises EnvironmentProblem when something cannot be reached or started.
    """
    return await AsyncClient.open(settings or Settings(), "local" if local else "ray")


class AsyncClient(AsyncSubscribing, AsyncBatching):
    """A client of one store. Use it as an async context manager, or call `close`."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        closing: AsyncExitStack,
        lane: str | None = None,
        *,
        sees_secrets: bool = False,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._closing = closing
        self._lane = lane
        self._sees_secrets = sees_secrets

    @classmethod
    async def open(cls, settings: Settings, mode: Mode, drive: str | None = None) -> "AsyncClient":
        """Open a client whose hosts run on Ray, in this process, or nowhere (to look and to submit only).

        drive: the id of the one execution that this client's host serves; by default hosts serve all lanes.
        """
        opened = await open_store(settings, mode, drive)
        lane = solo_lane(drive) if drive else None
        return cls(opened.settings, opened.connection, opened.closing, lane, sees_secrets=opened.sees_secrets)

    @cached_property
    def workflows(self) -> "Workflows":
        """The workflows that are registered in this store under their names."""
        from perdure.cluster.workflows import Workflows

        workflows = Workflows(self._settings, self._connection)
        self._closing.push_async_callback(workflows.close)
        return workflows

    @cached_property
    def schedules(self) -> "Schedules":
        """The schedules of this store."""
        from perdure.cluster.schedules import Schedules

        return Schedules(
            self._settings, self._connection, self.definition_of, self._ship, sees_secrets=self._sees_secrets
        )

    async def start(
        self,
        workflow: WorkflowLike,
        input: Any = None,
        *,
        id: str | None = None,
        priority: int = 5,
        search: Mapping[str, str | float | bool] | None = None,
        tags: Iterable[str] = (),
        confirm: bool = True,
    ) -> "AsyncRun":
        """Start an execution and return its handle.

        workflow: a path, YAML or JSON text, a dict, a Workflow, or the name of a registered one: `order`, `order@3`,
        `order@sha256:...`. input: JSON data. id: makes the start idempotent: the same id with the same definition and
        input attaches. search: attributes for queries, beside those of the definition and over them. tags: words for
        queries. confirm: wait up to 2 s until the start is recorded, and not refused by a quota or a limit.
        Raises DefinitionError, BadInput, ToolNotFound, ModelUnavailable, SecretMissing, ExecutionExists,
        WorkflowNotFound, WorkflowDeprecated, QuotaExceeded or LimitReached.
        """
        definition = await self.definition_of(workflow, id)
        run = self._run(uuid4().hex if id is None else id)
        command = self._command(definition, input, run.id, priority, search, tags)
        gates = definition.plan.gates
        if (
            id is not None
            and await run.attaches(command)
            and not (gates and await was_refused(self._connection, run.id))
        ):
            return run
        after = await self._connection.log.last(run.id) if gates else 0
        await self._connection.registry.put_definition(command.digest, definition.workflow)
        await self._connection.inbox.start(replace(command, tools=await self._ship(definition, command.tools)))
        if confirm and not await run.attaches(command, within=CONFIRM_SECONDS):
            return run  # queued: every host is busy or away, and the start is safe in the inbox
        if confirm and gates:
            await let_in(self._connection, run.id, definition.plan, after, CONFIRM_SECONDS)
        return run

    async def start_many(
        self,
        workflow: WorkflowLike,
        inputs: Iterable[Any],
        *,
        priority: int = 5,
        search: Mapping[str, str | float | bool] | None = None,
        tags: Iterable[str] = (),
    ) -> "list[AsyncRun]":
        """Queue one execution per input, all at once, and return their handles in the same order.

        Where one cannot be queued, no more of them are; those that were queued before stay so. Raises as `start`.
        """
        definition = await self.definition_of(workflow, None)
        values = [checked_input(definition, value) for value in inputs]
        if not values:
            return []
        like = self._command(definition, values[0], uuid4().hex, priority, search, tags)
        like = replace(like, tools=await self._ship(definition, like.tools))
        await self._connection.registry.put_definition(definition.plan.digest, definition.workflow)

        left, runs = iter(values), list[AsyncRun]()

        async def start_those_left() -> None:
            for value in left:  # which all of these share: a task for each command would take 2 kB
                run = self._run(uuid4().hex)
                runs.append(run)
                lane = self._lane or lane_of(run.id)
                await self._connection.inbox.start(
                    replace(like, id=uuid4().hex, execution=run.id, input=value, lane=lane)
                )

        starting = [asyncio.create_task(start_those_left()) for _ in values[:_STARTS_IN_FLIGHT]]
        try:
            await asyncio.gather(*starting)
        finally:
            await stop(*starting)
        return runs

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

    async def pools(self) -> list[PoolReport]:
        """Return how the pools of node actors stand; none where no node actor was needed in the last seconds."""
        try:
            answer = await self._connection.nats.request(REPORTS, timeout=self._settings.log_timeout)
        except NoRespondersError:
            return []
        except (NatsError, OSError) as error:
            raise EnvironmentProblem(f"the keeper of the node actors does not answer: {error}") from None
        return msgspec.json.decode(answer.data, type=list[PoolReport])

    async def queues(self) -> dict[str, Any]:
        """Return who waits for what and why, and who holds it: limits, pools of node actors, starts; as JSON data."""
        from perdure.cluster.queue_report import queues

        return await queues(self._connection)

    async def purge(self, older_than: float, statuses: Iterable[str] = ENDED, *, dry_run: bool = False) -> list[str]:
        """Remove the past of executions that ended more than `older_than` seconds ago; return their ids.

        Purges that were broken off earlier are finished first. dry_run: only return what would be purged.
        """
        from perdure.cluster.retention import purge_ended

        return await purge_ended(self._connection, self._projections, older_than, statuses, dry_run=dry_run)

    async def sessions(self) -> dict[str, int]:
        """Return the sessions that agents remember, each with how many records it has."""
        return await self._memories.list()

    async def session(self, name: str) -> list[Said]:
        """Return what agents remember of a session, oldest first; nothing where there is none."""
        return [said for record in await records_of(self._memories, name) for said in record.said]

    async def forget_session(self, name: str) -> None:
        """Remove a session for good; what executions have recorded of it stays until they are purged."""
        await self._memories.delete(name)

    async def upload(self, path: str | PathLike[str], media_type: str | None = None) -> dict[str, Any]:
        """Keep a file in the store and return the reference to it, for an agent's `files`. Raises BadInput."""
        return await Files(self._connection.nats, self._settings.replicas).put_file(Path(path), media_type)

    @cached_property
    def _memories(self) -> JetStreamSessions:
        return JetStreamSessions(self._connection.nats, self._settings.log_timeout, self._settings.replicas)

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

    async def evaluate(
        self, workflow: WorkflowLike, last: int = 20, *, of: str | None = None, dry: bool = False
    ) -> AsyncIterator["Evaluated"]:
        """Yield what would become of the last ended executions under a changed definition; see docs/time_travel.md.

        What is unchanged is answered from their records, the rest is really called here; nothing is stored. of: the
        name of the workflow that ran; the definition's own otherwise. dry: call nothing, and say what would be called.
        Raises DefinitionError, BadInput (also where none has ended), ToolNotFound, ModelUnavailable or SecretMissing.
        """
        from perdure.cluster.evaluation import Evaluation

        definition = await self.definition_of(workflow)
        name = of or definition.workflow.name
        rows = await self.executions(("succeeded", "failed"), last, workflow=name)
        if not rows:
            raise BadInput(
                f"no execution of a workflow {name!r} has succeeded or failed here, so there is none to evaluate"
            )
        evaluation = Evaluation(self._connection, self._settings, definition, dry=dry)
        async for each in evaluation.each([row["id"] for row in rows]):
            yield each

    async def verify(
        self, executions: Iterable[str] | None = None, *, projections: bool = True
    ) -> AsyncIterator["Verified"]:
        """Yield executions, all where none are named, each with what is wrong with its history, if anything is.

        projections: hold the rows of the read models against it, too; where none are named, also what sums up all of
        them, which comes last, as the execution "". Raises LogUnavailable, EnvironmentProblem.
        """
        from perdure.cluster.verification import Verification

        verification = Verification(self._connection, self._with_own() if projections else None)
        try:
            await verification.open()
            for execution in await verification.all() if executions is None else executions:
                yield await verification.verify(execution)
            if executions is None and (whole := await verification.whole()).problems:
                yield whole
        finally:
            verification.close()

    def get(self, execution: str) -> "AsyncRun":
        """Return the handle of an execution that was started earlier, here or elsewhere."""
        check_no_schedule(execution)
        return self._run(execution)

    def _run(self, execution: str) -> "AsyncRun":
        return AsyncRun(execution, self._connection, self._settings, self._lane)

    async def _ship(self, definition: Definition, places: dict[str, str]) -> dict[str, str]:
        return await shipped(CodeStore(self._connection, self._settings.replicas), definition, places)

    def _command(
        self, definition: Definition, value: Any, execution: str, priority: int,
        search: Mapping[str, str | float | bool] | None = None, tags: Iterable[str] = (),
    ) -> StartExecution:  # fmt: skip
        value, places = checked(self._settings, definition, value, execution, priority, sees_secrets=self._sees_secrets)
        plan, lane = definition.plan, self._lane or lane_of(execution)
        return with_given(
            StartExecution(uuid4().hex, execution, plan.name, plan.digest, value, lane, places, priority),
            plan, search or {}, list(dict.fromkeys(tags)),
        )  # fmt: skip

    async def let_go(self) -> None:
        """Say that nothing is left to drive on this client's own lane: no cluster need look after it."""
        if self._lane is not None:
            await self._connection.registry.forget(f"hosts.{self._lane}")

    async def close(self) -> None:
        """Stop this client's hosts and whatever was started for it; executions go on when a host serves them again."""
        await self._closing.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

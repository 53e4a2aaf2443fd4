"""The registry of workflows: an application of the `eventsourcing` library on a stream of its own, and its face."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from eventsourcing.application import Application
from eventsourcing.persistence import IntegrityError, PersistenceError
from eventsourcing.utils import Environment, EnvType, TopicError

from perdure.actors import tools
from perdure.cluster import workflow_versions
from perdure.cluster.connection import Connection
from perdure.cluster.references import DIGEST, parse_reference
from perdure.cluster.settings import Settings
from perdure.cluster.users import user_of
from perdure.cluster.workflow_versions import Event, Moved, RegisteredWorkflow, Version, evolve, fold
from perdure.definitions.hints import did_you_mean
from perdure.definitions.loading import Definition, WorkflowLike, load
from perdure.errors import CorruptEntry, LogUnavailable, WorkflowNotFound
from perdure.events.server_checks import ensure_stream
from perdure.events.stored_events import stream_config

Result = TypeVar("Result")
Decide = Callable[[RegisteredWorkflow], Event | None]

PREFIX, NAME = "PERDURE", "WORKFLOWS"
STREAM = f"{PREFIX}_{NAME}"
_TRIES = 50  # one who has to try again was beaten by another, who has written
_PAGE = 500


@dataclass(frozen=True)
class Registration:
    """What a registration came to. moved: it was this version already, and its tool files are elsewhere now."""

    workflow: RegisteredWorkflow
    version: Version
    outcome: Literal["registered", "moved", "unchanged"]


class WorkflowsApplication(Application[str]):
    """Keeps one sequence of events for each name. Blocks: for threads."""

    name = NAME

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Leave out the process's own environment: how its applications store their events is not for this one."""
        return Environment(name, env)

    def get(self, name: str) -> RegisteredWorkflow:
        """Return a workflow; one without versions where nobody registered it."""
        return fold(name, self.events.get(name))

    def all(self) -> list[RegisteredWorkflow]:
        """Return every workflow, by name."""
        found: dict[str, RegisteredWorkflow] = {}
        after = 0
        while page := self.recorder.select_notifications(after, _PAGE, inclusive_of_start=False):
            for notification in page:
                event, name = self.mapper.to_domain_event(notification), str(notification.originator_id)
                found[name] = evolve(found.get(name) or RegisteredWorkflow(name), event)
            after = page[-1].id
        return [found[name] for name in sorted(found)]

    def change(self, name: str, decide: Decide) -> tuple[RegisteredWorkflow, Event | None]:
        """Record what follows from the state, again where another was faster; return the new state, and the event."""
        for left in reversed(range(_TRIES)):
            state = self.get(name)
            event = decide(state)
            if event is None:
                return state, None
            try:
                self.save(event)
            except IntegrityError:
                if not left:
                    raise
                continue
            return evolve(state, event), event
        raise AssertionError("the last try returned or raised")


class Workflows:
    """The registered workflows of a store, of a client. Nothing is opened for it before its first use."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._application: WorkflowsApplication | None = None
        self._opening = asyncio.Lock()

    async def register(self, workflow: WorkflowLike) -> Registration:
        """Make a definition the next version of its name; the same one again changes nothing.

        workflow: a path, YAML or JSON text, a dict, or a Workflow. Raises DefinitionError, ToolNotFound or BadInput.
        """
        definition = load(workflow)
        name, digest, base, by = (
            definition.plan.name,
            definition.plan.digest,
            _base_of(definition),
            user_of(self._settings),
        )
        await self._connection.registry.put_definition(digest, definition.workflow)
        state, event = await self._change(name, lambda was: workflow_versions.register(was, digest, base, by))
        version = next(each for each in state.versions if each.digest == digest)
        return Registration(
            state, version, "moved" if isinstance(event, Moved) else "registered" if event else "unchanged"
        )

    async def list(self) -> Sequence[RegisteredWorkflow]:
        """Return every registered workflow, by name."""
        return await self._call(WorkflowsApplication.all)

    async def show(self, name: str) -> RegisteredWorkflow:
        """Return a workflow with all of its versions. Raises WorkflowNotFound."""
        found = await self._call(lambda application: application.get(name))
        if not found.versions:
            raise await self._unknown(name)
        return found

    async def activate(self, name: str, version: int) -> RegisteredWorkflow:
        """Make `name` alone start this version, also where it was deprecated; return the workflow.

        To activate the last version is to follow again: each one that is registered later is active at once.
        """
        await self.show(name)
        by = user_of(self._settings)
        return (await self._change(name, lambda was: workflow_versions.activate(was, version, by)))[0]

    async def deprecate(self, name: str, version: int, why: str) -> RegisteredWorkflow:
        """Refuse new starts of a version; executions of it go on. Return the workflow."""
        await self.show(name)
        by = user_of(self._settings)
        return (await self._change(name, lambda was: workflow_versions.deprecate(was, version, why, by)))[0]

    async def definition(self, which: str) -> str:
        """Return a definition as JSON text, of a `name`, `name@3`, `name@sha256:...` or `sha256:...`.

        Raises WorkflowNotFound, or BadInput where a digest fits several definitions.
        """
        registry = self._connection.registry
        if which.startswith(DIGEST):
            return await registry.definition(await registry.full_digest(which))
        reference = parse_reference(which)
        return await registry.definition((await self.show(reference.name)).find(reference).digest)

    async def resolve(self, which: str, begun: str | None = None) -> Definition:
        """Return the definition that a start by name means.

        begun: the digest of an execution that this start may attach to; it stays with the version that it runs,
        whatever was activated or deprecated since. Raises WorkflowNotFound or WorkflowDeprecated.
        """
        reference = parse_reference(which)
        try:
            found = await self.show(reference.name)
        except WorkflowNotFound as error:
            raise WorkflowNotFound(f"{which}: there is no such file, and {error}") from None
        version = next((each for each in found.versions if each.digest == begun and not reference.pinned), None)
        version = version or found.find(reference)
        if version.digest != begun:
            workflow_versions.check_start(found, version)
        return _loaded(await self._connection.registry.definition(version.digest), version.base)

    async def close(self) -> None:
        """Close what was opened."""
        if self._application is not None:
            await asyncio.to_thread(self._application.close)

    async def _change(self, name: str, decide: Decide) -> tuple[RegisteredWorkflow, Event | None]:
        return await self._call(lambda application: application.change(name, decide))

    async def _call(self, work: Callable[[WorkflowsApplication], Result]) -> Result:
        try:
            async with self._opening:
                application = self._application = self._application or await self._open()
            return await asyncio.to_thread(work, application)
        except TopicError as error:
            raise CorruptEntry(
                f"the registry of workflows was written by a newer release of perdure: {error}"
            ) from None
        except PersistenceError as error:
            raise LogUnavailable(f"the registry of workflows: {error}") from error

    async def _open(self) -> WorkflowsApplication:
        settings = self._settings
        await ensure_stream(self._connection.nats, stream_config(STREAM, settings.replicas))
        given = {
            "PERSISTENCE_MODULE": "perdure.events.recorder",
            "PERDURE_NATS_URL": settings.nats_url,
            "PERDURE_NATS_TOKEN_FILE": settings.nats_token_file and str(settings.nats_token_file),
            "PERDURE_LOG_TIMEOUT": str(settings.log_timeout),
            "PERDURE_STREAM_PREFIX": PREFIX,
        }
        return await asyncio.to_thread(WorkflowsApplication, {name: text for name, text in given.items() if text})

    async def _unknown(self, name: str) -> WorkflowNotFound:
        names = [each.name for each in await self.list()]
        hint = did_you_mean(name, names) or "; register one with: perdure workflows register FILE"
        return WorkflowNotFound(f"no workflow {name!r} is registered in this store{hint}")


def _base_of(definition: Definition) -> str | None:
    """Return the folder of the tool files, each of which can be loaded; None where the definition names none."""
    files = definition.workflow.tools
    tools.locate([], files, definition.base, shared=True)
    return str(Path(definition.base or ".").resolve()) if files else None


@lru_cache(maxsize=256)
def _loaded(text: str, base: str | None) -> Definition:
    return load(json.loads(text), base)

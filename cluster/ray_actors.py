"""What runs inside Ray's processes: the host actor, and the execution actor of `isolation: process`."""

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from perdure.actors.execution import Execution
from perdure.actors.inputs import Command, decode_command, encode_command
from perdure.actors.node_actors import NodeActors
from perdure.actors.spawn import cpus, spawn
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import Lanes
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import connect_to, keep_serving, open_host, surroundings
from perdure.errors import Deposed, PerdureError

_log = logging.getLogger("perdure.host")


class HostConfig(msgspec.Struct, frozen=True):
    """What a host actor needs to start, and to start again: plain data, and no secrets."""

    name: str
    lanes: Lanes
    settings: dict[str, Any]


class _Loop:
    """An event loop of our own in a thread, so that Ray's way of running actors does not matter."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop)


class HostActor:
    """The named, detached actor that runs a Host. Ray restarts it when its process dies; it then opens a new epoch."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._settings = Settings(**config.settings)
        self._loop = _Loop()
        self._opened = self._loop.submit(self._open())
        self._opened.add_done_callback(
            lambda done: self._loop.submit(self._serve(done.result())) if not done.exception() else None
        )

    def wait_open(self) -> int:
        """Return this process's id once the host serves; raise what kept it from opening."""
        self._opened.result()
        return os.getpid()

    async def _open(self) -> Any:
        self._connection = await connect_to(self._settings)
        self._elsewhere = NodeActors(limit=cpus())
        return await self._host()

    async def _host(self) -> Any:
        embody = self._apart if self._settings.isolation == "process" else None
        return await open_host(
            self._config.name, self._config.lanes, self._connection, self._settings, self._elsewhere, embody
        )

    async def _serve(self, host: Any) -> None:
        try:
            await keep_serving(host, self._host)
        except BaseException:
            _log.exception("host %s broke; Ray restarts it", self._config.name)
            os._exit(1)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)  # deposed: never come back

    def _apart(self, execution: str, epoch: int) -> "Apart":
        return Apart(execution, epoch, self._config.settings)


class ExecutionActor:
    """One execution in a process of its own; its host routes commands to it and holds its lease."""

    def __init__(self, execution: str, epoch: int, settings: dict[str, Any]) -> None:
        self._id = execution
        self._epoch = epoch
        self._settings = Settings(**settings)
        self._connection: Connection | None = None
        self._execution: Execution | None = None

    async def run(self, first: bytes | None) -> str:
        """Act until the execution ends or can be left; a newer owner's takeover is told as `deposed`."""
        if self._connection is None:
            self._connection = await connect_to(self._settings)
        elsewhere = NodeActors(limit=cpus())
        self._execution = Execution(self._id, surroundings(self._connection, self._settings, self._epoch, elsewhere))
        try:
            await self._execution.run(decode_command(first) if first else None)
        except Deposed as error:
            return f"deposed: {error}"
        finally:
            elsewhere.close()
        return "left"

    async def tell(self, command: bytes) -> bool:
        """Hand over a command; False when the execution does not act (any more)."""
        return self._execution is not None and await self._execution.tell(decode_command(command))


class Apart:
    """An execution in its own Ray actor, as its host sees it: spawned to run, spawned again when its process dies."""

    def __init__(self, execution: str, epoch: int, settings: dict[str, Any]) -> None:
        self._id = execution
        self._epoch = epoch
        self._settings = settings
        self._actor: ActorHandle[ExecutionActor] | None = None

    async def run(self, first: Command | None = None) -> None:
        """Act until the execution ends or can be left; see Embodied."""
        while True:
            self._actor = self._spawn()
            try:
                outcome = await self._actor.run.remote(encode_command(first) if first else None)
            except RayActorError as error:
                _log.warning("execution %s: its process is gone, spawned again: %s", self._id, error)
                continue
            finally:
                ray.kill(self._actor)
            if outcome.startswith("deposed"):
                raise Deposed(outcome)
            return

    async def tell(self, given: Command) -> bool:
        """Hand over a command; see Embodied."""
        if self._actor is None:
            return False
        try:
            told: bool = await self._actor.tell.remote(encode_command(given))
        except RayActorError as error:
            raise PerdureError(f"the process of execution {self._id!r} died over a command") from error
        return told

    def _spawn(self) -> "ActorHandle[ExecutionActor]":
        name = f"perdure:{self._id}"
        return spawn(ExecutionActor, self._id, self._epoch, self._settings, name=name, max_concurrency=1000)

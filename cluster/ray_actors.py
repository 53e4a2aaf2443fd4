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
from perdure.actors.spawn import spawn
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import Lanes
from perdure.cluster.node_keeper import node_actors
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import connect_to, keep_serving, open_host, surroundings
from perdure.errors import Deposed

_log = logging.getLogger("perdure.host")
_OPEN_AGAIN_AFTER = 2.0  # seconds


class HostConfig(msgspec.Struct, frozen=True):
    """What a host actor needs to start, and to start again: plain data, and no secrets."""

    name: str
    lanes: Lanes
    settings: dict[str, Any]
    namespace: str


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
        self._begin()

    def wait_open(self) -> int:
        """Return this process's id once the host serves; raise what keeps it from opening, and try again when asked."""
        if self._opened.done() and self._opened.exception():
            self._begin()
        self._opened.result()
        return os.getpid()

    def _begin(self) -> None:
        self._opened = self._loop.submit(self._open())
        self._opened.add_done_callback(self._go_on)

    def _go_on(self, opened: Any) -> None:
        if not opened.exception():
            self._loop.submit(self._serve(opened.result()))
        elif ray.get_runtime_context().was_current_actor_reconstructed:
            # Nobody waits for us any more: what kept us from opening may be over soon.
            self._loop.loop.call_soon_threadsafe(self._loop.loop.call_later, _OPEN_AGAIN_AFTER, self._begin)

    async def _open(self) -> Any:
        self._connection = await connect_to(self._settings)
        self._elsewhere = node_actors(self._settings, self._config.namespace)
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
        return Apart(execution, epoch, self._config)


class ExecutionActor:
    """One execution in a process of its own; its host routes commands to it and holds its lease."""

    def __init__(self, execution: str, epoch: int, settings: dict[str, Any], namespace: str) -> None:
        self._id = execution
        self._namespace = namespace
        self._epoch = epoch
        self._settings = Settings(**settings)
        self._connection: Connection | None = None
        self._execution: Execution | None = None
        self._ready = asyncio.Event()

    async def run(self, first: bytes | None) -> str:
        """Act until the execution ends or can be left; a newer owner's takeover is told as `deposed`."""
        if self._connection is None:
            self._connection = await connect_to(self._settings)
        elsewhere = node_actors(self._settings, self._namespace)
        self._execution = Execution(self._id, surroundings(self._connection, self._settings, self._epoch, elsewhere))
        self._ready.set()
        try:
            await self._execution.run(decode_command(first) if first else None)
        except Deposed as error:
            return f"deposed: {error}"
        finally:
            await elsewhere.close()
        return "left"

    async def tell(self, command: bytes) -> bool:
        """Hand over a command; False when the execution does not act any more."""
        await self._ready.wait()
        return self._execution is not None and await self._execution.tell(decode_command(command))


class Apart:
    """An execution in its own Ray actor, as its host sees it: spawned to run, spawned again when its process dies."""

    def __init__(self, execution: str, epoch: int, host: HostConfig) -> None:
        self._id = execution
        self._epoch = epoch
        self._host = host
        self._process = _Process(self._spawn())
        self._closed = False

    async def run(self, first: Command | None = None) -> None:
        """Act until the execution ends or can be left; see Embodied."""
        try:
            while True:
                try:
                    outcome = await self._process.actor.run.remote(encode_command(first) if first else None)
                    break
                except RayActorError as error:
                    _log.warning("execution %s: its process is gone, spawned again: %s", self._id, error)
                    gone, self._process = self._process, _Process(self._spawn())
                    gone.replaced.set()
        finally:
            self._closed = True
            self._process.replaced.set()
            ray.kill(self._process.actor)
        if outcome.startswith("deposed"):
            raise Deposed(outcome)

    async def tell(self, given: Command) -> bool:
        """Hand over a command, to the next process where the first dies over it; see Embodied."""
        while not self._closed:
            process = self._process
            try:
                told: bool = await process.actor.tell.remote(encode_command(given))
            except RayActorError:
                await process.replaced.wait()
            else:
                return told
        return False

    def _spawn(self) -> "ActorHandle[ExecutionActor]":
        return spawn(
            ExecutionActor, self._id, self._epoch, self._host.settings, self._host.namespace,
            name=f"perdure:{self._id}", namespace=self._host.namespace, max_concurrency=1000,
        )  # fmt: skip


class _Process:
    """One process of an execution, and whether another one has taken its place."""

    def __init__(self, actor: "ActorHandle[ExecutionActor]") -> None:
        self.actor = actor
        self.replaced = asyncio.Event()

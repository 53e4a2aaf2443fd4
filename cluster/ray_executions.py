"""The execution actor of `isolation: process`, and the execution in it as its host sees it."""

import asyncio
import logging
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from perdure.actors.execution import Execution
from perdure.actors.inputs import Command, decode_command, encode_command
from perdure.actors.mcp_pool import McpPool
from perdure.actors.spawn import spawn
from perdure.cluster import logs
from perdure.cluster.connection import Connection
from perdure.cluster.limits import ClusterLimits
from perdure.cluster.node_keeper import node_actors
from perdure.cluster.ownership import Fence, Ownership, verify
from perdure.cluster.post import InboxPost
from perdure.cluster.settings import Settings
from perdure.cluster.wiring import connect_to, surroundings
from perdure.errors import Deposed

_log = logging.getLogger("perdure.host")


class ExecutionActor:
    """One execution in a process of its own; its host routes commands to it and holds its lease."""

    def __init__(
        self, execution: str, epoch: int, host: str, owner: str, settings: dict[str, Any], namespace: str
    ) -> None:
        self._id = execution
        self._namespace = namespace
        self._epoch = epoch
        self._owner = host, owner
        self._settings = Settings(**settings)
        self._connection: Connection | None = None
        self._execution: Execution | None = None
        self._ready = asyncio.Event()
        logs.configure(self._settings.log_format)

    async def run(self, first: list[bytes]) -> str:
        """Act until the execution ends or can be left: `left`, `unknown` where it never began, or `deposed: why`."""
        if self._connection is None:
            self._connection = await connect_to(self._settings)
            logs.to_nats(self._connection.nats, "execution")
        elsewhere = node_actors(self._settings, self._namespace)
        post = InboxPost(self._connection, self._settings)
        limits, pool = ClusterLimits(self._connection, self._settings), McpPool()
        fence = Fence(partial(verify, self._connection.registry, *self._owner))
        self._execution = Execution(
            self._id, surroundings(self._connection, self._settings, self._epoch, elsewhere, post, fence, limits, pool)
        )
        self._ready.set()
        try:
            begun = await self._execution.run(*map(decode_command, first))
        except Deposed as error:
            return f"deposed: {error}"
        finally:
            await elsewhere.close()
            await post.close()
            await pool.close()
        return "left" if begun else "unknown"

    async def tell(self, command: bytes) -> bool:
        """Hand over a command; False when the execution does not act any more."""
        await self._ready.wait()
        return self._execution is not None and await self._execution.tell(decode_command(command))

    async def leave(self) -> None:
        """Begin nothing more, and leave as soon as what is under way has come to its end."""
        await self._ready.wait()
        if self._execution is not None:
            self._execution.leave()


class Apart:
    """An execution in its own Ray actor, as its host sees it: spawned to run, spawned again when its process dies."""

    def __init__(self, execution: str, own: Ownership, settings: dict[str, Any], namespace: str) -> None:
        self._id = execution
        self._arguments = (execution, own.epoch, own.host, own.owner, settings, namespace)
        self._namespace = namespace
        self._process = _Process(self._spawn())
        self._closed = False
        self._leaving = False

    async def run(self, *first: Command) -> bool:
        """Act until the execution ends or can be left; see Embodied."""
        try:
            while True:
                try:
                    outcome = await self._process.actor.run.remote([encode_command(each) for each in first])
                    break
                except RayActorError as error:
                    _log.warning("execution %s: its process is gone, spawned again: %s", self._id, error)
                    gone, self._process = self._process, _Process(self._spawn())
                    gone.replaced.set()
                    if self._leaving:
                        self.leave()
        finally:
            self._closed = True
            self._process.replaced.set()
            ray.kill(self._process.actor)
        if outcome.startswith("deposed"):
            raise Deposed(outcome)
        return outcome == "left"

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

    def hurry(self) -> None:
        """See Embodied: it never lingers."""

    def leave(self) -> None:
        """Begin nothing more; see Embodied."""
        self._leaving = True
        self._process.actor.leave.remote()

    def _spawn(self) -> "ActorHandle[ExecutionActor]":
        return spawn(
            ExecutionActor, *self._arguments,
            name=f"perdure:{self._id}", namespace=self._namespace, max_concurrency=1000,
        )  # fmt: skip


class _Process:
    """One process of an execution, and whether another one has taken its place."""

    def __init__(self, actor: "ActorHandle[ExecutionActor]") -> None:
        self.actor = actor
        self.replaced = asyncio.Event()

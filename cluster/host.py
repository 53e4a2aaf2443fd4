"""The execution host: serves its lanes of the inbox, and embodies executions while they have something to do."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from perdure.actors.inputs import Command, decode_command
from perdure.cluster.inbox import ACK_WAIT, Consumer, Lanes, acknowledge, still_working, take_over
from perdure.errors import Deposed, PerdureError

_log = logging.getLogger("perdure.host")
_RESTART_AFTER = 1.0  # seconds before an execution whose actor broke is embodied again


class Embodied(Protocol):
    """An execution that acts, in this process or in one of its own."""

    async def run(self, first: Command | None = None) -> None:
        """Act until the execution ends or can be left."""
        ...

    async def tell(self, given: Command) -> bool:
        """Hand over a command; False when the execution has stopped acting."""
        ...


@dataclass
class _Lease:
    """The command that made an execution active: acknowledged only when the execution ends or is left."""

    message: Msg
    execution: Embodied
    task: asyncio.Task[None] = field(init=False)


class Host:
    """Serves lanes under one epoch; `run` returns never, and raises Deposed when a newer epoch took over."""

    def __init__(
        self,
        name: str,
        epoch: int,
        lanes: Lanes,
        nats: Nats,
        embody: Callable[[str], Embodied],
        capacity: int,
    ) -> None:
        self.name = name
        self._nats = nats
        self._embody = embody
        self._capacity = capacity
        self._active: dict[str, _Lease] = {}
        self._changed = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumers = [
            Consumer(nats, f"{name}-starts-{epoch}", lanes.starts, self._take),
            Consumer(nats, f"{name}-commands-{epoch}", lanes.commands, self._take),
        ]

    async def open(self) -> None:
        """Depose the owner before, take over its lanes, and answer to `perdure.host.<name>` from now on."""
        await take_over(self._nats, self.name)
        await asyncio.gather(*(consumer.create() for consumer in self._consumers))
        await self._nats.subscribe(f"perdure.host.{self.name}", cb=self._answer)

    async def run(self) -> None:
        """Serve until cancelled, deposed, or cut off from the log."""
        starts, commands = self._consumers
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(starts.pull(lambda: self._capacity - len(self._active), self._changed))
                tasks.create_task(commands.pull(lambda: self._capacity, self._changed))
                tasks.create_task(self._keep_leases())
                tasks.create_task(self._watch())
        except* PerdureError as group:
            raise group.exceptions[0] from None
        finally:
            await self._stop()

    async def _take(self, message: Msg) -> None:
        """Tell an active execution, or make the execution active with this command as its lease."""
        try:
            command = decode_command(message.data)
        except msgspec.DecodeError as error:
            _log.error("a command on %s cannot be read and is removed: %s", message.subject, error)
            await acknowledge(self._nats, message)
            return
        lease = self._active.get(command.execution)
        if lease is None:
            self._activate(command, message)
        elif _sequence(lease.message) != _sequence(message):  # else the server only repeats the lease itself
            self._spawn(self._tell(lease, command, message))

    def _activate(self, command: Command, message: Msg) -> None:
        lease = _Lease(message, self._embody(command.execution))
        self._active[command.execution] = lease
        lease.task = asyncio.create_task(self._live(lease, command), name=f"perdure:{command.execution}")

    async def _live(self, lease: _Lease, command: Command) -> None:
        """Let an execution act; its lease is given up only in the end, so that whatever breaks, it comes back."""
        try:
            while True:
                try:
                    await lease.execution.run(command)
                    break
                except Deposed:
                    raise
                except Exception:
                    _log.exception(
                        "execution %s: its actor broke; embodied again in %g s",
                        command.execution,
                        _RESTART_AFTER,
                    )
                    await asyncio.sleep(_RESTART_AFTER)
                    lease.execution = self._embody(command.execution)
            del self._active[command.execution]
            self._changed.set()
            await acknowledge(self._nats, lease.message)
        except PerdureError as error:
            self._active.pop(command.execution, None)
            self._break(error)

    async def _tell(self, lease: _Lease, command: Command, message: Msg) -> None:
        try:
            if await lease.execution.tell(command):
                await acknowledge(self._nats, message)
            else:
                await asyncio.wait([lease.task])
                await self._take(message)
        except Deposed as error:
            self._break(error)
        except Exception:
            # Not acknowledged: the server gives it to us again after ACK_WAIT, when the actor is back.
            _log.exception("execution %s: a command was not decided", command.execution)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            await asyncio.gather(*(still_working(self._nats, lease.message) for lease in list(self._active.values())))

    async def _watch(self) -> None:
        await self._broken

    def _break(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    async def _answer(self, message: Msg) -> None:
        await message.respond(str(len(self._active)).encode())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _stop(self) -> None:
        tasks = [*self._telling, *(lease.task for lease in self._active.values())]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def _sequence(message: Msg) -> int:
    return message.metadata.sequence.stream

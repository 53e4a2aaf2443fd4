"""The execution host: serves its lanes of the inbox, and embodies executions while they have something to do."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from perdure.actors.inputs import Command, decode_command
from perdure.cluster.inbox import ACK_WAIT, Consumer, Lanes, acknowledge, still_working, take_over
from perdure.cluster.tasks import stop
from perdure.errors import Deposed, LogUnavailable, PerdureError

_log = logging.getLogger("perdure.host")
_RESTART_AFTER = 1.0  # seconds before an execution whose actor broke is embodied again; doubled each time
_LONGEST_PAUSE = 60.0


class Embodied(Protocol):
    """An execution that acts, in this process or in one of its own."""

    async def run(self, first: Command | None = None) -> None:
        """Act until the execution ends or can be left."""
        ...

    async def tell(self, given: Command) -> bool:
        """Hand over a command; False when the execution has stopped acting."""
        ...


class _Lease:
    """The command that made an execution active: acknowledged only when the execution ends or is left.

    renewed: set when what embodies the execution was replaced, or has ended.
    """

    def __init__(self, message: Msg, embody: Callable[[], Embodied]) -> None:
        self.message = message
        self.renewed = asyncio.Event()
        self.task: asyncio.Task[None]
        self._embody = embody
        self._execution: Embodied | None = None

    def embodied(self) -> Embodied:
        """Return what embodies the execution, made when it is first asked for."""
        if self._execution is None:
            self._execution = self._embody()
        return self._execution

    def renew(self) -> None:
        """Have the execution embodied anew."""
        self._execution = None
        gone, self.renewed = self.renewed, asyncio.Event()
        gone.set()


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
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self._nats = nats
        self._lanes = lanes
        self._embody = embody
        self._capacity = capacity
        self._close = close
        self._active: dict[str, _Lease] = {}
        self._answering: Subscription | None = None
        self._changed = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumers = [
            Consumer(nats, f"{name}-starts-{epoch}", lanes.starts, self._take),
            Consumer(nats, f"{name}-commands-{epoch}", lanes.commands, self._take),
        ]

    async def open(self) -> None:
        """Depose the owner before, take over its lanes, and answer to `perdure.host.<name>` from now on.

        Raises LanesTaken when another host was faster.
        """
        # Answer first: who opens at the same moment must not take us for dead.
        self._answering = await self._nats.subscribe(f"perdure.host.{self.name}", cb=self._answer)
        try:
            await take_over(self._nats, self.name, self._lanes)
            for consumer in self._consumers:
                await consumer.create()
        except BaseException:
            await self._stop_answering()
            raise

    async def run(self) -> None:
        """Serve until cancelled, deposed, or cut off from the log."""
        starts, commands = self._consumers
        serving = [
            asyncio.create_task(starts.pull(lambda: self._capacity - len(self._active), self._changed)),
            asyncio.create_task(commands.pull(lambda: self._capacity, self._changed)),
            asyncio.create_task(self._keep_leases()),
            asyncio.create_task(self._watch()),
        ]
        try:
            ended, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            await self._stop_answering()
            await stop(*serving, *self._telling, *(lease.task for lease in self._active.values()))
            for consumer in self._consumers:
                await consumer.delete()
            if self._close:
                await self._close()

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
        elif _sequence(lease.message) == _sequence(message):
            lease.message = message  # the server repeats the lease itself: from now on this one is acknowledged
        else:
            self._spawn(self._tell(lease, command, message))

    def _activate(self, command: Command, message: Msg) -> None:
        lease = _Lease(message, lambda: self._embody(command.execution))
        self._active[command.execution] = lease
        lease.task = asyncio.create_task(self._live(lease, command), name=f"perdure:{command.execution}")

    async def _live(self, lease: _Lease, command: Command) -> None:
        """Let an execution act; its lease is given up only in the end, so that whatever breaks, it comes back."""
        pause = _RESTART_AFTER
        try:
            while True:
                try:
                    await lease.embodied().run(command)
                    break
                except Deposed as error:  # a newer owner has this execution, though not our lanes: leave it to that one
                    _log.warning("%s", error)
                    self._active.pop(command.execution, None)
                    return
                except Exception:
                    _log.exception("execution %s: its actor broke; embodied again in %g s", command.execution, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                lease.renew()
            await acknowledge(self._nats, lease.message)
            self._active.pop(command.execution, None)
        except PerdureError as error:
            self._active.pop(command.execution, None)
            self._break(error)
        finally:
            self._changed.set()  # however it ended, there is room for another
            lease.renewed.set()

    async def _tell(self, lease: _Lease, command: Command, message: Msg) -> None:
        """Tell the execution, or the next one that embodies it where this one has broken or just left."""
        try:
            while True:
                renewed = lease.renewed
                if await lease.embodied().tell(command):
                    return await acknowledge(self._nats, message)
                await renewed.wait()
                if lease.task.done() or self._active.get(command.execution) is not lease:
                    return await self._take(message)
        except Deposed as error:
            self._break(error)
        except Exception:
            # Not acknowledged: the server gives it to us again after ACK_WAIT, when the actor is back.
            _log.exception("execution %s: a command was not decided", command.execution)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            try:
                leases = list(self._active.values())
                await asyncio.gather(*(still_working(self._nats, lease.message) for lease in leases))
            except LogUnavailable as error:  # when the server is back it repeats the leases, to us
                _log.warning("host %s: %s", self.name, error)

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

    async def _stop_answering(self) -> None:
        if self._answering is not None and not self._nats.is_closed:
            with contextlib.suppress(NatsError, OSError):
                await self._answering.unsubscribe()


def _sequence(message: Msg) -> int:
    return message.metadata.sequence.stream

"""The execution host: serves its lanes of the inbox, and embodies executions while they have something to do."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from perdure.actors.inputs import CancelExecution as Cancel
from perdure.actors.inputs import Command, Control, StartExecution, TerminateExecution, decode_command
from perdure.cluster.connection import Connection
from perdure.cluster.consumer import ACK_WAIT, Consumer, acknowledge, still_working
from perdure.cluster.inbox import Lanes, is_solo, lane_in
from perdure.cluster.leases import Embodied, Lease, sequence
from perdure.cluster.ownership import Fence, Ownership
from perdure.cluster.starts import Starts
from perdure.cluster.tasks import stop
from perdure.errors import Deposed, LogUnavailable

_log = logging.getLogger("perdure.host")
_RESTART_AFTER = 1.0  # seconds before an execution whose actor broke is embodied again; doubled each time
_LONGEST_PAUSE = 60.0
_TRY_AGAIN = 0.5  # seconds
_COMMANDS = 256  # in one request; those for active executions, and for those that they wake, are never held back
_MOST_PARKED = 16  # executions that only wait for limits beside each that may be at work
_MOST_TOLD = 4096  # but by this: commands that are taken from the inbox, and not decided yet


class Host:
    """Serves lanes while it owns them; `serve` replaces them. What breaks it for good is raised by `ended`."""

    def __init__(
        self,
        connection: Connection,
        own: Ownership,
        embody: Callable[[str, bool], Embodied],
        capacity: int,
        ageing: float = 60.0,
    ) -> None:
        self.name = own.host
        self.own = own
        self.fence = Fence(own.verify)
        self.stale = asyncio.Event()
        self._nats = connection.nats
        self._inbox = connection.inbox
        self._log = connection.log
        self._embody = embody
        self._capacity = capacity
        self._ageing = ageing
        self._active: dict[str, Lease] = {}
        self._starts: Starts | None = None
        self._early: dict[str, dict[int, Msg]] = {}  # commands that overtook the start of their execution
        self._leaving: set[str] = set()
        self._parked: set[str] = set()
        self._answering: dict[str, Subscription] = {}
        self._changed = asyncio.Event()
        self._room = asyncio.Event()  # for commands; of its own, so that no start's word is cleared away
        self._telling: set[asyncio.Task[None]] = set()
        self._pulling: list[asyncio.Task[None]] = []
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def crowded(self) -> bool:
        """Whether no more executions may begin."""
        return self.room <= 0

    @property
    def room(self) -> int:
        """How many more executions may begin: those that only wait for limits take no place, unless they are many."""
        return self._capacity - len(self._active) + min(len(self._parked), _MOST_PARKED * self._capacity)

    def park(self, execution: str, *, on: bool) -> None:
        """Take note that all that is at work in an execution waits for limits, or not any more."""
        if on and execution in self._active:
            self._parked.add(execution)
            self._changed.set()
        else:
            self._parked.discard(execution)

    def active_on(self, lanes: set[str]) -> list[Lease]:
        """Return the leases of the executions that are active on these lanes."""
        return [lease for lease in self._active.values() if lease.lane in lanes]

    def status(self) -> dict[str, Any]:
        """Return what there is to say of it, as JSON data."""
        names = self.own.lanes.names
        return {
            "host": self.name, "epoch": self.own.epoch, "active": len(self._active), "capacity": self._capacity,
            "partitions": [int(lane) for lane in names if lane.isdecimal()], "leaving": len(self._leaving),
            "adopted": [lane for lane in names if is_solo(lane)],
        }  # fmt: skip

    async def answer(self, about: Callable[[], dict[str, Any]]) -> None:
        """Answer to `perdure.host.<name>` from now on: whoever opens at the same moment must not take us for dead."""

        async def respond(message: Msg) -> None:
            await message.respond(json.dumps(about()).encode())

        self._respond = respond
        await self._answer_for({self.name})

    async def _answer_for(self, names: set[str]) -> None:
        """Answer under these names: its own, and those of the drivers whose lanes it has adopted."""
        for gone in self._answering.keys() - names:
            with contextlib.suppress(NatsError, OSError):
                await self._answering.pop(gone).unsubscribe()
        for name in names - self._answering.keys():
            self._answering[name] = await self._nats.subscribe(f"perdure.host.{name}", cb=self._respond)

    async def serve(self, lanes: Lanes) -> None:
        """Begin a new epoch with these lanes, but for those that others have; what is active goes on.

        Raises LanesTaken or Deposed, as Ownership.move does.
        """
        self.stale.clear()
        await stop(*self._pulling)
        await self.own.move(lanes)
        mine, epoch, self._starts = self.own.lanes, self.own.epoch, None
        await self._answer_for({self.name, *filter(is_solo, mine.names)})
        if not mine.names:
            return
        self._early.clear()
        self._starts = starts = Starts(self._nats, self.name, epoch, mine, self._take, self._had_begun, self._ageing)
        commands = Consumer(self._nats, f"{self.name}-commands-{epoch}", mine.commands, self._take)
        await starts.create()
        await commands.create()
        recover = max((self.own.delivered.get(lane, 0) for lane in mine.names), default=0)
        self._pulling = [
            asyncio.create_task(self._guard(starts.pull(lambda: self.room, self._changed, recover))),
            asyncio.create_task(self._guard(commands.pull(_COMMANDS))),
        ]

    async def ended(self) -> None:
        """Keep the leases until this is cancelled, or raise what breaks the host: Deposed, above all."""
        keeping = asyncio.create_task(self._keep_leases())
        try:
            await self._broken
        finally:
            await stop(keeping)

    async def close(self) -> None:
        """Stop answering and all that is active; the leases wait for the next owner."""
        if not self._nats.is_closed:
            await self._answer_for(set())
        await stop(*self._pulling, *self._telling, *(lease.task for lease in self._active.values()))
        with contextlib.suppress(LogUnavailable):
            await self.own.rest()

    def leave(self, lanes: set[str]) -> None:
        """Begin nothing more on these lanes, and on no others; what is under way there comes to its end."""
        if (self._leaving - lanes) & set(self.own.lanes.names):
            self.stale.set()  # what came on them meanwhile was left for another, and must come again
        self._leaving = lanes
        for lease in self.active_on(lanes):
            if not lease.leaving:
                lease.leave()

    async def abandon(self, lanes: set[str]) -> None:
        """Stop what is still active on these lanes; the next owner runs it again."""
        await stop(*(lease.task for lease in self.active_on(lanes)))

    async def _guard(self, pulling: Coroutine[Any, Any, None]) -> None:
        try:
            await pulling
        except Exception as error:
            _log.warning("host %s looks again what it owns: %s", self.name, error or type(error).__name__)
            self.stale.set()

    async def _take(self, message: Msg) -> None:
        """Tell an active execution, or make the execution active with this command as its lease."""
        while len(self._telling) >= _MOST_TOLD:
            self._room.clear()
            await self._room.wait()
        try:
            command = decode_command(message.data)
        except msgspec.DecodeError as error:
            _log.error("a command on %s cannot be read and is removed: %s", message.subject, error)
            await self._acknowledge(message)
            return
        self._hand_over(command, message)

    def _hand_over(self, command: Command, message: Msg) -> None:
        lease = self._active.get(command.execution)
        if lease is not None and sequence(lease.message) == sequence(message):
            lease.message = message  # the server repeats the lease itself: from now on this one is acknowledged
        elif lease is not None:
            self._tell_soon(lease, command, message)
        elif lane_in(message.subject) in self._leaving:
            return  # the next owner of the lane gets it
        elif command.execution in self._early and not isinstance(command, StartExecution | Cancel | TerminateExecution):
            self._early[command.execution][sequence(message)] = message  # behind the others
        else:
            self._activate(command, message)

    def _was_delivered(self, message: Msg) -> bool:
        """Say whether a command may have been delivered to an owner before this one."""
        return sequence(message) <= self.own.delivered.get(lane_in(message.subject), 0)

    async def _had_begun(self, message: Msg) -> bool:
        """Say whether a start was active under some owner: one was, where it is recorded."""
        if not self._was_delivered(message):
            return False
        with contextlib.suppress(msgspec.DecodeError):
            return await self._log.last(decode_command(message.data).execution) > 0
        return True  # it cannot be read, and is to be removed

    def _activate(self, command: Command, message: Msg) -> None:
        new = isinstance(command, StartExecution) and not self._was_delivered(message)
        lease = Lease(message, lambda: self._embody(command.execution, new))
        self._active[command.execution] = lease
        lease.task = asyncio.create_task(self._live(lease, command), name=f"perdure:{command.execution}")
        for _, early in sorted(self._early.pop(command.execution, {}).items()):
            self._tell_soon(lease, decode_command(early.data), early)
        if self.room == 0:
            for other in self._active.values():
                other.hurry()

    async def _live(self, lease: Lease, command: Command) -> None:
        """Let an execution act, and then whoever was told too late, in their order before any other command."""
        try:
            await self._act(lease, command)
            self._end(lease, command.execution)
            for message in lease.told.values():
                self._hand_over(decode_command(message.data), message)
        except Deposed as error:
            self._break(error)
        finally:
            self._end(lease, command.execution)

    async def _act(self, lease: Lease, command: Command) -> None:
        """Let an execution act; its lease is given up only in the end, so that whatever breaks, it comes back."""
        pause, commands = _RESTART_AFTER, [command]
        while True:
            try:
                if await lease.embodied().run(*commands) or lease.leaving:
                    break
                queued = await self._inbox.queued_start(command.execution, lease.lane)
                if queued is None or not isinstance(command, Control):
                    break
                if not isinstance(command, Cancel | TerminateExecution):
                    self._early.setdefault(command.execution, {})[sequence(lease.message)] = lease.message
                    return
                commands = [queued, command]  # decided at once: it ends before anything of it begins
            except Deposed as error:  # a newer owner has this execution, though not our lanes: leave it to that one
                _log.warning("%s", error)
                return
            except Exception:
                _log.exception("execution %s: its actor broke; embodied again in %g s", command.execution, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            lease.renew()
        message = None
        while message is not lease.message and not lease.leaving:  # a new epoch may have delivered it again
            message = lease.message
            await self._acknowledge(message)

    def _end(self, lease: Lease, execution: str) -> None:
        lease.end()
        if self._active.get(execution) is lease:
            del self._active[execution]
            self._parked.discard(execution)
        self._changed.set()  # however it ended, there is room for another

    def _tell_soon(self, lease: Lease, command: Command, message: Msg) -> None:
        lease.told[sequence(message)] = message
        self._spawn(self._tell(lease, command, message))

    async def _tell(self, lease: Lease, command: Command, message: Msg) -> None:
        """Tell the execution, or what embodies it next where that has broken; one that was left is told by another.

        The newest command that was decided becomes the lease: whatever is older need not be remembered for ever.
        """
        try:
            while not lease.over:
                renewed = lease.renewed
                if await self._decided(lease, command):
                    lease.told.pop(sequence(message), None)  # it may have come twice
                    lease.message, older = message, lease.message
                    return None if sequence(older) == sequence(message) else await self._acknowledge(older)
                await renewed.wait()
        except Deposed as error:
            self._break(error)

    async def _decided(self, lease: Lease, command: Command) -> bool:
        try:
            return await lease.embodied().tell(command)
        except Deposed:
            raise
        except Exception as error:  # what embodied it broke, which says how, and is embodied again
            _log.warning("execution %s: a command is told again: %r", command.execution, error)
            return False

    async def _acknowledge(self, message: Msg) -> None:
        """Remove a command from the inbox, for as long as it takes; raise Deposed where this is no owner any more."""
        while True:
            try:
                return await acknowledge(self._nats, message)
            except Deposed:
                with contextlib.suppress(LogUnavailable):
                    await self.fence.look()
                    return None  # our own next epoch gets it again, and then it decides to nothing
            except LogUnavailable as error:
                _log.warning("host %s: %s", self.name, error)
            await asyncio.sleep(_TRY_AGAIN)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(ACK_WAIT / 3)
            early = [message for messages in self._early.values() for message in messages.values()]
            held = self._starts.held if self._starts else []
            kept = [*(lease.message for lease in self._active.values()), *held, *early]
            await asyncio.gather(*(still_working(self._nats, message) for message in kept), return_exceptions=True)

    def _break(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        self._room.set()

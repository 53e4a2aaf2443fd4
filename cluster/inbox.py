"""The inbox: commands on their way to executions, and timers that become commands, in one JetStream work queue."""

import asyncio
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from perdure.actors.inputs import Command, FireTimer, StartExecution, decode_command, encode_command
from perdure.errors import BadInput, LogUnavailable
from perdure.events.group_writer import GroupWriter, RefusedWrite, UnknownWrite
from perdure.events.subjects import partition_of, token_of

STREAM = "PERDURE_INBOX"
_TRY_AGAIN = 0.05  # seconds
_OVERHEAD = 4096  # bytes that headers and subject may take of the largest message

_SOLO = "solo-"


def stream_config(replicas: int = 1) -> StreamConfig:
    """Return the stream that the inbox needs: a work queue that keeps each command until it is acknowledged."""
    return StreamConfig(
        name=STREAM,
        subjects=["perdure.start.>", "perdure.cmd.>", "perdure.timer.>"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        allow_atomic=True,
        allow_msg_schedules=True,
    )


def lane_of(execution: str) -> str:
    """Return the cluster lane of an execution: its partition."""
    return str(partition_of(execution))


def solo_lane(execution: str) -> str:
    """Return the lane of an execution that its own `perdure run` drives, with all of its children."""
    return f"{_SOLO}{hashlib.sha256(execution.encode()).hexdigest()[:16]}"


def is_solo(lane: str) -> bool:
    """Say whether a lane is that of one driven execution."""
    return lane.startswith(_SOLO)


def child_lane(parent: str, child: str) -> str:
    """Return the lane of a child, given its parent's: who drives one execution drives its children too."""
    return parent if is_solo(parent) else lane_of(child)


@dataclass(frozen=True)
class Lanes:
    """A share of the inbox: lanes to serve. of: the token of the one execution that is served of them, or `*`."""

    names: tuple[str, ...] = ()
    of: str = "*"

    @classmethod
    def of_partitions(cls, partitions: Iterable[int]) -> "Lanes":
        """Return the lanes of these partitions."""
        return cls(tuple(map(str, sorted(partitions))))

    @classmethod
    def of_execution(cls, execution: str, lane: str) -> "Lanes":
        """Return the share of a lane that is one execution's."""
        return cls((lane,), token_of(execution))

    @property
    def starts(self) -> tuple[str, ...]:
        """The subjects of starts."""
        return tuple(f"perdure.start.*.{lane}.{self.of}" for lane in self.names)

    @property
    def solo(self) -> bool:
        """Whether all of them are of executions that are driven apart from the others."""
        return all(map(is_solo, self.names))

    def starts_of(self, priority: str) -> tuple[str, ...]:
        """Return the subjects of starts of one priority."""
        return tuple(f"perdure.start.{priority}.{lane}.{self.of}" for lane in self.names)

    @property
    def commands(self) -> tuple[str, ...]:
        """The subjects of commands, and of timers that have come due."""
        return tuple(f"perdure.cmd.{lane}.{self.of}" for lane in self.names)

    def only(self, names: Collection[str]) -> "Lanes":
        """Return those of the lanes that are among these."""
        return Lanes(tuple(name for name in self.names if name in names), self.of)

    def without(self, names: Collection[str]) -> "Lanes":
        """Return those of the lanes that are not among these."""
        return Lanes(tuple(name for name in self.names if name not in names), self.of)


def lane_in(subject: str) -> str:
    """Return the lane of a start's or a command's subject."""
    return subject.split(".")[-2]


class Inbox:
    """Publishes commands and timers; each call returns when the server has stored them."""

    def __init__(self, nats: Nats, timeout: float = 10.0) -> None:
        self._nats = nats
        self._js = nats.jetstream(timeout=timeout)
        self._timeout = timeout
        self._writer = GroupWriter(nats, STREAM, timeout)  # each message alone would cost the server a sync of its own

    async def open(self) -> None:
        """Hear of the stream's new leaders: what was sent to the one before, nobody may answer any more."""
        await self._nats.subscribe(f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}", cb=self._led_anew)

    async def _led_anew(self, _advisory: Msg) -> None:
        self.disconnected()

    def disconnected(self) -> None:
        """Send again what is under way: a lost connection brings no answer, and others wait behind it."""
        self._writer.disconnected()

    async def start(self, command: StartExecution) -> None:
        """Queue a start. Raises BadInput when it is too large, LogUnavailable when it is not stored."""
        subject = f"perdure.start.{command.priority}.{command.lane}.{token_of(command.execution)}"
        await self._write(subject, self._fitting(command, "the input", "start"))

    async def send(self, command: Command, lane: str) -> None:
        """Queue a command for an execution whose commands are on this lane.

        Raises BadInput when it is too large, LogUnavailable when it is not stored.
        """
        subject = f"perdure.cmd.{lane}.{token_of(command.execution)}"
        await self._write(subject, self._fitting(command, "the data", "command"))

    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        """Schedule a FireTimer command for the UTC time `due` (NATS ADR-51); the same timer again replaces it."""
        at = due.astimezone(UTC).isoformat().replace("+00:00", "Z")
        headers = {
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": f"perdure.cmd.{lane}.{token_of(execution)}",
        }
        await self._publish(
            _timer_subject(execution, timer), encode_command(FireTimer.of(execution, timer, due)), headers
        )

    async def disarm(self, execution: str, timer: str) -> None:
        """Remove a scheduled timer; one that is not there is no error."""
        try:
            await self._js.purge_stream(STREAM, subject=_timer_subject(execution, timer))
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not remove a timer: {error or type(error).__name__}") from error

    async def fire(self, execution: str, lane: str, timer: str, due: datetime) -> bool:
        """Have a timer count now that was due at this UTC time; False where a command waits for the execution anyway.

        The command is the one that the schedule makes: should that come as well, they count once.
        """
        subject = f"perdure.cmd.{lane}.{token_of(execution)}"
        try:
            await self._js.get_last_msg(STREAM, subject)
        except NotFoundError:
            await self._publish(subject, encode_command(FireTimer.of(execution, timer, due)))
            return True
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not answer: {error or type(error).__name__}") from error
        return False

    async def queued_start(self, execution: str, lane: str = "*") -> StartExecution | None:
        """Return the start of an execution that waits in the inbox, or whose execution is at work; None without one."""
        try:
            found = await self._js.get_last_msg(STREAM, f"perdure.start.*.{lane}.{token_of(execution)}")
        except NotFoundError:
            return None
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not answer: {error or type(error).__name__}") from error
        command = decode_command(found.data or b"")
        return command if isinstance(command, StartExecution) else None

    def _fitting(self, command: Command, what: str, makes: str) -> bytes:
        data, limit = encode_command(command), self._nats.max_payload - _OVERHEAD
        if len(data) > limit:
            raise BadInput(
                f"{what} for execution {command.execution!r} makes a {makes} of {len(data)} bytes, and the server "
                f"takes {limit}; put what is large into a file, and its name into {what}"
            )
        return data

    async def _write(self, subject: str, data: bytes) -> None:
        """Store a command, again where the answer was lost: it has an id, and counts once however often it is there."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            try:
                await self._writer.write(subject, data, {}, None)
            except (UnknownWrite, RefusedWrite) as error:
                if isinstance(error, RefusedWrite) or loop.time() + _TRY_AGAIN > deadline:
                    raise LogUnavailable(f"the inbox did not take a command: {error}") from error
            else:
                return
            await asyncio.sleep(_TRY_AGAIN)

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            await self._js.publish(subject, data, headers=headers)
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not take a command: {error or type(error).__name__}") from error


def _timer_subject(execution: str, timer: str) -> str:
    return f"perdure.timer.{token_of(execution)}.{token_of(timer)}"

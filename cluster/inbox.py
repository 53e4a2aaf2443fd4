"""The inbox: commands on their way to executions, and timers that become commands, in one JetStream work queue."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import (
    ConnectionClosedError,
    NoRespondersError,
)
from nats.errors import (
    Error as NatsError,
)
from nats.errors import (
    TimeoutError as NatsTimeout,
)
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from perdure.actors.inputs import Command, FireTimer, StartExecution, encode_command
from perdure.errors import BadInput, Deposed, LogUnavailable, PerdureError
from perdure.events.subjects import PARTITIONS, partition_of, token_of

STREAM = "PERDURE_INBOX"
ACK_WAIT = 30.0  # seconds without a sign of life after which the server would give a command to nobody else but us
_PULL_EXPIRES = 30.0
_HEARTBEAT = 2.0
_FORGOTTEN_AFTER = 600.0  # seconds after which the server drops the consumer of a host that is gone for good
_NOT_UNIQUE = 10100  # the server's error for overlapping filters on a work queue
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
    """The share of the inbox that one host serves: the subjects of starts, and those of commands."""

    starts: tuple[str, ...]
    commands: tuple[str, ...]

    @classmethod
    def of_partitions(cls, host: int, hosts: int) -> "Lanes":
        """Return the lanes of host number `host` of `hosts`."""
        mine = range(host, PARTITIONS, hosts)
        return cls(
            tuple(f"perdure.start.*.{part}.*" for part in mine),
            tuple(f"perdure.cmd.{part}.*" for part in mine),
        )

    @classmethod
    def of_solo(cls, lane: str) -> "Lanes":
        """Return all of the lane of a driven execution."""
        return cls((f"perdure.start.*.{lane}.*",), (f"perdure.cmd.{lane}.*",))

    @classmethod
    def of_execution(cls, execution: str, lane: str) -> "Lanes":
        """Return the share of a lane that is one execution's."""
        token = token_of(execution)
        return cls((f"perdure.start.*.{lane}.{token}",), (f"perdure.cmd.{lane}.{token}",))


class LanesTaken(PerdureError):
    """Another host consumes these lanes, or some of them."""


class Inbox:
    """Publishes commands and timers; each call returns when the server has stored them."""

    def __init__(self, nats: Nats, timeout: float = 10.0) -> None:
        self._nats = nats
        self._js = nats.jetstream(timeout=timeout)

    async def start(self, command: StartExecution) -> None:
        """Queue a start. Raises BadInput when it is too large, LogUnavailable when it is not stored."""
        subject = f"perdure.start.{command.priority}.{command.lane}.{token_of(command.execution)}"
        await self._publish(subject, self._fitting(command, "the input", "start"))

    async def send(self, command: Command, lane: str) -> None:
        """Queue a command for an execution whose commands are on this lane.

        Raises BadInput when it is too large, LogUnavailable when it is not stored.
        """
        subject = f"perdure.cmd.{lane}.{token_of(command.execution)}"
        await self._publish(subject, self._fitting(command, "the data", "command"))

    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        """Schedule a FireTimer command for the UTC time `due` (NATS ADR-51); the same timer again replaces it."""
        name = f"{execution}/{timer}/{due.isoformat()}"
        at = due.astimezone(UTC).isoformat().replace("+00:00", "Z")
        headers = {
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": f"perdure.cmd.{lane}.{token_of(execution)}",
        }
        await self._publish(
            _timer_subject(execution, timer), encode_command(FireTimer(name, execution, timer, due)), headers
        )

    async def disarm(self, execution: str, timer: str) -> None:
        """Remove a scheduled timer; one that is not there is no error."""
        try:
            await self._js.purge_stream(STREAM, subject=_timer_subject(execution, timer))
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not remove a timer: {error or type(error).__name__}") from error

    def _fitting(self, command: Command, what: str, makes: str) -> bytes:
        data, limit = encode_command(command), self._nats.max_payload - _OVERHEAD
        if len(data) > limit:
            raise BadInput(
                f"{what} for execution {command.execution!r} makes a {makes} of {len(data)} bytes, and the server "
                f"takes {limit}; put what is large into a file, and its name into {what}"
            )
        return data

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            await self._js.publish(subject, data, headers=headers)
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not take a command: {error or type(error).__name__}") from error


class Consumer:
    """A durable consumer that one host keeps pulling; it dies with its epoch, and then every ack says so."""

    def __init__(
        self, nats: Nats, name: str, subjects: tuple[str, ...], handle: Callable[[Msg], Awaitable[None]]
    ) -> None:
        self.name = name
        self._nats = nats
        self._js = nats.jetstream()
        self._subjects = subjects
        self._handle = handle
        self._replies: Subscription | None = None

    async def create(self) -> None:
        """Create the consumer on the server: every command that nobody acknowledged is delivered to it at once.

        Raises LanesTaken when another consumer filters any of its subjects.
        """
        config = ConsumerConfig(
            durable_name=self.name,
            filter_subjects=list(self._subjects),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            max_deliver=-1,
            max_ack_pending=-1,
            inactive_threshold=_FORGOTTEN_AFTER,
        )
        try:
            await self._js.add_consumer(STREAM, config)
        except BadRequestError as error:
            if error.err_code == _NOT_UNIQUE:
                raise LanesTaken(f"another consumer has the lanes of {self.name}") from None
            raise

    async def delete(self) -> None:
        """Give up the consumer: what it held goes to the next one. One that is gone already is no error."""
        with contextlib.suppress(NatsError, ConnectionError):
            await self._js.delete_consumer(STREAM, self.name)

    async def pull(self, credit: Callable[[], int], changed: asyncio.Event) -> None:
        """Keep one pull request outstanding for as many commands as `credit()` allows; handle each as it comes.

        changed: set it when the credit has grown. Raises Deposed when the consumer is gone.
        """
        inbox = self._nats.new_inbox()
        self._replies = await self._nats.subscribe(inbox)
        try:
            while True:
                while (batch := credit()) <= 0:
                    changed.clear()
                    await changed.wait()
                await self._request(inbox, batch)
                await self._take(batch)
        finally:
            if not self._nats.is_closed:
                await self._replies.unsubscribe()

    async def _request(self, inbox: str, batch: int) -> None:
        query = {"batch": batch, "expires": int(_PULL_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        await self._nats.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{self.name}", json.dumps(query).encode(), reply=inbox
        )

    async def _take(self, batch: int) -> None:
        """Handle the messages of one pull request until it is used up or has expired."""
        assert self._replies is not None  # noqa: S101 (pull subscribed)
        while batch:
            try:
                message = await self._replies.next_msg(timeout=_HEARTBEAT * 2.5)
            except NatsTimeout:
                return  # the server was away and has forgotten the request; ask again
            status = (message.headers or {}).get("Status") if not message.data else None
            if status is None:
                batch -= 1
                await self._handle(message)
            elif status == "100":
                continue  # a heartbeat
            elif status in ("503", "404") or (status == "409" and "Deleted" in str(message.headers)):
                raise Deposed(f"the consumer {self.name} was replaced by a newer owner's")
            else:
                return


async def acknowledge(nats: Nats, message: Msg) -> None:
    """Remove a command from the inbox; raise Deposed when another owner has it now."""
    await _say(nats, message, b"+ACK")


async def still_working(nats: Nats, message: Msg) -> None:
    """Keep the hold on a command for another ACK_WAIT; raise Deposed when another owner has it now."""
    await _say(nats, message, b"+WPI")


async def _say(nats: Nats, message: Msg, word: bytes) -> None:
    try:
        await nats.request(message.reply, word, timeout=ACK_WAIT / 3)
    except NoRespondersError:
        raise Deposed("a newer owner holds this command") from None
    except (NatsTimeout, ConnectionClosedError, ConnectionError) as error:
        raise LogUnavailable(f"the inbox did not answer: {error or type(error).__name__}") from error


async def is_alive(nats: Nats, host: str) -> bool:
    """Say whether there is a host of this name, here or anywhere else on this server; a slow one counts."""
    try:
        await nats.request(f"perdure.host.{host}", b"", timeout=2.0)
    except NoRespondersError:
        return False
    except NatsTimeout:
        return True
    return True


async def take_over(nats: Nats, host: str, lanes: Lanes) -> None:
    """Delete the consumers of this host's earlier epochs, and those that hosts now gone left on the same lanes.

    Whoever still pulls from one of them is deposed; the commands that it held go to the next consumer.
    """
    js = nats.jetstream()
    mine = (*lanes.starts, *lanes.commands)
    for info in await js.consumers_info(STREAM):
        owner = str(info.name).rsplit("-", 2)[0]
        theirs = info.config.filter_subjects or [str(info.config.filter_subject)]
        in_the_way = any(overlap(one, other) for one in theirs for other in mine)
        if owner == host or (in_the_way and not await is_alive(nats, owner)):
            with contextlib.suppress(NotFoundError):  # someone else was faster
                await js.delete_consumer(STREAM, str(info.name))


def overlap(one: str, other: str) -> bool:
    """Say whether two subjects, with `*` for one token, can match the same subject."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    same_length = one.count(".") == other.count(".")
    return same_length and all(left == right or "*" in (left, right) for left, right in pairs)


def _timer_subject(execution: str, timer: str) -> str:
    return f"perdure.timer.{token_of(execution)}.{token_of(timer)}"

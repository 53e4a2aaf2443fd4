"""A host's consumers of the inbox: pulled without a pause, named after the epoch, and void as soon as it is over."""

import contextlib
import json
from collections.abc import Awaitable, Callable

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import BadRequestError, NotFoundError

from perdure.cluster.inbox import STREAM
from perdure.errors import Deposed, LogUnavailable, PerdureError

ACK_WAIT = 30.0  # seconds without a sign of life after which the server would give a command to nobody else but us
PULL_EXPIRES = 30.0
HEARTBEAT = 2.0
_FORGOTTEN_AFTER = 600.0  # seconds after which the server drops the consumer of a host that is gone for good
_NOT_UNIQUE = 10100  # the server's error for overlapping filters on a work queue


class LanesTaken(PerdureError):
    """Another host has this name, or consumes one of these lanes."""


class CommandsLost(PerdureError):
    """Commands were delivered and did not arrive: the consumer must be made anew, that they come again in order."""


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
        self.arrived = 0

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
        await delete_consumer(self._nats, self.name)

    async def pull(self, batch: int) -> None:
        """Keep one pull request outstanding, for so many commands at once; handle each as it comes.

        Raises Deposed when the consumer is gone, CommandsLost when some did not arrive.
        """
        inbox = self._nats.new_inbox()
        self._replies = await self._nats.subscribe(inbox)
        try:
            while True:
                await self._request(inbox, batch)
                await self._take(batch)
        finally:
            if not self._nats.is_closed:
                with contextlib.suppress(NatsError, OSError):
                    await self._replies.unsubscribe()

    async def _request(self, inbox: str, batch: int) -> None:
        query = {"batch": batch, "expires": int(PULL_EXPIRES * 1e9), "idle_heartbeat": int(HEARTBEAT * 1e9)}
        await self._nats.publish(next_request(self.name), json.dumps(query).encode(), reply=inbox)

    async def _take(self, batch: int) -> None:
        """Handle the messages of one pull request until it is used up or has expired."""
        assert self._replies is not None  # noqa: S101 (pull subscribed)
        for _ in range(batch):
            message = await self._next()
            if message is None:
                return
            position_of(message, self)
            await self._handle(message)

    async def _next(self) -> Msg | None:
        """Return the next command; None when the request is over, or the server has forgotten it: ask again."""
        assert self._replies is not None  # noqa: S101 (pull subscribed)
        while True:
            try:
                message = await self._replies.next_msg(timeout=HEARTBEAT * 2.5)
            except NatsTimeout:
                return None
            if message.data or not (message.headers or {}).get("Status"):
                return message
            if not check_status(message, self.name):
                return None


def next_request(consumer: str) -> str:
    """Return the subject on which a consumer is asked for its next commands."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}"


def check_status(message: Msg, consumer: str) -> bool:
    """Say whether a status is a heartbeat, and the request still stands; raise Deposed when the consumer is gone."""
    status = (message.headers or {})["Status"]
    if status == "503" or (status == "409" and "Deleted" in str(message.headers)):
        raise Deposed(f"the consumer {consumer} was replaced by a newer owner's")
    return status == "100"


def position_of(message: Msg, consumer: Consumer) -> int:
    """Return a command's place in the stream; raise CommandsLost when the delivery before it did not arrive."""
    position = message.metadata.sequence
    if position.consumer != consumer.arrived + 1:
        raise CommandsLost(f"{consumer.name}: delivery {position.consumer} follows delivery {consumer.arrived}")
    consumer.arrived = position.consumer
    return int(position.stream)


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


async def delete_consumer(nats: Nats, name: str) -> None:
    """Delete a consumer of the inbox; one that is gone already is no error. Raises LogUnavailable."""
    try:
        await nats.jetstream().delete_consumer(STREAM, name)
    except NotFoundError:
        return
    except (NatsError, ConnectionError) as error:
        raise LogUnavailable(f"the inbox did not answer: {error or type(error).__name__}") from error


def overlap(one: str, other: str) -> bool:
    """Say whether two subjects, with `*` for one token, can match the same subject."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    same_length = one.count(".") == other.count(".")
    return same_length and all(left == right or "*" in (left, right) for left, right in pairs)

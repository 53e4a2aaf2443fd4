"""Sinks: where events are handed on to. A sink takes messages in order, and says when it has them."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol
from urllib.parse import urlparse

import nats
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from perdure.errors import BadInput, EnvironmentProblem, SinkUnavailable
from perdure.events.cloud_events import CONTENT_TYPE, Message
from perdure.events.server_checks import masked
from perdure.events.subjects import token_of

GROUP = "perdure.sinks"
"""The entry point group: its name is a URL scheme, its value an `async` function from the URL to an EventSink."""


class EventSink(Protocol):
    """Another bus. It may get a message more than once, with the same id each time."""

    async def put(self, messages: Sequence[Message]) -> None:
        """Hand messages on, in order; return when the other side has all of them. Raises SinkUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...


class MemorySink:
    """Keeps messages in a list: for tests."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def put(self, messages: Sequence[Message]) -> None:
        """See EventSink."""
        self.messages.extend(messages)

    async def close(self) -> None:
        """See EventSink."""


class NatsSink:
    """Publishes to `<subject>.<type>.<execution>` on JetStream; a stream of the other side must take the subject."""

    def __init__(self, url: str, subject: str, token: str | None = None) -> None:
        self._url, self._subject, self._token = url, subject, token
        self._nats: Nats | None = None

    async def put(self, messages: Sequence[Message]) -> None:
        """See EventSink. The id is the Nats-Msg-Id, so the stream drops what comes twice within its window."""
        try:
            if self._nats is None:
                self._nats = await nats.connect(
                    self._url, token=self._token, name="perdure-sink", connect_timeout=5, allow_reconnect=False,
                    max_reconnect_attempts=1, reconnect_time_wait=0.1, error_cb=_told_by_put,
                )  # fmt: skip
            js = self._nats.jetstream()
            for message in messages:  # one by one, for their order
                subject = f"{self._subject}.{message.type}.{token_of(message.execution)}"
                headers = {"Nats-Msg-Id": message.id, "Content-Type": CONTENT_TYPE}
                await js.publish(subject, message.body, headers=headers)
        except (NatsError, OSError) as error:
            await self.close()  # who comes again connects again
            raise SinkUnavailable(
                f"the sink {masked(self._url)} did not take an event: {error or type(error).__name__}; does a stream "
                f"there take {self._subject}.>?"
            ) from error

    async def close(self) -> None:
        """See EventSink."""
        connection, self._nats = self._nats, None
        if connection is not None:
            await connection.close()


async def _told_by_put(_: Exception) -> None:
    """Say nothing: what fails is raised by `put`."""


async def open_sink(url: str) -> EventSink:
    """Open the sink that a URL names: nats://host/subject, kafka://host:9092/topic, or a scheme that a package adds.

    Raises BadInput, and EnvironmentProblem where the package of the scheme is not installed.
    """
    parsed = urlparse(url)
    known: dict[str, Callable[[str], Awaitable[EventSink]]] = {"nats": _open_nats, "kafka": _open_kafka}
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if parsed.scheme in known:
        return await known[parsed.scheme](url)
    if parsed.scheme in others:
        opened: EventSink = await others[parsed.scheme].load()(url)
        return opened
    raise BadInput(f"no sink is known for {masked(url)!r}: its scheme is one of {', '.join(sorted({*known, *others}))}")


def _place(url: str, what: str, example: str) -> tuple[str, str]:
    parsed = urlparse(url)
    name = parsed.path.strip("/")
    if not parsed.netloc or not name or "/" in name:
        raise BadInput(f"the sink {masked(url)!r} names no {what}; write it as {example}")
    return parsed.netloc, name


async def _open_nats(url: str) -> EventSink:
    host, subject = _place(url, "subject", "nats://host:4222/subject")
    return NatsSink(f"nats://{host}", subject)


async def _open_kafka(url: str) -> EventSink:
    hosts, topic = _place(url, "topic", "kafka://host:9092/topic")
    try:
        from perdure.events.kafka_sink import KafkaSink
    except ModuleNotFoundError:
        raise EnvironmentProblem("sinks on Kafka need aiokafka: pip install 'perdure[kafka]'") from None
    return KafkaSink(topic, bootstrap_servers=hosts)

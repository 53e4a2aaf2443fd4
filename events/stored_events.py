"""Stored events of the `eventsourcing` library as messages of a stream: subjects, headers, and how they are read.

One stream for each application: `<root>.event.<kind>.<originator>` holds an originator's events, one message each;
`<root>.tracking.<upstream>` how far an upstream application was processed; `<root>.value.<name>` values of a view.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent
from nats.aio.msg import Msg
from nats.js.api import RePublish, StorageType, StreamConfig

from perdure.events.direct_get import DirectGet
from perdure.events.subjects import execution_of, token_of

ROOT = "perdure.es"
LIVE = "perdure.es-live"
_TOPIC, _VERSION = "Es-Topic", "Es-Version"
_TOP = "Es-Top-Version"  # of the subject up to here; only, and from then on, where versions did not come in order
_EMPTY = "="  # the token of an empty name, which no other name has
_SEEK_FROM = 100  # events to be left out, from which on looking for the first one wanted pays
_NEAR = 500  # sequences
_PLAIN = ":.<>[](),"


class Source(NamedTuple):
    """A stream of events. subject: of all of them; live: where a message appears after each; the rest: their form."""

    stream: str
    subject: str
    live: str
    subject_of: Callable[[UUID | str], str]
    decode: Callable[[Msg], Notification]


def stream_config(stream: str, replicas: int = 1) -> StreamConfig:
    """Return the stream that an application's recorders need; each new event shows, without its data, under LIVE."""
    return StreamConfig(
        name=stream,
        subjects=[f"{ROOT}.{stream}.>"],
        storage=StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        allow_atomic=True,
        allow_rollup_hdrs=True,
        republish=RePublish(src=f"{ROOT}.{stream}.event.>", dest=f"{LIVE}.{stream}.>", headers_only=True),
    )


def source(stream: str) -> Source:
    """Return where an application's events are and how they are decoded."""
    root = f"{ROOT}.{stream}.event"
    return Source(stream, f"{root}.>", f"{LIVE}.{stream}.>", lambda id_: f"{root}.{_originator_token(id_)}", _decode)


def tracking_subject(stream: str, application: str) -> str:
    """Return the subject that tracks an upstream application."""
    return f"{ROOT}.{stream}.tracking.{_token(application)}"


def value_subject(stream: str, name: str) -> str:
    """Return the subject of a named value of a view."""
    return f"{ROOT}.{stream}.value.{_token(name)}"


def headers_of(event: StoredEvent, top: int | None) -> dict[str, str]:
    """Return the headers of an event. top: the greatest version up to it, where versions did not come in order."""
    headers = {_TOPIC: quote(event.topic, _PLAIN), _VERSION: str(event.originator_version)}
    return headers if top is None else {**headers, _TOP: str(top)}


def sequence_of(message: Msg | None) -> int:
    """Return a read message's sequence in its stream; 0 for none."""
    return int((message.headers or {})["Nats-Sequence"]) if message else 0


def in_order(message: Msg) -> bool:
    """Return whether the versions of the originator up to this message came in order."""
    return _TOP not in (message.headers or {})


class EventReader:
    """Reads the events of one source. Every method raises LogUnavailable when the stream does not answer."""

    def __init__(self, gets: DirectGet, source: Source) -> None:
        self._gets = gets
        self._source = source

    async def events_of(
        self, originator: UUID | str, gt: int | None, lte: int | None, limit: int | None, *, desc: bool
    ) -> list[StoredEvent]:
        """Return the events of one originator with versions in `(gt, lte]`, by version."""
        subject, after = self._source.subject_of(originator), 0
        if gt is not None or (desc and limit == 1):
            # An aggregate that is cached, or the last snapshot: the last message mostly is the whole answer.
            last = await self._gets.last(subject)
            if last is None:
                return []
            event = self._source.decode(last)
            top = self.top_of(last)
            if gt is not None and top <= gt:
                return []
            if desc and limit == 1 and event.originator_version == top and (lte is None or top <= lte):
                return [_plain(event)]
            if gt is not None and gt >= _SEEK_FROM and in_order(last):
                after = await self._seek(subject, gt, sequence_of(last))
        found = [_plain(self._source.decode(message)) async for message in self._gets.read(subject, after)]
        found = [event for event in found if (gt is None or event.originator_version > gt)]
        found = [event for event in found if (lte is None or event.originator_version <= lte)]
        return sorted(found, key=lambda event: event.originator_version, reverse=desc)[:limit]

    def top_of(self, message: Msg) -> int:
        """Return the greatest version of an originator up to this message of it."""
        top = (message.headers or {}).get(_TOP)
        return int(top) if top else self._source.decode(message).originator_version

    async def _seek(self, subject: str, gt: int, last: int) -> int:
        """Return a sequence not far before the first version greater than `gt`, where versions came in order."""
        low, high = 0, last
        while high - low > _NEAR:
            middle = (low + high) // 2
            nearest = [message async for message in self._gets.read(subject, middle, 1)]
            if nearest and self._source.decode(nearest[0]).originator_version <= gt:
                low = sequence_of(nearest[0])
            else:
                high = middle
        return low

    async def versions_of(self, subject: str) -> set[int]:
        """Return every version on an originator's subject."""
        return {self._source.decode(message).originator_version async for message in self._gets.read(subject)}

    async def notifications(
        self, after: int, limit: int, stop: int | None, topics: Sequence[str]
    ) -> tuple[list[Notification], int]:
        """Return the events behind the sequence `after` and up to `stop`, at most `limit`, and how far it looked."""
        found: list[Notification] = []
        async for message in self._gets.read(self._source.subject, after, None if topics else limit):
            if len(found) == limit or (stop is not None and sequence_of(message) > stop):
                break
            after = sequence_of(message)
            notification = self._source.decode(message)
            if not topics or notification.topic in topics:
                found.append(notification)
        return found, after

    async def last_id(self) -> int | None:
        """Return the sequence of the last event."""
        return sequence_of(await self._gets.last(self._source.subject)) or None


def _plain(event: Notification) -> StoredEvent:
    return StoredEvent(event.originator_id, event.originator_version, event.topic, event.state)


def _decode(message: Msg) -> Notification:
    headers = message.headers or {}
    kind, token = headers["Nats-Subject"].split(".")[-2:]
    return Notification(
        originator_id=UUID(token) if kind == "uuid" else _text(token),
        originator_version=int(headers[_VERSION]),
        topic=unquote(headers[_TOPIC]),
        state=message.data,
        id=int(headers["Nats-Sequence"]),
    )


def _originator_token(originator: UUID | str) -> str:
    return f"uuid.{originator.hex}" if isinstance(originator, UUID) else f"str.{_token(originator)}"


def _token(text: str) -> str:
    return token_of(text) or _EMPTY


def _text(token: str) -> str:
    return "" if token == _EMPTY else execution_of(token)

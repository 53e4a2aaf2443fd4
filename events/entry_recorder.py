"""Perdure's own log for the `eventsourcing` library: each entry is one stored event, to be read and never written."""

from collections.abc import Sequence
from typing import Any

import msgspec
from eventsourcing.persistence import Notification, NotSupportedError, StoredEvent
from eventsourcing.utils import get_topic
from nats.aio.msg import Msg

from perdure.errors import CorruptEntry
from perdure.events.entry import Entry, Happened, Recorded
from perdure.events.jetstream_log import STREAM
from perdure.events.jetstream_recorders import JetStreamApplicationRecorder
from perdure.events.stored_events import Source
from perdure.events.subjects import EVENTS, LIVE, events_subject, execution_of

TOPIC = get_topic(Entry)


class EntryRecorder(JetStreamApplicationRecorder):
    """Reads the log of executions: originator id: the execution's, version: the entry's number, state: as stored."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Raise NotSupportedError: only the owner of an execution appends to it."""
        raise NotSupportedError(f"the stream {STREAM} is read-only here; send the execution a command instead")


def entries() -> Source:
    """Return where the entries are and how they are decoded."""
    return Source(STREAM, f"{EVENTS}.>", f"{LIVE}.>", lambda execution: events_subject(str(execution)), _decode)


def unpack(notification: Notification) -> list[Happened]:
    """Return the events inside an entry. Raises CorruptEntry when this release cannot read it."""
    return Recorded(str(notification.originator_id), notification.id, notification.state).unpack()


class _Numbered(msgspec.Struct):
    """Of an entry, what is needed to hand it on: its events may be of a later release."""

    n: int


_numbers = msgspec.json.Decoder(_Numbered)


def _decode(message: Msg) -> Notification:
    headers = message.headers or {}
    execution, position = execution_of(headers["Nats-Subject"].rpartition(".")[2]), int(headers["Nats-Sequence"])
    try:
        number = _numbers.decode(message.data).n
    except msgspec.DecodeError as error:
        raise CorruptEntry(f"execution {execution!r}, position {position}: this is no entry: {error}") from None
    return Notification(execution, number, TOPIC, message.data, position)

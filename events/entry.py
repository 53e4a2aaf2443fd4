"""The entry: one message of the log, holding every decision that followed from one step, and its JSON codec."""

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from perdure.errors import CorruptEntry
from perdure.events.upcasting import FORMAT, upcast
from perdure.events.vocabulary import Event


class Blob(msgspec.Struct, frozen=True):
    """Where a large value is: `at` is its place in the entry (a JSON pointer), `size` its bytes, `digest` a SHA-256."""

    at: str
    name: str
    size: int
    digest: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one append adds to an execution.

    n: the entry's number within its execution, from 1. prev: digest of the entry before ("" for the first).
    causes: ids of the commands that it answers. epoch: of the owner that wrote it. at: UTC time of the decision.
    v: version of this format. blobs: its values that are kept beside it.
    """

    id: str
    n: int
    prev: str
    at: datetime
    events: list[Event]
    causes: list[str] = []
    epoch: int = 0
    correlation: str | None = None
    traceparent: str | None = None
    v: int = 1
    blobs: list[Blob] = []


class Recorded(msgspec.Struct, frozen=True):
    """A stored entry: the execution it belongs to, its position in the whole log, and its stored bytes.

    values: the content of its blobs by name, where they were read too. imported: whether it happened elsewhere, before.
    """

    execution: str
    position: int
    data: bytes
    values: dict[str, bytes] = {}
    imported: bool = False

    @property
    def slim(self) -> Entry:
        """The decoded entry as stored, without the values in blobs; raises CorruptEntry as `entry` does."""
        try:
            return decode(self.data)
        except CorruptEntry as error:
            raise CorruptEntry(
                f"execution {self.execution!r}, position {self.position}: this release cannot read the entry: {error}"
            ) from None

    @property
    def entry(self) -> Entry:
        """The decoded entry; raises CorruptEntry when this release cannot read it."""
        entry = self.slim
        for blob in entry.blobs if self.values else ():
            entry = _with_value(entry, blob.at, self.values[blob.name])
        return msgspec.structs.replace(entry, blobs=[]) if self.values else entry

    def unpack(self) -> "list[Happened]":
        """Return the events of the entry, each with where and when it happened."""
        entry = self.entry
        return [
            Happened(self.execution, entry.n, self.position, entry.at, event, i, self.imported)
            for i, event in enumerate(entry.events)
        ]

    @property
    def digest(self) -> str:
        """The digest that the next entry names as `prev`."""
        return hashlib.sha256(self.data).hexdigest()


class Happened(msgspec.Struct, frozen=True):
    """One event as subscribers see it. n: number of its entry within the execution; at: UTC time; i: which of it.

    position: of its entry in the whole log. imported: whether it happened elsewhere, before.
    """

    execution: str
    n: int
    position: int
    at: datetime
    event: Event
    i: int = 0
    imported: bool = False

    @property
    def id(self) -> str:
        """What tells this event from every other in the log, however often it is delivered."""
        return f"{self.position}.{self.i}"


def encode(entry: Entry) -> bytes:
    """Return the stored form of an entry: compact JSON in UTF-8."""
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """Return the entry that the stored bytes hold, brought up to today's format; raise CorruptEntry.

    The first byte of plain JSON is `{`; other first bytes are left for compressed or encrypted forms.
    """
    try:
        entry = _decoder.decode(data)
        return entry if entry.v == FORMAT else _upcast(data)
    except msgspec.DecodeError as error:
        try:
            return _upcast(data)
        except (msgspec.DecodeError, KeyError, TypeError):
            raise CorruptEntry(f"{error}; a newer release may have written it") from None


def as_data(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain JSON data, as a fork keeps it."""
    return dict(msgspec.to_builtins(entry))


def from_data(data: dict[str, Any]) -> Entry:
    """Return the entry that plain data hold, brought up to today's format; raise CorruptEntry."""
    return decode(msgspec.json.encode(data))


def _upcast(data: bytes) -> Entry:
    return msgspec.convert(upcast(msgspec.json.decode(data, type=dict[str, Any])), Entry)


def _with_value(entry: Entry, at: str, content: bytes) -> Entry:
    """Put a value back in the place that a JSON pointer names: all events, or one field of one."""
    _, _, *rest = at.split("/")
    if not rest:
        return msgspec.structs.replace(entry, events=msgspec.json.decode(content, type=list[Event]))
    number, field = int(rest[0]), rest[1]
    events = list(entry.events)
    events[number] = msgspec.structs.replace(events[number], **{field: msgspec.json.decode(content)})
    return msgspec.structs.replace(entry, events=events)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)

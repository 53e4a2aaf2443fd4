"""The entry: one message of the log, holding every decision that followed from one step, and its JSON codec."""

import hashlib
from datetime import datetime

import msgspec

from perdure.errors import CorruptEntry
from perdure.events.vocabulary import Event


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one append adds to an execution.

    n: the entry's number within its execution, from 1. prev: digest of the entry before ("" for the first).
    causes: ids of the commands that it answers. epoch: of the owner that wrote it. at: UTC time of the decision.
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


class Recorded(msgspec.Struct, frozen=True):
    """A stored entry: the execution it belongs to, its position in the whole log, and its stored bytes."""

    execution: str
    position: int
    data: bytes

    @property
    def entry(self) -> Entry:
        """The decoded entry; raises CorruptEntry when this release cannot read it."""
        try:
            return _decoder.decode(self.data)
        except msgspec.DecodeError as error:
            raise CorruptEntry(
                f"execution {self.execution!r}, position {self.position}: this release cannot read the entry: {error}"
            ) from None

    def unpack(self) -> "list[Happened]":
        """Return the events of the entry, each with where and when it happened."""
        entry = self.entry
        return [Happened(self.execution, entry.n, self.position, entry.at, event) for event in entry.events]

    @property
    def digest(self) -> str:
        """The digest that the next entry names as `prev`."""
        return hashlib.sha256(self.data).hexdigest()


class Happened(msgspec.Struct, frozen=True):
    """One event as subscribers see it. n: number of its entry within the execution; at: UTC time."""

    execution: str
    n: int
    position: int
    at: datetime
    event: Event


def encode(entry: Entry) -> bytes:
    """Return the stored form of an entry: compact JSON in UTF-8."""
    return _encoder.encode(entry)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)

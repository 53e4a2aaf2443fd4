"""The log port: the few operations that every log implementation gives, whatever it stores on."""

from collections.abc import AsyncIterator
from typing import Protocol

from perdure.events.entry import Entry, Recorded


class Log(Protocol):
    """An append-only log of entries, grouped by execution and totally ordered by position (from 1)."""

    async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
        """Append one entry behind the position `expected` (0 for a new execution) and return it as stored.

        It returns only when the entry is durable. Appending the same entry id again is answered with the stored
        one. Raises VersionConflict when the execution's last entry is elsewhere, and LogUnavailable when the
        log does not answer.
        """
        ...

    def read(self, execution: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of one execution behind the position `after`, oldest first, at most `limit`.

        Values in blobs are read with them; raises CorruptBlob where one cannot be had.
        """
        ...

    def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of all executions behind the position `after`, in order, at most `limit`.

        Large values stay in their blobs, here and when all are followed: the entry names them.
        """
        ...

    def follow(self, execution: str | None = None, after: int = 0) -> AsyncIterator[Recorded]:
        """Yield the entries of one execution, or of all, behind `after`, and go on with new ones as they come."""
        ...

    async def with_events(self, recorded: Recorded) -> Recorded:
        """Return an entry of all executions with those events that it left in a blob; raise CorruptBlob, CorruptEntry.

        Single large values stay where they are, but for what nodes wait for.
        """
        ...

    async def with_values(self, recorded: Recorded) -> Recorded:
        """Return an entry that was read among those of all with all of its values; raise CorruptBlob."""
        ...

    async def identity(self) -> str:
        """Return what tells this log from every other, for as long as it exists."""
        ...

    async def last(self, execution: str | None = None) -> int:
        """Return the position of the last entry of an execution, or of the whole log; 0 where there is none."""
        ...

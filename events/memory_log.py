"""The log in memory: for tests, and for executions that need not outlive their process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import uuid4

from perdure.errors import VersionConflict
from perdure.events.entry import Entry, Recorded, encode


class MemoryLog:
    """Keeps entries in lists; the reference that other logs are held against."""

    def __init__(self) -> None:
        self._identity = uuid4().hex
        self._all: list[Recorded] = []
        self._by_execution: dict[str, list[Recorded]] = defaultdict(list)
        self._ids: dict[str, Recorded] = {}
        self._grown = asyncio.Event()

    async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
        """Append one entry; see Log.append."""
        if entry.id in self._ids:
            return self._ids[entry.id]
        actual = await self.last(execution)
        if actual != expected:
            raise VersionConflict(execution, expected, actual)
        recorded = Recorded(execution, len(self._all) + 1, encode(entry))
        self._all.append(recorded)
        self._by_execution[execution].append(recorded)
        self._ids[entry.id] = recorded
        self._grown.set()
        self._grown = asyncio.Event()
        return recorded

    async def read(self, execution: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of one execution; see Log.read."""
        entries = self._by_execution.get(execution, [])
        for recorded in [item for item in entries if item.position > after][:limit]:
            yield recorded

    async def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of all executions; see Log.read_all."""
        for recorded in self._all[after:][:limit]:
            yield recorded

    async def follow(self, execution: str | None = None, after: int = 0) -> AsyncIterator[Recorded]:
        """Yield entries as they come; see Log.follow."""
        while True:
            grown = self._grown
            batch = self.read(execution, after) if execution else self.read_all(after)
            async for recorded in batch:
                after = recorded.position
                yield recorded
            await grown.wait()

    async def with_events(self, recorded: Recorded) -> Recorded:
        """Return the entry, which is whole; see Log.with_events."""
        return recorded

    async def with_values(self, recorded: Recorded) -> Recorded:
        """Return the entry, which is whole; see Log.with_values."""
        return recorded

    async def identity(self) -> str:
        """Return what tells this log from every other; see Log.identity."""
        return self._identity

    async def last(self, execution: str | None = None) -> int:
        """Return the last position; see Log.last."""
        entries = self._by_execution.get(execution, []) if execution else self._all
        return entries[-1].position if entries else 0

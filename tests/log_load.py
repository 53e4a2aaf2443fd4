"""Load on a log, whose every acknowledgement is remembered; as a script, a writer process that may be killed.

`python log_load.py URL EXECUTION...` appends to each execution, one after the other and behind what is there, until
it ends, and says `EXECUTION ENTRY_ID POSITION` for every append once that is acknowledged.
"""

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from perdure.cluster.connection import open_connection
from perdure.events.entry import Entry, Recorded
from perdure.events.log import Log
from perdure.events.vocabulary import NodeSucceeded


class Acknowledged:
    """What the log acknowledged: of each execution, entry ids and positions in their order."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        self.count = 0
        self._more = asyncio.Event()

    def add(self, execution: str, entry_id: str, position: int) -> None:
        self.of[execution].append((entry_id, position))
        self.count += 1
        self._more.set()

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        wanted = self.count + count
        while self.count < wanted:
            self._more.clear()
            await self._more.wait()


async def append_on_and_on(
    log: Log, execution: str, acknowledged: Callable[[str, str, int], None], stop: asyncio.Event, last: Recorded | None
) -> None:
    """Append entry after entry to one execution, behind its last one; no failure is forgiven."""
    n, position = (last.entry.n, last.position) if last else (0, 0)
    while not stop.is_set():
        n += 1
        entry = Entry(uuid4().hex, n, "", datetime.now(UTC), [NodeSucceeded("a", 1, n)])
        position = (await log.append(execution, entry, position)).position
        acknowledged(execution, entry.id, position)


async def check(log: Log, acknowledged: Acknowledged) -> int:
    """Return how many entries the log holds, all acknowledged ones where they were said to be, none twice, no gap."""
    stored: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    async for recorded in log.read_all():
        entry = recorded.entry
        stored[recorded.execution].append((entry.id, recorded.position))
        assert entry.n == len(stored[recorded.execution]), f"{recorded.execution}: entries are missing or double"
    for execution, entries in acknowledged.of.items():
        assert set(entries) <= set(stored[execution]), f"{execution}: acknowledged entries are lost"
    ids = [entry_id for entries in stored.values() for entry_id, _ in entries]
    assert len(set(ids)) == len(ids), "an entry is stored twice"
    return len(ids)


async def main(url: str, executions: list[str]) -> None:
    def say(execution: str, entry_id: str, position: int) -> None:
        os.write(1, f"{execution} {entry_id} {position}\n".encode())  # at once and whole, or not at all

    log = (await open_connection(url, None)).log
    last = {recorded.execution: recorded async for recorded in log.read_all()}
    never = asyncio.Event()
    await asyncio.gather(*(append_on_and_on(log, each, say, never, last.get(each)) for each in executions))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))

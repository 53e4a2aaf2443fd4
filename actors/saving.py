"""Saving an execution's state beside the hot path, once it is worth it."""

import asyncio
import logging

from perdure.actors.folded import Folded
from perdure.actors.snapshot import EVERY, pack
from perdure.errors import LogUnavailable
from perdure.events.snapshots import Snapshots

_AT_REST = 8
_log = logging.getLogger("perdure.execution")


class Saving:
    """Saves the state once the entries since the last time are many, and weigh a third of it.

    Entries that a load had to fold count too: after a long load the next append saves what it was worth. tail: so many
    entries were folded since the last snapshot. under_way: the last one.
    """

    def __init__(self, execution: str, snapshots: Snapshots | None) -> None:
        self._id = execution
        self._snapshots = snapshots
        self.tail = self._tail_bytes = self._snapshot_bytes = 0
        self.under_way: asyncio.Task[None] | None = None

    def appended(self, folded: Folded, size: int) -> None:
        """Take note of one more entry, of so many bytes; save the state, if it is time for that."""
        self.tail += 1
        self._tail_bytes += size
        self._save_where_worth(folded, 1)

    def rests(self, folded: Folded) -> None:
        """Take note that nothing happens for now: an eighth of a tail is enough, for whoever wakes it will load it."""
        self._save_where_worth(folded, _AT_REST)

    def _save_where_worth(self, folded: Folded, times: int) -> None:
        short = folded.n < EVERY or times * self.tail < EVERY or 3 * times * self._tail_bytes < self._snapshot_bytes
        if self._snapshots is None or short:
            return
        data = pack(folded)
        if data is None or (self.under_way is not None and not self.under_way.done()):
            return
        self.tail, self._tail_bytes, self._snapshot_bytes = 0, 0, len(data)
        self.under_way = asyncio.create_task(self._save(self._snapshots, data))

    async def _save(self, snapshots: Snapshots, data: bytes) -> None:
        try:
            await snapshots.save(self._id, data)
        except LogUnavailable as error:
            _log.warning("execution %s: %s; the next one will do", self._id, error)

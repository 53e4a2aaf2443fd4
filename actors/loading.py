"""Loading an execution: its whole log while that is short, else its snapshot and the tail behind it."""

from perdure.actors.snapshot import EVERY, unpack
from perdure.actors.state import Folded
from perdure.events.log import Log
from perdure.events.snapshots import Snapshots


async def load(log: Log, snapshots: Snapshots | None, execution: str, folded: Folded | None = None) -> Folded:
    """Return the execution as its log has it now, from what is folded already where that is given.

    A short log never asks for a snapshot, so that a start costs one read.
    """
    folded = folded or Folded()
    limit = EVERY if snapshots is not None else None
    first = folded.n
    async for recorded in log.read(execution, folded.position, limit):
        folded = folded.after(recorded)
    if snapshots is None or folded.n - first < EVERY:
        return folded
    folded = await _from_snapshot(log, snapshots, execution) or folded
    async for recorded in log.read(execution, folded.position):
        folded = folded.after(recorded)
    return folded


async def _from_snapshot(log: Log, snapshots: Snapshots, execution: str) -> Folded | None:
    """Return the snapshot's state where the log still has the very entry that it ends with."""
    data = await snapshots.load(execution)
    folded = unpack(data) if data is not None else None
    if folded is None:
        return None
    async for recorded in log.read(execution, folded.position - 1, 1):
        if recorded.position == folded.position and recorded.digest == folded.prev:
            return folded
    return None

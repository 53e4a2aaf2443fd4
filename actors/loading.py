"""Loading an execution: its whole log while that is short, else its snapshot and the tail behind it."""

import msgspec

from perdure.actors.folded import Folded
from perdure.actors.snapshot import EVERY, unpack
from perdure.events.log import Log
from perdure.events.snapshots import Snapshots


async def load(log: Log, snapshots: Snapshots | None, execution: str) -> tuple[Folded, int]:
    """Return the execution as its log has it now, and how many of its entries had to be folded for that.

    A short log never asks for a snapshot, so that a start costs one read.
    """
    folded, read = Folded(), 0
    async for recorded in log.read(execution, 0, EVERY if snapshots is not None else None):
        folded, read = folded.after(recorded), read + 1
    if snapshots is None or read < EVERY:
        return folded, read
    saved = await _from_snapshot(log, snapshots, execution)
    if saved is not None:
        folded, read = saved, 0
    async for recorded in log.read(execution, folded.position):
        folded, read = folded.after(recorded), read + 1
    return folded, read


async def _from_snapshot(log: Log, snapshots: Snapshots, execution: str) -> Folded | None:
    """Return the snapshot's state where the log still has the very entry that it ends with."""
    data = await snapshots.load(execution)
    unpacked = unpack(data) if data is not None else None
    if unpacked is None:
        return None
    folded, digest = unpacked
    async for recorded in log.read(execution, folded.position - 1, 1):
        if recorded.position == folded.position and recorded.digest == digest:
            return msgspec.structs.replace(folded, last=recorded)
    return None

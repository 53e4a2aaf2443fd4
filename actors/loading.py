"""Loading an execution: its whole log while that is short, else its snapshot and the tail behind it."""

from contextlib import aclosing

import msgspec

from perdure.actors.folded import Folded
from perdure.actors.snapshot import EVERY, unpack
from perdure.events.log import Log
from perdure.events.snapshots import Snapshots


async def load(log: Log, snapshots: Snapshots | None, execution: str) -> tuple[Folded, int]:
    """Return the execution as its log has it now, and how many of its entries had to be folded for that.

    A short log never asks for a snapshot, so that a start costs one read.
    """
    if snapshots is None:
        return await _folded(log, execution, Folded())
    first = [recorded async for recorded in log.read(execution, 0, EVERY)]
    saved = await _from_snapshot(log, snapshots, execution) if len(first) == EVERY else None
    if saved is not None:
        return saved
    folded = Folded()
    for recorded in first:
        folded = folded.after(recorded)
    if len(first) < EVERY:
        return folded, len(first)
    folded, read = await _folded(log, execution, folded)
    return folded, EVERY + read


async def _folded(log: Log, execution: str, folded: Folded) -> tuple[Folded, int]:
    """Return what is folded with all that is behind it in the log, and how many entries these are."""
    read = 0
    async for recorded in log.read(execution, folded.position):
        folded, read = folded.after(recorded), read + 1
    return folded, read


async def _from_snapshot(log: Log, snapshots: Snapshots, execution: str) -> tuple[Folded, int] | None:
    """Return the snapshot's state and the tail behind it, where the log still has the very entry that it ends with."""
    data = await snapshots.load(execution)
    unpacked = unpack(data) if data is not None else None
    if unpacked is None:
        return None
    folded, digest = unpacked
    async with aclosing(log.read(execution, folded.position - 1)) as entries:  # type: ignore[type-var]
        its_own = await anext(entries, None)
        if its_own is None or its_own.position != folded.position or its_own.digest != digest:
            return None
        folded, read = msgspec.structs.replace(folded, last=its_own), 0
        async for recorded in entries:
            folded, read = folded.after(recorded), read + 1
    return folded, read

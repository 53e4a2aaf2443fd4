"""Retention: removes the past of ended executions, tombstone first, so that a crash at any point can be repeated."""

import logging
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from perdure.actors.folded import Folded
from perdure.actors.state import Purged, Started
from perdure.cluster.connection import Connection
from perdure.errors import BadInput, CorruptBlob, ExecutionNotFound, VersionConflict
from perdure.events.entry import Entry, Happened, Recorded
from perdure.events.vocabulary import Counted, ExecutionPurged
from perdure.projections.queries import ended_before
from perdure.projections.runner import Projections
from perdure.projections.statistics import counted

_log = logging.getLogger("perdure.retention")


async def purge_ended(
    connection: Connection,
    projections: Projections,
    older_than: float,
    statuses: Iterable[str],
    *,
    dry_run: bool = False,
) -> list[str]:
    """Purge executions that ended more than `older_than` seconds ago in one of these states; return their ids.

    The projections know what has ended. Purges that were broken off are finished first, and blobs that
    no entry names are removed in the end. dry_run: only return what would be purged.
    """
    await projections.catch_up(connection.log, ["executions"])
    executions = [execution async for execution in unfinished(connection)]
    before = datetime.now(UTC) - timedelta(seconds=older_than)
    executions += await projections.read(partial(ended_before, before=before, statuses=list(statuses)))
    if dry_run:
        return executions
    for execution in executions:
        await purge(connection, execution)
    await connection.log.blobs.sweep(lambda execution: _named_blobs(connection, execution))
    return executions


async def purge(connection: Connection, execution: str) -> None:
    """Remove the entries, the snapshot and the blobs of an ended execution; what is left keeps its id taken.

    Repeating it, after a crash too, finishes the work. Raises BadInput for an execution that has not ended, and
    ExecutionNotFound.
    """
    try:
        tombstone = await _tombstone(connection, execution)
    except VersionConflict:  # another one purges it, or has told it something: look again
        tombstone = await _tombstone(connection, execution)
    await connection.log.blobs.delete(tombstone.blobs)
    await connection.snapshots.delete(execution)
    await connection.log.purge(execution)  # last: as long as there is more than a tombstone, the work is not done


async def unfinished(connection: Connection) -> AsyncIterator[str]:
    """Yield the executions whose purge was begun and not finished."""
    for execution, count in (await connection.log.counts()).items():
        if count > 1:
            last = await connection.log.last(execution)
            async for recorded in connection.log.read_stored(execution, last - 1):
                if any(isinstance(event, ExecutionPurged) for event in recorded.slim.events):
                    yield execution


async def _named_blobs(connection: Connection, execution: str) -> set[str]:
    return {blob.name async for recorded in connection.log.read_stored(execution) for blob in recorded.slim.blobs}


async def _tombstone(connection: Connection, execution: str) -> ExecutionPurged:
    """Return the execution's tombstone, appended where there is none yet."""
    folded, entries = Folded(), list[Recorded]()
    async for recorded in connection.log.read_stored(execution):
        folded = folded.after(recorded)
        entries.append(recorded)
    state = folded.state
    if isinstance(state, Purged):
        return state.summary
    if not isinstance(state, Started):
        raise ExecutionNotFound(f"there is no execution {execution!r} in this store")
    if state.outcome is None:
        raise BadInput(f"execution {execution!r} has not ended; only ended ones are purged")
    tombstone = ExecutionPurged(
        workflow=state.started.workflow,
        digest=state.started.digest,
        status=state.status,
        started=entries[0].slim.at,
        ended=entries[-1].slim.at,
        entries=len(entries),
        blobs=[blob.name for recorded in entries for blob in recorded.slim.blobs],
        statistics=await _counted(connection, entries),
    )
    entry = Entry(uuid4().hex, folded.n + 1, folded.prev, datetime.now(UTC), [tombstone], epoch=folded.epoch)
    await connection.log.append(execution, entry, folded.position)
    return tombstone


async def _counted(connection: Connection, entries: list[Recorded]) -> list[Counted]:
    """Return what the past adds to the statistics, so that they can be made again without it."""
    events: list[Happened] = []
    for recorded in entries:
        try:
            events += (await connection.log.with_events(recorded)).unpack()
        except CorruptBlob as error:
            _log.warning("execution %s: statistics lose what is in a blob: %s", recorded.execution, error)
    return counted(events)

"""The sweep: wakes executions whose timers are overdue, should the server have lost a schedule."""

import asyncio
import logging
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from perdure.actors.schedule_state import is_schedule
from perdure.cluster.connection import Connection
from perdure.cluster.hosting import recorded_lane
from perdure.cluster.inbox import lane_of
from perdure.cluster.settings import Settings
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.projections.runner import Projections

EVERY = 60.0  # seconds
OVERDUE = 60.0  # seconds; far more than timers are late under load
_AT_ONCE = 1000
_log = logging.getLogger("perdure.sweep")


async def sweep(connection: Connection, projections: "Projections", overdue: float = OVERDUE) -> int:
    """Have the timers count that were due more than `overdue` seconds ago, and return how many.

    What says which are armed is the log, through its read model on disk: nobody holds them in memory. Nothing is done
    where a command waits for the execution already.
    """
    from perdure.projections.inboxes import overdue as overdue_timers

    await projections.catch_up(connection.log, ["executions"])
    before, seen, woken = datetime.now(UTC) - timedelta(seconds=overdue), 0, 0
    while page := await projections.read(partial(overdue_timers, before=before, limit=_AT_ONCE, offset=seen)):
        seen += len(page)
        for execution, timer, due in page:
            woken += await _wake(connection, execution, timer, due)
    return woken


async def _wake(connection: Connection, execution: str, timer: str, due: datetime) -> bool:
    lane = lane_of(execution) if is_schedule(execution) else await recorded_lane(connection, execution)
    if lane is None or not await connection.inbox.fire(execution, lane, timer, due):
        return False
    _log.warning("execution %s: the timer %s was due at %s and did not come; it is woken", execution, timer, due)
    return True


async def keep_sweeping(connection: Connection, settings: Settings, every: float = EVERY) -> None:
    """Sweep again and again, until cancelled."""
    while True:
        await asyncio.sleep(every)
        from perdure.projections.runner import BATCH_OF_ONE_THAT_STAYS, Projections

        try:
            with closing(Projections(settings.projections_at, batch=BATCH_OF_ONE_THAT_STAYS)) as projections:
                await sweep(connection, projections)
        except PerdureError as error:
            _log.warning("overdue timers were not looked for: %s", error)

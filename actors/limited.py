"""A worker that holds what its work claims of limits while it works."""

import asyncio
import contextlib

from perdure.actors.limiting import Limits
from perdure.actors.work import Work, Worker


def limited(worker: Worker, limits: Limits) -> Worker:
    """Return the worker that first asks the limits for what its work claims, and gives that back in the end."""

    async def do(work: Work) -> object:
        return await (_held(worker, limits, work) if work.claims else worker(work))

    return do


async def _held(worker: Worker, limits: Limits, work: Work) -> object:
    leases = await limits.acquire(work)
    spent: dict[str, float] = {}
    working, lost = asyncio.ensure_future(worker(work)), asyncio.ensure_future(leases.lost)
    try:
        await asyncio.wait({working, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            lost.result()  # it raises why the work has to stop
        result = working.result()
        spent = work.spent(result)
        return result
    finally:
        lost.cancel()
        await _ended(working)
        leases.give_back(spent)


async def _ended(working: "asyncio.Future[object]") -> None:
    """Stop work that is not done, and return when it has stopped: only then may another one begin."""
    while not working.done():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({working})
    if not working.cancelled():
        working.exception()  # whoever waited has its own error

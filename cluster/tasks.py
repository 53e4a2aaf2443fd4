"""Ending tasks, and letting work come to its end, for certain."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

_AGAIN_AFTER = 0.2  # seconds


async def stop(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, again and again until they have ended, and return then; how they ended is nobody's concern.

    One cancellation can be lost: `asyncio.wait_for`, on which nats-py waits, drops it when its result comes at the same
    moment (CPython issue 86296, mended in Python 3.12).
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_AFTER)
    await asyncio.gather(*tasks, return_exceptions=True)


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Return when work is done, however often this is cancelled meanwhile: what cleans up must not be broken off.

    Only for the end of a task that is being stopped: the cancellation is taken to be known.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()

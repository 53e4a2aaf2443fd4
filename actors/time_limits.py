"""The time limits of a call under way: its `timeout`, and the `heartbeat` that it must not miss."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from perdure.errors import PerdureError

Result = TypeVar("Result")

Silence = Callable[[], Awaitable[tuple[float, Any]]]
"""Gives the seconds since a call's last heartbeat, and the progress that it told last."""


class Timeout(PerdureError):
    """An attempt took longer than its `timeout`."""


class QueueTimeout(PerdureError):
    """A call waited longer than its `queue_timeout` for a place to run."""


class HeartbeatLost(PerdureError):
    """A call gave no heartbeat for as long as its `heartbeat` says."""

    def __init__(self, seconds: float, progress: Any) -> None:
        super().__init__(f"no heartbeat for {seconds:g} s")
        self.data = None if progress is None else {"progress": progress}


async def in_time(work: Coroutine[Any, Any, Result], seconds: float | None) -> Result:
    """Await work that may take so many seconds; raise Timeout when it takes longer."""
    if seconds is None:
        return await work
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    late = Timeout(f"it took longer than {seconds:g} s")
    try:
        async with asyncio.timeout_at(deadline) as limit:
            result = await work
    except TimeoutError as error:
        if not limit.expired():
            raise  # the tool's own
        raise late from error
    if loop.time() > deadline:  # it blocked the loop, so that nothing could interrupt it
        raise late
    return result


async def alive(work: Coroutine[Any, Any, Result], seconds: float | None, silence: Silence) -> Result:
    """Await work that may be silent for so many seconds; raise HeartbeatLost when it is for longer."""
    if seconds is None:
        return await work
    try:
        async with asyncio.timeout(None) as limit:
            watch = asyncio.create_task(_watch(limit, seconds, silence))
            try:
                return await work
            finally:
                watch.cancel()
    except TimeoutError as error:
        if not limit.expired():
            raise  # the tool's own
        raise HeartbeatLost(seconds, watch.result()) from error


async def _watch(limit: asyncio.Timeout, seconds: float, silence: Silence) -> Any:
    """End the time limit once the call has been silent for so long; return the last progress.

    It asks only when the silence could be over, so that frequent beats cost no more than rare ones.
    """
    silent, progress = 0.0, None
    while silent < seconds:
        await asyncio.sleep(seconds - silent)
        try:
            async with asyncio.timeout(seconds):
                silent, progress = await silence()
        except TimeoutError:
            break  # who cannot even answer is not alive
    limit.reschedule(asyncio.get_running_loop().time())
    return progress

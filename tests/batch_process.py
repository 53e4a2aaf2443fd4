"""A process that works off a batch until it is killed, and says after each execution that it was told."""

import asyncio
import os
from multiprocessing.connection import Connection as Pipe
from typing import Any

from perdure.cluster import batches
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.cluster.settings import Settings


def signal_all(settings: Settings, tenant: str, says: Pipe) -> None:
    real = AsyncRun.tell
    batches._PAGE = 10

    async def tell(run: AsyncRun, command: Any) -> bool:
        told = await real(run, command)
        says.send(os.getpid())
        return told

    AsyncRun.tell = tell  # type: ignore[method-assign, assignment]
    asyncio.run(_signal_all(settings, tenant))


async def _signal_all(settings: Settings, tenant: str) -> None:
    async with await AsyncClient.open(settings, "none") as client:
        await client.batch("signal", signal="go", where={"tenant": tenant}, rate=1000)

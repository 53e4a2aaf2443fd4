"""A durable subscriber in a process of its own, to be killed: it says the id of each event, and acknowledges it."""

import asyncio
import os
from multiprocessing.connection import Connection as Pipe

from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings


def subscribe_for_ever(settings: Settings, execution: str, says: Pipe) -> None:
    asyncio.run(_subscribe(settings, execution, says))


async def _subscribe(settings: Settings, execution: str, says: Pipe) -> None:
    async with (
        await AsyncClient.open(settings, "none") as client,
        await client.subscribe(durable=f"killed {execution}", execution=execution, from_="beginning") as events,
    ):
        async for event in events:
            says.send((os.getpid(), event.id))

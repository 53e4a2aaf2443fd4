"""Subscribers in a process of their own, to be killed: they say of each event that they have it."""

import asyncio
import os
from multiprocessing.connection import Connection as Pipe
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, create_engine

from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings
from perdure.events.entry import Happened

BILLS = Table("bills", MetaData(), Column("execution", String(50)), Column("node", String(50)))


def bill(connection: Any, happened: Happened) -> None:
    node = getattr(happened.event, "node", "")
    connection.execute(BILLS.insert().values(execution=happened.execution, node=node))


def subscribe_for_ever(settings: Settings, execution: str, says: Pipe) -> None:
    asyncio.run(_subscribe(settings, execution, says))


async def _subscribe(settings: Settings, execution: str, says: Pipe) -> None:
    async with (
        await AsyncClient.open(settings, "none") as client,
        await client.subscribe(durable=f"killed {execution}", execution=execution, from_="beginning") as events,
    ):
        async for event in events:
            says.send((os.getpid(), event.id))


def bill_for_ever(settings: Settings, url: str, execution: str, says: Pipe) -> None:
    def handle(connection: Any, happened: Happened) -> None:
        bill(connection, happened)
        says.send(os.getpid())  # in the midst of the transaction

    async def work() -> None:
        async with await AsyncClient.open(settings, "none") as client:
            engine = create_engine(url)
            await client.into_sql(
                handle, engine, "killed", types="NodeScheduled", execution=execution, from_="beginning"
            )

    asyncio.run(work())

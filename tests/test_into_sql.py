"""Exactly once into SQL: handlers that fail, several at once, and positions of other logs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chosen_events import name, nodes
from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, select

from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput
from perdure.events.entry import Happened
from perdure.events.jetstream_log import JetStreamLog


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.open(settings, "none") as client:
        yield client


@pytest.fixture
def log(connection: Connection) -> JetStreamLog:
    return connection.log


BILLS = Table("bills", MetaData(), Column("execution", String(50)), Column("node", String(50)))


def bill(connection: Any, happened: Happened) -> None:
    node = getattr(happened.event, "node", "")
    connection.execute(BILLS.insert().values(execution=happened.execution, node=node))


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path}/mine.sqlite"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    BILLS.create(engine)
    yield engine
    engine.dispose()


def billed(engine: Engine, execution: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(BILLS.c.node).where(BILLS.c.execution == execution)))


async def test_events_go_into_sql_exactly_once_though_the_handler_fails_in_between(
    client: AsyncClient, log: JetStreamLog, engine: Engine
) -> None:
    execution, calls = name(), list[int]()
    await nodes(log, execution, 6)
    options: dict[str, Any] = {
        "types": "NodeScheduled",
        "execution": execution,
        "from_": "beginning",
        "stop_at_end": True,
    }

    def fails_once(connection: Any, happened: Happened) -> None:
        bill(connection, happened)
        calls.append(1)
        if len(calls) == 4:
            raise ConnectionError("the power went")

    with pytest.raises(ConnectionError):
        await client.into_sql(fails_once, engine, "bills", **options)
    assert billed(engine, execution) == ["n2", "n3", "n4"]
    assert await client.into_sql(fails_once, engine, "bills", **options) == 3
    assert await client.into_sql(fails_once, engine, "bills", **options) == 0
    assert billed(engine, execution) == [f"n{n}" for n in range(2, 8)]


async def test_several_that_go_into_sql_under_one_name_share_the_events(
    client: AsyncClient, log: JetStreamLog, postgres_url: str
) -> None:
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    BILLS.create(engine)
    execution = name()
    await nodes(log, execution, 40)
    options: dict[str, Any] = {
        "types": "NodeScheduled",
        "execution": execution,
        "from_": "beginning",
        "stop_at_end": True,
    }
    counts = await asyncio.gather(*(client.into_sql(bill, engine, "shared", **options) for _ in range(3)))
    assert sum(counts) == 40
    assert billed(engine, execution) == [f"n{n}" for n in range(2, 42)]
    engine.dispose()


async def test_a_position_of_another_log_is_refused(client: AsyncClient, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/mine.sqlite")
    await client.into_sql(bill, engine, "mine", stop_at_end=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE perdure_positions SET log = 'another'")
    with pytest.raises(BadInput, match="is of another log"):
        await client.into_sql(bill, engine, "mine", stop_at_end=True)
    engine.dispose()

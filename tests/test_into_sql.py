"""Exactly once into SQL: handlers that fail, several at once, and positions of other logs."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chosen_events import name, nodes
from sqlalchemy import Engine, create_engine, event, insert, select
from subscriber_process import BILLS, bill, bill_for_ever

from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.into_sql import positions
from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput, LogUnavailable
from perdure.events.entry import Happened
from perdure.events.jetstream_log import JetStreamLog


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.open(settings, "none") as client:
        yield client


@pytest.fixture
def log(connection: Connection) -> JetStreamLog:
    return connection.log


_forks = multiprocessing.get_context("forkserver")


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


async def test_who_is_slower_in_making_table_and_row_goes_on_with_those_of_the_faster(
    client: AsyncClient, log: JetStreamLog, engine: Engine
) -> None:
    execution, made = name(), list[str]()
    await nodes(log, execution, 3)
    faster, identity = create_engine(engine.url), await log.identity()

    def another_does_it_first(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        what = statement.split("(")[0].split()[0]
        if what in made or "perdure_positions" not in statement or what not in ("CREATE", "INSERT"):
            return
        if what == "CREATE":
            positions.create(faster)
        elif "raced" in (values.values() if isinstance(values, dict) else values):
            with faster.begin() as sql:
                sql.execute(insert(positions).values(name="raced", log=identity, position=1, events=0))
        else:
            return
        made.append(what)

    event.listen(engine, "before_cursor_execute", another_does_it_first)
    count = await client.into_sql(bill, engine, "raced", execution=execution, types="NodeScheduled", stop_at_end=True)
    assert made == ["CREATE", "INSERT"]
    assert count == len(billed(engine, execution)) == 3
    faster.dispose()


async def test_a_position_of_another_log_is_refused(client: AsyncClient, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/mine.sqlite")
    await client.into_sql(bill, engine, "mine", stop_at_end=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE perdure_positions SET log = 'another'")
    with pytest.raises(BadInput, match="is of another log"):
        await client.into_sql(bill, engine, "mine", stop_at_end=True)
    engine.dispose()


async def test_a_process_that_is_killed_in_its_transactions_bills_every_event_once(
    client: AsyncClient, log: JetStreamLog, engine: Engine
) -> None:
    execution = name()
    await nodes(log, execution, 60)

    def until_killed(after: int) -> None:
        hears, says = _forks.Pipe(duplex=False)
        url = engine.url.render_as_string(hide_password=False)
        process = _forks.Process(target=bill_for_ever, args=(client._settings, url, execution, says))
        process.start()
        says.close()
        for _ in range(after):
            assert hears.poll(30), "nothing was handled"
            pid = hears.recv()
        os.kill(pid, signal.SIGKILL)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
        hears.close()

    for after in (5, 1, 9):
        await asyncio.to_thread(until_killed, after)
    assert 0 < len(billed(engine, execution)) < 60
    options: dict[str, Any] = {"types": "NodeScheduled", "execution": execution, "stop_at_end": True}
    await client.into_sql(bill, engine, "killed", **options)
    assert billed(engine, execution) == [f"n{n}" for n in range(2, 62)]


async def test_it_goes_on_when_a_log_that_was_away_is_back(
    client: AsyncClient, log: JetStreamLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution, engine, asked = name(), create_engine(f"sqlite:///{tmp_path}/mine.sqlite"), list[int]()
    BILLS.create(engine)
    await nodes(log, execution, 3)
    monkeypatch.setattr("perdure.cluster.into_sql._AGAIN", 0)
    real = client._connection.log.with_events

    async def away_at_first(recorded: Any) -> Any:
        asked.append(1)
        if len(asked) in (2, 4):
            raise LogUnavailable("not now")
        return await real(recorded)

    monkeypatch.setattr(client._connection.log, "with_events", away_at_first)
    work = asyncio.create_task(
        client.into_sql(bill, engine, "away", types="NodeScheduled", execution=execution, from_="beginning")
    )
    while len(billed(engine, execution)) < 3:
        assert not work.done(), work.exception()
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})
    assert billed(engine, execution) == ["n2", "n3", "n4"]
    engine.dispose()


async def test_an_engine_that_undoes_nothing_is_refused(client: AsyncClient, engine: Engine) -> None:
    with pytest.raises(BadInput, match="does not undo transactions"):
        await client.into_sql(bill, engine.execution_options(isolation_level="AUTOCOMMIT"), "x", stop_at_end=True)
    with pytest.raises(BadInput, match="wants SQLAlchemy's create_engine"):
        await client.into_sql(bill, str(engine.url), "x", stop_at_end=True)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="has 1 to 200 characters"):
        await client.into_sql(bill, engine, "x" * 201, stop_at_end=True)


async def test_an_async_function_is_refused_and_its_event_is_not_lost(
    client: AsyncClient, log: JetStreamLog, engine: Engine
) -> None:
    execution, loop = name(), asyncio.get_running_loop()
    await nodes(log, execution, 1)
    options: dict[str, Any] = {"execution": execution, "from_": "beginning", "stop_at_end": True}
    with pytest.raises(BadInput, match="plain function; this one is async"):
        await client.into_sql(lambda *_: asyncio.Future(loop=loop), engine, "async", **options)
    assert await client.into_sql(bill, engine, "async", **options) == 2

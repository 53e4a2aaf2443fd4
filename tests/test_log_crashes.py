"""A server or a writer that is killed at any moment, over and over: what was acknowledged is there, and once."""

import asyncio
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import log_load
import pytest
from log_load import Acknowledged, append_on_and_on, check
from nats_process import NatsProcess, nats_process

from perdure.cluster.connection import open_connection
from perdure.events.group_writer import BATCH_FROM

KILLS = 20


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsProcess]:
    with nats_process(tmp_path / "server") as server:
        yield server


@pytest.mark.parametrize(
    "executions",
    [pytest.param(BATCH_FROM // 2, id="single appends"), pytest.param(BATCH_FROM * 4, id="atomic batches")],
)
async def test_a_server_killed_under_load_loses_and_repeats_nothing(
    own_server: NatsProcess, executions: int, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(executions)
    connection = await open_connection(own_server.url, None)
    acknowledged, stop = Acknowledged(), asyncio.Event()
    names = [f"x-{number}" for number in range(executions)]
    load = asyncio.gather(*(append_on_and_on(connection.log, name, acknowledged.add, stop, None) for name in names))
    for _ in range(KILLS):
        more = asyncio.ensure_future(acknowledged.more(chance.randrange(1, executions * 4)))
        either: set[asyncio.Future[Any]] = {more, load}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        assert not load.done(), load.exception()
        await asyncio.sleep(chance.uniform(0, 0.005))  # so that it dies anywhere between two answers
        own_server.kill()
        own_server.start()
    await acknowledged.more(executions)
    stop.set()
    await load
    assert await check(connection.log, acknowledged) == acknowledged.count  # each was tried until the log answered
    record_property("acknowledged", acknowledged.count)
    await connection.close()


async def test_a_writer_killed_under_load_loses_and_repeats_nothing(
    own_server: NatsProcess, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(7)
    names = [f"x-{number}" for number in range(BATCH_FROM * 2)]
    acknowledged = Acknowledged()
    for _ in range(KILLS):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, log_load.__file__, own_server.url, *names, stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        enough = acknowledged.count + chance.randrange(1, len(names) * 8)
        async for line in writer.stdout:
            execution, entry_id, position = line.decode().split()
            acknowledged.add(execution, entry_id, int(position))
            if acknowledged.count == enough:
                writer.kill()  # what it said before is still read
        await writer.wait()
        assert acknowledged.count >= enough, "the writer died of something else"
    connection = await open_connection(own_server.url, None)
    stored = await check(connection.log, acknowledged)
    record_property("acknowledged", acknowledged.count)
    record_property("stored", stored)
    await connection.close()

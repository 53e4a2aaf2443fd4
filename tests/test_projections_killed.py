"""A runner that is killed again and again during load: its read models are those that the log makes."""

import asyncio
import multiprocessing
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from histories import fill
from projection_process import Counted, fold_for_ever
from sqlalchemy import select
from test_projections import everything

from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.events.vocabulary import ExecutionPurged, ExecutionStarted
from perdure.projections.queries import Query, counts
from perdure.projections.runner import Projections
from perdure.projections.words import ENDS

KILLS = {"sqlite": 20, "postgresql": 8}
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["projection_process"])


def kill_in_the_midst(server: NatsServer, database: str | Path, after: int) -> None:
    """Start a runner, and kill it in its `after`th transaction, or some moment later."""
    hears, says = _forks.Pipe(duplex=False)
    process = _forks.Process(target=fold_for_ever, args=(server.url, server.token, database, says))
    process.start()
    says.close()
    try:
        for _ in range(after):
            assert hears.poll(30), "the runner folded nothing"
            hears.recv()
    finally:
        process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    hears.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_runner_that_is_killed_again_and_again_during_load_counts_every_event_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, server: NatsServer, connection: Connection
) -> None:
    database = tmp_path / "p.sqlite" if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    log, prefix, chance = connection.log, uuid4().hex[:8], random.Random(7)
    for kill in range(KILLS[kind]):
        load = asyncio.create_task(fill(log, range(kill * 20, kill * 20 + 20), prefix))
        await asyncio.to_thread(kill_in_the_midst, server, database, chance.randint(1, 3))
        await load
    projections = Projections(database, [Counted()])
    await projections.catch_up(log)
    events = [item async for recorded in log.read_all() for item in (await log.with_events(recorded)).unpack()]
    counted = await projections.read(lambda connection: connection.scalar(select(Counted.table.c.events)))
    assert counted == len(events)
    statuses = dict[str, str]()
    for item in events:
        if isinstance(item.event, ExecutionStarted):
            statuses[item.execution] = "running"
        elif isinstance(item.event, ExecutionPurged):
            statuses.pop(item.execution, None)
        elif type(item.event) in ENDS:
            statuses[item.execution] = ENDS[type(item.event)]
    mine = [status for execution, status in statuses.items() if execution.startswith(prefix)]
    kills = KILLS[kind]
    assert Counter(mine) == {"succeeded": 16 * kills, "failed": 2 * kills, "cancelled": 2 * kills}
    known = await projections.read(partial(counts, query=Query(filter=f"id.startswith('{prefix}')")))
    assert known == Counter(mine)
    assert await projections.quarantined(log) == []
    fresh = Projections(tmp_path / "fresh.sqlite")
    await fresh.catch_up(log)
    killed, whole = await everything(projections), await everything(fresh)
    projections.close()
    fresh.close()
    for table, rows in whole.items():
        assert sorted(set(killed[table]) ^ set(rows)) == [], table
    assert killed == whole

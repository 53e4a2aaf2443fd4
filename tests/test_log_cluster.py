"""The log on a cluster of three servers, each with a copy, whose leader is killed in the midst of appends."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from log_contract import LogContract
from log_load import Acknowledged, append_on_and_on, check
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError
from nats_process import NatsProcess, nats_cluster, nats_process

from perdure.cluster.connection import Connection, open_connection
from perdure.errors import EnvironmentProblem
from perdure.events.entry import Recorded
from perdure.events.group_writer import BATCH_FROM
from perdure.events.jetstream_log import STREAM, JetStreamLog
from perdure.events.log import Log

KILLS = 4
TIMEOUT = 30.0  # seconds; the servers take 4 to 10 s to replace a leader


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NatsProcess]]:
    with nats_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture(scope="module")
async def replicated(servers: list[NatsProcess]) -> AsyncIterator[Connection]:
    await _until_there_is_a_leader(servers)
    while True:
        with suppress(EnvironmentProblem):  # each stream elects a leader of its own, and is away until it has
            connection = await _connection(servers)
            break
    yield connection
    await connection.close()


async def _until_there_is_a_leader(servers: list[NatsProcess]) -> None:
    client = await nats.connect(servers[0].url)
    while True:
        with suppress(NatsTimeout, APIError):
            await client.jetstream(timeout=0.1).account_info()
            break
    await client.close()


async def _connection(servers: list[NatsProcess]) -> Connection:
    return await open_connection(",".join(server.url for server in servers), None, TIMEOUT, replicas=3)


async def _leader(connection: Connection) -> str:
    while True:
        with suppress(NatsTimeout, APIError):
            cluster = (await connection.nats.jetstream(timeout=0.5).stream_info(STREAM)).cluster
            if cluster and cluster.leader:
                return cluster.leader


async def _followed(log: Log, execution: str | None, heard: Callable[[Recorded], None]) -> None:
    async with aclosing(log.follow(execution)) as entries:  # type: ignore[type-var]
        async for recorded in entries:
            heard(recorded)


class TestJetStreamLogOnThreeReplicas:
    """What the contract says of appends; its reads ask right after an append, and a replica may be a moment behind."""

    @pytest.fixture
    def log(self, replicated: Connection) -> JetStreamLog:
        return replicated.log

    test_concurrent_appends = LogContract.test_of_concurrent_appends_at_one_position_exactly_one_wins
    test_not_there = LogContract.test_an_append_to_an_execution_that_is_not_there_is_refused
    test_following = LogContract.test_following_gives_the_past_and_then_the_new
    test_following_all = LogContract.test_following_all_misses_nothing_while_many_append


async def test_every_stream_has_as_many_copies_as_were_asked_for(replicated: Connection) -> None:
    streams = await replicated.nats.jetstream().streams_info()
    assert {str(info.config.name): info.config.num_replicas for info in streams} == {
        "PERDURE_EVENTS": 3,
        "PERDURE_SNAPSHOTS": 3,
        "PERDURE_INBOX": 3,
        "KV_PERDURE": 3,
    }


async def test_a_server_that_is_alone_cannot_keep_three_copies(tmp_path: Path) -> None:
    with nats_process(tmp_path) as server, pytest.raises(EnvironmentProblem, match=r"replicas > 1.*PERDURE_REPLICAS"):
        await open_connection(server.url, None, replicas=3)


@pytest.mark.timeout(150)
async def test_a_leader_killed_under_load_loses_and_repeats_nothing(
    servers: list[NatsProcess], replicated: Connection, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(3)
    names = [f"x-{number}" for number in range(BATCH_FROM * 2)]
    acknowledged, stop = Acknowledged(), asyncio.Event()
    listener = await _connection(servers)
    seen: list[Recorded] = []
    seen_of_one: list[Recorded] = []
    following = asyncio.gather(
        _followed(listener.log, None, seen.append), _followed(replicated.log, names[0], seen_of_one.append)
    )
    load = asyncio.gather(*(append_on_and_on(replicated.log, name, acknowledged.add, stop, None) for name in names))
    for _ in range(KILLS):
        await _progress(acknowledged, chance.randrange(200, 500), load, following)
        leader = await _leader(listener)
        victim = next(server for server in servers if server.name == leader)
        await asyncio.sleep(chance.uniform(0, 0.01))  # so that it dies anywhere between two answers
        victim.kill()
        began = asyncio.get_running_loop().time()
        await _progress(acknowledged, len(names) * 2, load, following)  # with the two that are left
        record_property("seconds without a leader", round(asyncio.get_running_loop().time() - began, 2))
        victim.start()
    await _progress(acknowledged, len(names), load, following)
    stop.set()
    await load
    record_property("stored", await check(replicated.log, acknowledged))
    record_property("acknowledged", acknowledged.count)
    stored = [recorded async for recorded in replicated.log.read_all()]
    of_one = [recorded for recorded in stored if recorded.execution == names[0]]
    while len(seen) < len(stored) or len(seen_of_one) < len(of_one):
        assert not following.done(), following.exception()
        await asyncio.sleep(0)
    assert (seen, seen_of_one) == (stored, of_one)
    following.cancel()
    await listener.close()


async def _progress(acknowledged: Acknowledged, count: int, *others: "asyncio.Future[Any]") -> None:
    """Wait for so many more acknowledgements; whatever else ends before has failed."""
    more = asyncio.ensure_future(acknowledged.more(count))
    waiting: set[asyncio.Future[Any]] = {more, *others}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        assert not other.done(), other.exception()

"""Whatever is lost between the log and its server: no append is applied twice, none that was acknowledged is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from log_contract import entry, name
from proxy import Proxy

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import LogUnavailable, VersionConflict
from perdure.events.entry import Entry, Recorded
from perdure.events.group_writer import BATCH_FROM


@pytest.fixture
async def proxy(server: NatsServer) -> AsyncIterator[Proxy]:
    async with Proxy.before(server.url) as proxy:
        yield proxy


@pytest.fixture
async def faulty(proxy: Proxy, server: NatsServer) -> AsyncIterator[Connection]:
    """A connection through the proxy, whose log gives up on one answer after half a second."""
    connection = await open_connection(proxy.url, server.token, timeout=4.0)
    connection.log._writer._timeout = 0.5
    yield connection
    await connection.close()


def first(matches: Callable[[str, bytes], bool], fate: str, number: int = 1) -> Callable[[str, bytes], str | None]:
    """Return a rule that lets the fate befall the n-th message that matches, and no other."""
    seen = 0

    def rule(subject: str, data: bytes) -> str | None:
        nonlocal seen
        seen += matches(subject, data)
        return fate if seen == number and matches(subject, data) else None

    return rule


def is_append(subject: str, data: bytes) -> bool:
    return subject.startswith("perdure.ev.")


def is_ack(subject: str, data: bytes) -> bool:
    return subject.startswith("_INBOX") and b'"stream":"PERDURE_EVENTS"' in data and b'"seq":' in data


async def stored(connection: Connection, execution: str) -> list[Entry]:
    return [recorded.entry async for recorded in connection.log.read(execution)]


CASES = [
    pytest.param("requests", first(is_append, "drop"), id="the request is lost"),
    pytest.param("requests", first(is_append, "cut"), id="the connection breaks before the request"),
    pytest.param("answers", first(is_ack, "drop"), id="the answer is lost"),
    pytest.param("answers", first(is_ack, "cut"), id="the connection breaks before the answer"),
]


@pytest.mark.parametrize(("way", "rule"), CASES)
async def test_a_single_append_is_stored_once(
    connection: Connection, faulty: Connection, proxy: Proxy, way: str, rule: Callable[[str, bytes], str | None]
) -> None:
    execution, written = name(), entry()
    setattr(proxy, way, rule)
    recorded = await faulty.log.append(execution, written, 0)
    assert await stored(connection, execution) == [written]
    following = entry(2)
    await faulty.log.append(execution, following, recorded.position)
    assert await stored(connection, execution) == [written, following]


BATCH_CASES = [
    pytest.param("requests", first(is_append, "drop", 30), id="a member is lost"),
    pytest.param("requests", first(is_append, "cut", 30), id="the connection breaks in the midst of the batch"),
    pytest.param("answers", first(is_ack, "drop"), id="the answer is lost"),
    pytest.param("answers", first(is_ack, "cut"), id="the connection breaks before the answer"),
]


@pytest.mark.parametrize(("way", "rule"), BATCH_CASES)
async def test_every_append_of_a_batch_is_stored_once(
    connection: Connection, faulty: Connection, proxy: Proxy, way: str, rule: Callable[[str, bytes], str | None]
) -> None:
    written = {name(): entry() for _ in range(60)}
    setattr(proxy, way, rule)
    await asyncio.gather(*(faulty.log.append(execution, each, 0) for execution, each in written.items()))
    for execution, each in written.items():
        assert await stored(connection, execution) == [each]


async def test_random_cuts_under_load_lose_and_repeat_nothing(
    connection: Connection, faulty: Connection, proxy: Proxy
) -> None:
    executions = [name() for _ in range(40)]
    acknowledged: dict[str, list[str]] = {execution: [] for execution in executions}
    done = asyncio.Event()

    async def write(execution: str) -> None:
        position = 0
        for number in range(25):
            each = entry(number + 1)
            try:
                position = (await faulty.log.append(execution, each, position)).position
            except LogUnavailable:  # whether it was stored is unknown: the log knows
                known = [recorded async for recorded in connection.log.read(execution)]
                position = known[-1].position if known else 0
                continue
            acknowledged[execution].append(each.id)

    async def cut() -> None:
        for _ in range(8):
            before = sum(map(len, acknowledged.values()))
            while sum(map(len, acknowledged.values())) < before + 60 and not done.is_set():
                await asyncio.sleep(0)
            proxy.cut()

    cutting = asyncio.create_task(cut())
    await asyncio.gather(*map(write, executions))
    done.set()
    await cutting
    for execution in executions:
        ids = [each.id for each in await stored(connection, execution)]
        assert len(set(ids)) == len(ids)
        assert [each for each in ids if each in set(acknowledged[execution])] == acknowledged[execution]
    assert proxy.connections > 2


async def test_of_a_refused_batch_only_the_stale_members_fail(connection: Connection) -> None:
    good, stale = [name() for _ in range(40)], [name() for _ in range(5)]
    for execution in stale:
        await connection.log.append(execution, entry(), 0)
    outcomes = await asyncio.gather(
        *(connection.log.append(execution, entry(), 0) for execution in [*good, *stale]), return_exceptions=True
    )
    assert all(isinstance(outcome, Recorded) for outcome in outcomes[:40])
    assert all(isinstance(outcome, VersionConflict) for outcome in outcomes[40:])


async def test_cancelled_waiters_never_hang_the_writer(connection: Connection) -> None:
    executions = [name() for _ in range(100)]
    tasks = [asyncio.create_task(connection.log.append(execution, entry(), 0)) for execution in executions]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, Recorded) for outcome in outcomes[1::2])
    after = await connection.log.append(name(), entry(), 0)
    assert after.position


@pytest.mark.parametrize("count", [1, BATCH_FROM * 2])
async def test_a_connection_that_is_lost_before_a_write_began_leaves_nobody_waiting(
    connection: Connection, count: int
) -> None:
    appends = [asyncio.create_task(connection.log.append(name(), entry(), 0)) for _ in range(count)]
    while not connection.log._writer._sending:
        await asyncio.sleep(0)
    connection.log.disconnected()
    assert all(recorded.position for recorded in await asyncio.gather(*appends))


async def test_a_conflict_is_told_though_the_connection_is_lost_while_the_log_is_searched(
    connection: Connection,
) -> None:
    execution = name()
    await connection.log.append(execution, entry(), 0)
    appending = asyncio.create_task(connection.log.append(execution, entry(), 0))
    while not connection.log._asking:
        await asyncio.sleep(0)
    connection.log.disconnected()
    with pytest.raises(VersionConflict):
        await appending


async def test_a_read_goes_on_when_the_connection_is_lost_in_the_midst_of_it(connection: Connection) -> None:
    execution = name()
    position, written = 0, []
    for number in range(5):
        written.append(await connection.log.append(execution, entry(number + 1), position))
        position = written[-1].position
    reading = asyncio.ensure_future(anext(aiter(connection.log.read(execution))))
    while not connection.log._gets._waiting:
        await asyncio.sleep(0)
    connection.log.disconnected()
    assert await reading == written[0]


async def test_several_appends_to_one_execution_do_not_share_a_batch(connection: Connection) -> None:
    crowd = [connection.log.append(name(), entry(), 0) for _ in range(BATCH_FROM * 2)]
    execution = name()
    same = [connection.log.append(execution, entry(), 0) for _ in range(BATCH_FROM)]
    outcomes = await asyncio.gather(*crowd, *same, return_exceptions=True)
    assert sum(isinstance(outcome, Recorded) for outcome in outcomes) == BATCH_FROM * 2 + 1
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == BATCH_FROM - 1


async def test_a_log_that_stays_away_is_unavailable_by_the_deadline(proxy: Proxy, server: NatsServer) -> None:
    connection = await open_connection(proxy.url, server.token, timeout=0.4)
    proxy.requests = lambda subject, _data: "drop" if subject != "_" else None
    began = asyncio.get_running_loop().time()
    for attempt in (connection.log.append(name(), entry(), 0), connection.log.last("x")):
        with pytest.raises(LogUnavailable, match="did not answer"):
            await attempt
    with pytest.raises(LogUnavailable):
        _ = [recorded async for recorded in connection.log.read("x")]
    assert asyncio.get_running_loop().time() - began < 5
    with suppress(Exception):
        await connection.close()


async def test_appends_whose_batches_the_server_refuses_again_and_again_do_not_wait_for_ever(
    server: NatsServer, proxy: Proxy
) -> None:
    connection = await open_connection(proxy.url, server.token, timeout=2.0)
    proxy.requests = lambda subject, data: "drop" if b"Nats-Batch-Sequence: 2\r\n" in data else None
    appends = [connection.log.append(name(), entry(), 0) for _ in range(BATCH_FROM * 2)]
    outcomes = await asyncio.wait_for(asyncio.gather(*appends, return_exceptions=True), 10)
    assert all(isinstance(outcome, Recorded | LogUnavailable) for outcome in outcomes)
    assert any(isinstance(outcome, Recorded) for outcome in outcomes), "those that are left go singly"
    await connection.close()

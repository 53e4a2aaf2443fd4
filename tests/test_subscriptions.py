"""Subscriptions on a real server: order, acknowledgement, take-over, death, imports, exactly-once, sinks."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from histories import append, start
from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, select
from subscriber_process import subscribe_for_ever

import perdure
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput, SinkUnavailable, TakenOver, WaitTimeout
from perdure.events.blobs import VALUE_LIMIT
from perdure.events.cloud_events import Message
from perdure.events.entry import Happened
from perdure.events.jetstream_log import IMPORTED, JetStreamLog
from perdure.events.sinks import MemorySink, open_sink
from perdure.events.vocabulary import ExecutionSucceeded, NodeScheduled, NodeSucceeded

_forks = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.open(settings, "none") as client:
        yield client


@pytest.fixture
def log(connection: Connection) -> JetStreamLog:
    return connection.log


def name() -> str:
    return f"s-{uuid4().hex[:8]}"


async def nodes(log: JetStreamLog, execution: str, count: int, workflow: str = "flow") -> None:
    """Append a start and so many entries of one event."""
    await append(log, execution, start(workflow))
    for n in range(2, count + 2):
        await append(log, execution, NodeScheduled(f"n{n}", 1), n=n)


async def nodes_behind(log: JetStreamLog, execution: str, n: int, count: int) -> None:
    for number in range(n, n + count):
        await append(log, execution, NodeScheduled(f"n{number}", 1), n=number)


async def taken(client: AsyncClient, count: int, **options: Any) -> list[Happened]:
    async with await client.subscribe(**options) as events:
        return [await events.next(10) for _ in range(count)]


async def test_a_subscription_from_now_sees_only_what_comes(client: AsyncClient, log: JetStreamLog) -> None:
    execution = name()
    await nodes(log, execution, 2)
    async with await client.subscribe(execution=execution) as events:
        position = await append(log, execution, NodeSucceeded("n2", 1, "x"), ExecutionSucceeded(1), n=4)
        assert [(await events.next(10)).id for _ in range(2)] == [f"{position}.0", f"{position}.1"]
        with pytest.raises(WaitTimeout, match=r"no event came within 0.01 s"):
            await events.next(0.01)
        await append(log, execution, NodeScheduled("late", 1), n=5)
        assert (await events.next(10)).event == NodeScheduled("late", 1)


async def test_a_subscription_goes_on_behind_a_position_and_chooses(client: AsyncClient, log: JetStreamLog) -> None:
    one, other, workflow = name(), name(), name()
    before = await log.last()
    await nodes(log, one, 2, workflow)
    await nodes(log, other, 1, name())
    await append(log, one, ExecutionSucceeded(1), n=4)
    found = await taken(client, 4, workflow=workflow, from_=before)
    assert [type(each.event).__name__ for each in found] == [
        "ExecutionStarted", "NodeScheduled", "NodeScheduled", "ExecutionSucceeded",
    ]  # fmt: skip
    (end,) = await taken(client, 1, types="ExecutionSucceeded", workflow=workflow, from_="beginning")
    assert (end.execution, end.event) == (one, ExecutionSucceeded(1))


async def test_large_values_come_whole(client: AsyncClient, log: JetStreamLog) -> None:
    execution, large = name(), "x" * (VALUE_LIMIT + 1)
    before = await log.last()
    await append(log, execution, start(), NodeSucceeded("a", 1, large))
    (found,) = await taken(client, 1, types="NodeSucceeded", from_=before)
    assert isinstance(found.event, NodeSucceeded)
    assert found.event.output == large


async def test_a_durable_subscription_goes_on_where_it_was_acknowledged(client: AsyncClient, log: JetStreamLog) -> None:
    execution, durable = name(), name()
    await append(log, execution, start(), NodeScheduled("a", 1), NodeScheduled("b", 1))
    options: dict[str, Any] = {"durable": durable, "execution": execution, "from_": "beginning"}
    first = await taken(client, 2, **options)
    again = await taken(client, 2, **options)
    assert again[0] == first[1]  # given, and never acknowledged: nothing was asked for behind it
    assert again[1].event == NodeScheduled("b", 1)
    async with await client.subscribe(**options, ack="manual") as events:
        held = [await events.next(10) for _ in range(1)]
    async with await client.subscribe(**options, ack="manual") as events:
        assert await events.next(10) == held[0]
        await events.ack()
    await append(log, execution, ExecutionSucceeded(1), n=2)
    assert (await taken(client, 1, **options))[0].event == ExecutionSucceeded(1)


async def test_an_acknowledgement_may_name_an_event_of_those_that_were_given(
    client: AsyncClient, log: JetStreamLog
) -> None:
    execution, durable = name(), name()
    await nodes(log, execution, 3)
    options: dict[str, Any] = {"durable": durable, "execution": execution, "from_": "beginning", "ack": "manual"}
    async with await client.subscribe(**options) as events:
        given = [await events.next(10) for _ in range(4)]
        await events.ack(given[1])
        assert events.position == given[1].position - 1  # of its entry there may be more
    assert await taken(client, 2, **options) == given[2:]


async def test_the_newest_subscriber_of_a_name_goes_on_and_the_older_one_is_told(
    client: AsyncClient, log: JetStreamLog
) -> None:
    execution = name()
    await nodes(log, execution, 5)
    options: dict[str, Any] = {"durable": name(), "execution": execution, "from_": "beginning", "ack": "manual"}
    async with await client.subscribe(**options) as older:
        await older.next(10)
        await older.ack()
        async with await client.subscribe(**options) as newer:
            await older.next(10)
            with pytest.raises(TakenOver, match=r"was taken over by .* process"):
                await older.ack()
            with pytest.raises(TakenOver):
                await older.next(10)
            assert (await newer.next(10)).event == NodeScheduled("n2", 1)
            await newer.ack()


async def test_a_durable_subscription_stays_with_its_choice_until_it_is_deleted(client: AsyncClient) -> None:
    durable = name()
    await (await client.subscribe("ExecutionFailed", durable=durable)).close()
    with pytest.raises(BadInput, match=rf"other events \(types ExecutionFailed\).*subscriptions delete {durable}"):
        await client.subscribe("ExecutionSucceeded", durable=durable)
    (told,) = [each for each in await client.subscriptions() if each["name"] == durable]
    assert (told["lag"], told["types"]) == (0, ["ExecutionFailed"])
    assert f"process {os.getpid()}" in told["subscriber"]
    await client.unsubscribe(durable)
    await (await client.subscribe("ExecutionSucceeded", durable=durable)).close()
    with pytest.raises(BadInput, match="there is no subscription 'nobody'"):
        await client.unsubscribe("nobody")
    await client.unsubscribe(durable)


@pytest.mark.parametrize("from_", [-1, "then", True, 1.5])
async def test_a_beginning_that_means_nothing_is_refused(client: AsyncClient, from_: Any) -> None:
    with pytest.raises(BadInput, match="it is 'now', 'beginning', or a position"):
        await client.subscribe(from_=from_)


async def test_a_subscriber_that_is_killed_again_and_again_misses_nothing(
    client: AsyncClient, log: JetStreamLog
) -> None:
    execution, found = name(), list[str]()
    await nodes(log, execution, 30)

    def until_killed(after: int) -> None:
        hears, says = _forks.Pipe(duplex=False)
        process = _forks.Process(target=subscribe_for_ever, args=(client._settings, execution, says))
        process.start()
        says.close()
        for _ in range(after):
            assert hears.poll(30), "nothing was delivered"
            pid, event = hears.recv()
            found.append(event)
        os.kill(pid, signal.SIGKILL)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
        with contextlib.suppress(EOFError):  # what it said before it died
            while True:
                found.append(hears.recv()[1])
        hears.close()

    for number in range(3):
        more = asyncio.create_task(nodes_behind(log, execution, 32 + 200 * number, 200))
        await asyncio.to_thread(until_killed, (5, 90, 4)[number])
        await more
    options: dict[str, Any] = {"durable": f"killed {execution}", "execution": execution, "from_": "beginning"}
    async with await client.subscribe(**options) as events:
        while len(set(found)) < 631:
            found.append((await events.next(10)).id)
    whole = [item.id async for recorded in log.read(execution) for item in recorded.unpack()]
    assert list(dict.fromkeys(found)) == whole  # in order, none left out
    assert len(found) <= 631 + 3 * 2 * 65  # and what was acknowledged before the last moment did not come again


async def test_what_was_imported_comes_only_to_those_who_ask(client: AsyncClient, log: JetStreamLog) -> None:
    execution, before = name(), await log.last()
    source = await append(log, f"{execution}-source", start())
    (data,) = [recorded.data async for recorded in log.read_all(source - 1, 1)]
    await log.append_stored(execution, "an-import", data, 0, {IMPORTED: "1"})
    await append(log, f"{execution}-behind", start())
    assert [each.execution for each in await taken(client, 2, from_=before)] == [
        f"{execution}-source", f"{execution}-behind",
    ]  # fmt: skip
    assert [each.execution for each in await taken(client, 3, from_=before, imports=True)][1] == execution
    assert (await taken(client, 1, execution=execution, from_="beginning", imports=True))[0].execution == execution


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


async def until(said: Callable[[], bool]) -> None:
    while not said():
        await asyncio.sleep(0)


class FailsFirst(MemorySink):
    async def put(self, messages: Any) -> None:
        if not hasattr(self, "failed"):
            self.failed = True
            raise SinkUnavailable("not now")
        await super().put(messages)


async def forwarded(client: AsyncClient, sink: Any, count: int, messages: list[Message], **options: Any) -> None:
    work = asyncio.create_task(client.forward(sink, **options))
    waiting = asyncio.create_task(until(lambda: len(messages) >= count))
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not work.done(), work.exception()
    behind = int(json.loads(messages[-1].body)["perdureposition"]) - 1
    while not any(
        each["position"] >= behind for each in await client.subscriptions() if each["name"] == options["name"]
    ):
        pass
    work.cancel()
    await asyncio.wait({work})


async def test_events_are_handed_on_to_a_sink_that_was_away_and_not_again(
    client: AsyncClient, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution, sink = name(), FailsFirst()
    await nodes(log, execution, 3, "sunk")
    options: dict[str, Any] = {"name": name(), "execution": execution, "from_": "beginning"}
    await forwarded(client, sink, 4, sink.messages, **options)
    assert [message.type for message in sink.messages] == ["ExecutionStarted", *["NodeScheduled"] * 3]
    assert json.loads(sink.messages[0].body)["perdureworkflow"] == "sunk"
    await append(log, execution, ExecutionSucceeded(1), n=5)
    await forwarded(client, sink, 5, sink.messages, **options)
    assert sink.messages[4].type == "ExecutionSucceeded"


async def test_the_nats_sink_hands_on_to_a_stream_and_says_when_there_is_none(
    client: AsyncClient, log: JetStreamLog, server: NatsServer, connection: Connection
) -> None:
    from perdure.events.sinks import NatsSink

    subject, execution = f"out-{uuid4().hex[:6]}", "a.b"
    js, sink = connection.nats.jetstream(), NatsSink(server.url, subject, server.token)
    messages = [Message(f"log/{number}", "NodeScheduled", execution, b"{}") for number in range(3)]
    with pytest.raises(SinkUnavailable, match=rf"does a stream there take {subject}\.>"):
        await sink.put(messages)
    await js.add_stream(name=subject, subjects=[f"{subject}.>"])
    await sink.put(messages[:2])
    await sink.put(messages)  # the first two again
    info = await js.stream_info(subject, subjects_filter=">")
    assert info.state.subjects == {f"{subject}.NodeScheduled.a=2eb": 3}
    await sink.close()
    await js.delete_stream(subject)


async def test_sinks_by_url_are_checked() -> None:
    with pytest.raises(BadInput, match="no sink is known for 'amqp://x/y'"):
        await open_sink("amqp://x/y")
    with pytest.raises(BadInput, match=r"names no topic; write it as kafka://host:9092/topic"):
        await open_sink("kafka://localhost:9092")
    with pytest.raises(BadInput, match="names no subject"):
        await open_sink("nats://localhost:4222/")


PAGE = Path(__file__).parent.parent / "docs/subscriptions.md"


async def test_the_plain_nats_consumer_of_the_docs_reads_the_log(
    client: AsyncClient, log: JetStreamLog, server: NatsServer, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(import asyncio.*?)```", PAGE.read_text(), re.DOTALL)[1]  # type: ignore[index]
    assert len(code.strip().splitlines()) <= 17
    execution = name()
    code = code.replace("nats://127.0.0.1:4222", server.url).replace(".perdure/token", str(store / "token"))
    code = code.replace("asyncio.run(main())", "")
    space: dict[str, Any] = {}
    exec(compile(code, "docs", "exec"), space)
    work = asyncio.create_task(space["main"]())
    await nodes(log, execution, 1)
    shown = ""
    while f"{execution} NodeScheduled" not in shown:
        assert not work.done(), work.exception()
        await asyncio.sleep(0)
        shown += capsys.readouterr().out
    work.cancel()
    await asyncio.wait({work})


def test_the_synchronous_client_subscribes_to_what_its_executions_do(tmp_path: Path) -> None:
    flow: dict[str, Any] = {"name": "flow", "nodes": {"a": {"set": 1}}}
    with perdure.connect(Settings(store=tmp_path / "store"), local=True) as client:
        with client.subscribe(["ExecutionSucceeded"], durable="pager") as events:
            run = client.start(flow)
            assert next(events).execution == run.id
            events.ack()
        client.start(flow, id="later").result(10)
        with client.subscribe(["ExecutionSucceeded"], durable="pager") as events:
            assert events.next(10).execution == "later"
        assert client.subscriptions()[0]["name"] == "pager"
        done = client.into_sql(lambda _, event: None, create_engine(f"sqlite:///{tmp_path}/x"), "x", stop_at_end=True)
        assert done == 0
        client.unsubscribe("pager")

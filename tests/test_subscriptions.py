"""Subscriptions on a real server: order, acknowledgement, take-over, death, imports, exactly-once, sinks."""

import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chosen_events import name, nodes
from histories import append, start
from sqlalchemy import create_engine
from subscriber_process import subscribe_for_ever

import perdure
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput, TakenOver, WaitTimeout
from perdure.events.blobs import VALUE_LIMIT
from perdure.events.entry import Happened
from perdure.events.jetstream_log import IMPORTED, JetStreamLog
from perdure.events.vocabulary import ExecutionSucceeded, NodeScheduled, NodeSucceeded

_forks = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.open(settings, "none") as client:
        yield client


@pytest.fixture
def log(connection: Connection) -> JetStreamLog:
    return connection.log


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


async def test_an_entry_whose_events_lie_in_a_blob_comes_whole(client: AsyncClient, log: JetStreamLog) -> None:
    execution, before = name(), await log.last()
    many = [NodeSucceeded(f"n{number}", 1, "y" * 100_000) for number in range(7)]
    await append(log, execution, start(), *many)
    (stored,) = [recorded async for recorded in log.read_stored(execution)]
    assert stored.slim.events == []
    for chosen in ({"from_": before}, {"execution": execution, "from_": "beginning"}):
        found = await taken(client, 7, types="NodeSucceeded", **chosen)
        assert [each.event for each in found] == many


async def test_what_nobody_expected_is_raised_and_does_not_leave_the_subscriber_waiting(
    client: AsyncClient, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = name()
    await append(log, execution, start())

    async def breaks(_: Any) -> Any:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr(client._connection.log, "with_events", breaks)
    async with await client.subscribe(execution=execution, from_="beginning") as events:
        with pytest.raises(RuntimeError, match="nobody expected this"):
            await events.next(10)


async def test_who_waits_for_an_event_is_told_when_the_subscription_is_closed(client: AsyncClient) -> None:
    events = await client.subscribe(execution=name())
    waiting = asyncio.create_task(events.next())
    await asyncio.sleep(0)
    await events.close()
    with pytest.raises(BadInput, match="the subscription is closed"):
        await waiting


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


@pytest.mark.parametrize("from_", [-1, "-1", "then", "", True, 1.5, None])
async def test_a_beginning_that_means_nothing_is_refused(client: AsyncClient, from_: Any) -> None:
    with pytest.raises(BadInput, match="it is 'now', 'beginning', or a position"):
        await client.subscribe(from_=from_)


async def test_a_beginning_and_an_execution_that_cannot_be_meant_are_refused(client: AsyncClient) -> None:
    with pytest.raises(BadInput, match=r"the log ends at position \d+; is it the position of another one"):
        await client.subscribe(from_=1 << 70)
    with pytest.raises(BadInput, match="execution='': it is the id of one; leave it out for all"):
        await client.subscribe(execution="")


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
    assert [each.execution for each in await taken(client, 2, from_=str(before))] == [
        f"{execution}-source", f"{execution}-behind",
    ]  # fmt: skip
    assert [each.execution for each in await taken(client, 3, from_=before, imports=True)][1] == execution
    assert (await taken(client, 1, execution=execution, from_="beginning", imports=True))[0].execution == execution


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
        left = client.subscribe()
    left.close()

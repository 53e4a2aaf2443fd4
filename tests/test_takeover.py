"""What makes a takeover quick: who is told of a loss, what is asked once for many, and what begins only later."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from hosts_lab import HOLD, RAN, Lab, open_gate, until
from nats.aio.msg import Msg

from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.registry import Registry
from perdure.cluster.supervisor import Supervisor
from perdure.cluster.tasks import stop
from perdure.cluster.watching import Watch
from perdure.definitions.loading import load
from perdure.events.direct_get import DirectGet
from perdure.events.jetstream_log import JetStreamLog


async def test_a_new_owner_asks_the_log_for_many_at_once_which_of_them_had_begun(
    server: NatsServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, keys, asked = Lab(server, connection), [uuid4().hex for _ in range(100)], list[int]()
    recorded = JetStreamLog.recorded

    async def counted(log: JetStreamLog, executions: Iterable[str]) -> set[str]:
        found = await recorded(log, some := list(executions))
        asked.append(len(some))
        return found

    async with lab.host():
        runs = [await lab.start(each, HOLD, each) for each in keys]
        await until(lambda: _ran(keys, 1))
    monkeypatch.setattr(JetStreamLog, "recorded", counted)
    async with lab.host(executions_per_actor=1):
        await until(lambda: _ran(keys, 2))
        for each in keys:
            open_gate(each)
        assert [await run.result(20) for run in runs] == [{"a": each} for each in keys]
    assert sum(asked) == len(keys)
    assert len(asked) <= 3
    await lab.forget()


async def _ran(keys: list[str], times: int) -> bool:
    return all(RAN[each] == times for each in keys)


async def test_a_plan_is_fetched_and_compiled_once_however_many_ask_at_the_same_moment(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition, fetched = load({"name": uuid4().hex, "nodes": {"a": {"set": 1}}}), list[str]()
    digest = definition.plan.digest
    await connection.registry.put_definition(digest, definition.workflow)
    registry, fetch = await Registry.open(connection.nats), Registry.definition

    async def counted(registry: Registry, digest: str) -> str:
        fetched.append(digest)
        return await fetch(registry, digest)

    monkeypatch.setattr(Registry, "definition", counted)
    first = asyncio.create_task(registry.plan(digest))
    plans = [asyncio.create_task(registry.plan(digest)) for _ in range(50)]
    await asyncio.sleep(0)
    first.cancel()  # the others still get theirs
    assert {plan.digest for plan in await asyncio.gather(*plans)} == {digest}
    assert fetched == [digest]


async def test_the_last_messages_of_many_subjects_come_whole_where_one_answer_would_be_too_large(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    js, root = connection.nats.jetstream(), f"lasts.{uuid4().hex}"
    stream = root.replace(".", "-")
    await js.add_stream(name=stream, subjects=[f"{root}.>"], allow_direct=True)
    subjects = [f"{root}.{number}" for number in range(20)]
    for subject in subjects:
        await js.publish(subject, b"old")
        await js.publish(subject, subject.encode() + b"x" * 1000)
    monkeypatch.setattr("perdure.events.direct_get._MAX_BYTES", 5000)
    found = await DirectGet(connection.nats, stream, 5).lasts([*subjects, f"{root}.none"])
    assert {subject: message.data for subject, message in found.items()} == {
        subject: subject.encode() + b"x" * 1000 for subject in subjects
    }
    await js.delete_stream(stream)


async def test_a_host_that_dies_with_a_question_unanswered_is_found_gone_without_waiting_for_that_answer(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cluster.watching._ANSWER_SECONDS", 60)
    name, watch = uuid4().hex, Watch(connection)

    async def die(_question: Msg) -> None:
        await answering.unsubscribe()

    answering = await connection.nats.subscribe(f"perdure.host.{name}", cb=die)
    async with asyncio.timeout(10):
        assert await watch.missing([name]) == [name]
    connection.reconnected.discard(watch._reconnected)


class FakeProcesses:
    """Processes that are only counted."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.counted = asyncio.Queue[int]()

    async def ensure(self, count: int) -> list[str]:
        self.counted.put_nowait(count)
        return ["", ""]

    async def end(self, drain: float) -> None:
        """Have none to end."""


@asynccontextmanager
async def supervised(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> AsyncIterator[tuple[FakeProcesses, asyncio.Task[None]]]:
    """Supervise one host, by looking once an hour."""

    async def assignment(_registry: Registry) -> dict[str, list[int]]:
        return {host: [0]}

    async def nothing(*_: object) -> None:
        """Leave what else is in the store alone."""

    monkeypatch.setattr("perdure.cluster.supervisor.LOOK_SECONDS", 3600.0)
    monkeypatch.setattr("perdure.cluster.supervisor._COUNT_SECONDS", 3600.0)
    monkeypatch.setattr("perdure.cluster.supervisor.assignment", assignment)
    monkeypatch.setattr("perdure.cluster.supervisor.adopt", nothing)
    processes, connection = FakeProcesses(), await open_connection(server.url, server.token)
    supervisor = Supervisor(connection, processes, nothing)
    running = asyncio.create_task(supervisor.run())
    try:
        yield processes, running
    finally:
        await stop(running, *([supervisor._keeping] if supervisor._keeping else []))
        await connection.close()  # and with it what answers: who opens a store must not take it for a cluster


async def test_who_stands_by_is_asked_as_soon_as_a_process_is_lost_and_another_is_started_only_later(
    server: NatsServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, asked = uuid4().hex, asyncio.Queue[str]()

    async def answer(message: Msg) -> None:
        await message.respond(b"{}")

    async def take_over(message: Msg) -> None:
        asked.put_nowait(message.data.decode())
        await message.respond(b"")

    serving = await connection.nats.subscribe(f"perdure.host.{host}", cb=answer)
    standing_by = await connection.nats.subscribe("perdure.standby", queue="standby", cb=take_over)
    async with asyncio.timeout(20), supervised(server, monkeypatch, host) as (processes, _):
        assert await processes.counted.get() == 2
        assert asked.empty()
        await serving.unsubscribe()
        processes.lost.set()
        assert await asked.get() == host
        assert processes.counted.empty()
    await standing_by.unsubscribe()


async def test_where_nobody_stands_by_processes_are_counted_at_once_and_the_loss_is_said_once(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = uuid4().hex
    async with asyncio.timeout(20), supervised(server, monkeypatch, host) as (processes, _):
        assert [await processes.counted.get() for _ in range(2)] == [2, 2]
        processes.lost.set()
        assert await processes.counted.get() == 2
    assert caplog.text.count(f"nobody serves {host}") == 1


async def test_a_supervisor_whose_counting_breaks_ends_with_that_so_that_ray_starts_it_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_processes: FakeProcesses, _count: int) -> list[str]:
        raise ValueError("nobody foresaw it")

    monkeypatch.setattr(FakeProcesses, "ensure", broken)
    async with asyncio.timeout(20), supervised(server, monkeypatch, uuid4().hex) as (processes, running):
        processes.lost.set()
        with pytest.raises(ValueError, match="nobody foresaw it"):
            await running

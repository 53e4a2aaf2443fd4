"""Sinks: handing on in order, going on where it was, and NATS as a sink."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
from chosen_events import name, nodes
from histories import append
from nats_process import free_ports

from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import BadInput, SinkUnavailable
from perdure.events.cloud_events import Message
from perdure.events.jetstream_log import JetStreamLog
from perdure.events.sinks import MemorySink, NatsSink, open_sink
from perdure.events.vocabulary import ExecutionSucceeded


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.open(settings, "none") as client:
        yield client


@pytest.fixture
def log(connection: Connection) -> JetStreamLog:
    return connection.log


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


async def test_a_nats_server_that_is_away_is_told_of_at_once_and_asked_again(server: NatsServer) -> None:
    url, port = server.url, free_ports(1)[0]
    sink = NatsSink(f"nats://127.0.0.1:{port}", "out", server.token)
    message = Message("log/1", "NodeScheduled", "x-1", b"{}")
    for _ in range(2):
        with pytest.raises(SinkUnavailable, match=f"the sink nats://127.0.0.1:{port} did not take an event"):
            await asyncio.wait_for(sink.put([message]), 8)
    sink._url = url  # as when it is back at its place
    with pytest.raises(SinkUnavailable, match="does a stream there take"):
        await sink.put([message])
    await sink.close()


async def test_sinks_by_url_are_checked() -> None:
    with pytest.raises(BadInput, match="no sink is known for 'amqp://x/y'"):
        await open_sink("amqp://x/y")
    with pytest.raises(BadInput, match=r"names no topic; write it as kafka://host:9092/topic"):
        await open_sink("kafka://localhost:9092")
    with pytest.raises(BadInput, match="names no subject"):
        await open_sink("nats://localhost:4222/")

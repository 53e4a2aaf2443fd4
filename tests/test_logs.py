"""The log: what records are about, as lines for people or as JSON, in the process's own stream and over NATS."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hosts_lab import Lab, until
from nats.aio.msg import Msg

from perdure.actors.log_context import about
from perdure.cluster import logs
from perdure.cluster.connection import Connection
from perdure.cluster.nats_server import NatsServer
from perdure.events.subjects import partition_of

_log = logging.getLogger("a tool")


async def speak() -> None:
    """Write one record, as a tool does."""
    _log.warning("spoken: %s", "Zürich")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Put the loggers back as they were."""
    root, ours = logging.getLogger(), logging.getLogger("perdure")
    handlers, level = list(root.handlers), ours.level
    yield root
    root.handlers[:] = handlers
    ours.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_what_a_tool_logs_says_of_which_execution_node_and_attempt(
    server: NatsServer, connection: Connection, root: logging.Logger
) -> None:
    stream, lab = io.StringIO(), Lab(server, connection)
    logs.configure("json", stream)
    async with lab.host():
        run = await lab.start(f"spoken {lab.lane}", {"name": "s", "nodes": {"say": {"tool": "test_logs:speak"}}})
        await run.result(20)
    (told,) = [record for record in lines(stream) if record["logger"] == "a tool"]
    told.pop("at")
    assert told == {
        "level": "warning", "logger": "a tool", "message": "spoken: Zürich",
        "execution": run.id, "node": "say", "attempt": 1, "partition": partition_of(run.id),
    }  # fmt: skip


async def test_people_get_lines_with_the_same_and_the_whole_of_an_exception(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("console", stream)
    logs.configure("console", stream)  # twice is once

    async def work() -> None:
        about(execution="x-1", node="a", attempt=2)
        try:
            int("broken")
        except ValueError:
            logging.getLogger("perdure.test").exception("it failed")

    await asyncio.create_task(work())
    logging.getLogger("perdure.test").info("all is well")
    logging.getLogger("another").info("nobody asked")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error   it failed  [execution=x-1 node=a attempt=2]")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-2] == "ValueError: invalid literal for int() with base 10: 'broken'"
    assert rest[-1].endswith("info    all is well")


async def test_records_go_over_nats_too_from_any_thread(connection: Connection, root: logging.Logger) -> None:
    heard: list[dict[str, Any]] = []

    async def hear(message: Msg) -> None:
        heard.append({**json.loads(message.data), "subject": message.subject})

    listening = await connection.nats.subscribe(f"{logs.SUBJECT}.>", cb=hear)
    logs.configure("json", io.StringIO())
    logs.to_nats(connection.nats, "host7")
    await asyncio.to_thread(logging.getLogger("perdure.test").warning, "from a thread")

    async def came() -> bool:
        return bool(heard)

    await until(came)
    assert (heard[0]["message"], heard[0]["process"], heard[0]["subject"]) == (
        "from a thread",
        "host7",
        "perdure.logs.host7",
    )
    await listening.unsubscribe()

"""Code that blocks the event loop is named in a warning, with the tool, the execution and the line."""

import asyncio
import logging
import threading
import time

import pytest

from perdure import tool
from perdure.actors.loop_watch import watch_loop
from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings


@tool(name="watch.blocking")
async def blocking() -> None:
    time.sleep(0.5)  # as a careless tool does


def on_a_loop_of_its_own(seconds: float, blocked: float, logged: pytest.LogCaptureFixture) -> list[str]:
    async def block() -> None:
        watch_loop(seconds)
        watch_loop(seconds)  # once is enough
        await asyncio.sleep(0.01)
        time.sleep(blocked)
        await asyncio.sleep(0)

    async def named() -> None:
        await asyncio.create_task(block(), name="the culprit")

    with logged.at_level(logging.WARNING, "perdure.loop"):
        asyncio.run(named())
    return [record.getMessage() for record in logged.records]


def test_who_blocks_the_loop_is_named_once_with_the_line(caplog: pytest.LogCaptureFixture) -> None:
    (warning,) = on_a_loop_of_its_own(0.05, 0.4, caplog)
    assert warning.startswith("the culprit blocks the event loop for more than 0.05 s, at ")
    assert "test_loop_watch.py:" in warning
    assert "in block; " in warning


def test_who_does_not_is_not(caplog: pytest.LogCaptureFixture) -> None:
    assert on_a_loop_of_its_own(5, 0.05, caplog) == []


def test_a_loop_that_is_not_to_be_watched_has_no_watch() -> None:
    async def count() -> int:
        watch_loop(0)
        return sum(thread.name == "perdure-loop-watch" for thread in threading.enumerate())

    before = sum(thread.name == "perdure-loop-watch" for thread in threading.enumerate())
    assert asyncio.run(count()) <= before


async def test_a_tool_that_blocks_its_host_is_named_with_its_execution(
    settings: Settings, server: object, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> None:
        async def main() -> None:
            quick = settings.model_copy(update={"slow_callback": 0.05})
            async with await AsyncClient.open(quick, "local", drive="watched") as client:
                definition = {"name": "x", "nodes": {"n": {"tool": f"{__name__}:blocking"}}}
                await (await client.start(definition, id="watched")).result(timeout=30)

        asyncio.run(main())

    with caplog.at_level(logging.WARNING, "perdure.loop"):
        await asyncio.to_thread(run)
    named = [record.getMessage() for record in caplog.records if "blocking" in record.getMessage()]
    assert named[0].startswith(f"tool '{__name__}:blocking' (node 'n' of execution 'watched') blocks the event loop")
    assert "test_loop_watch.py" in named[0]

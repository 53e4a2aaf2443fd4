"""The read models: rows and position move together, and can be made again from the log."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from perdure.events.entry import Entry
from perdure.events.memory_log import MemoryLog
from perdure.events.vocabulary import Error, Event, ExecutionFailed, ExecutionStarted, ExecutionSucceeded, NodeScheduled
from perdure.projections.runner import Projections

STARTED = ExecutionStarted("flow", "sha256:0", {"a": 1}, "0")
FAILED = ExecutionFailed(Error("Boom", "it broke"), "a", 2)


async def append(log: MemoryLog, execution: str, *events: Event, second: int = 0) -> None:
    at = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    await log.append(execution, Entry(uuid4().hex, 1, "", at, list(events)), await log.last(execution))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "projections.sqlite"


async def test_an_execution_is_a_row_that_ends(file: Path) -> None:
    log, projections = MemoryLog(), Projections(file)
    await append(log, "x-1", STARTED, NodeScheduled("a", 1))
    await append(log, "x-2", STARTED, second=1)
    await projections.catch_up(log)
    assert [(row["id"], row["status"], row["ended_at"]) for row in await projections.executions()] == [
        ("x-2", "running", None),
        ("x-1", "running", None),
    ]
    await append(log, "x-1", FAILED, second=2)
    await append(log, "x-2", ExecutionSucceeded(1), second=3)
    await projections.catch_up(log)
    first, second = await projections.executions()
    assert (first["status"], first["ended_at"]) == ("succeeded", datetime(2026, 1, 1, 0, 0, 3))  # noqa: DTZ001
    assert (second["status"], second["failed_node"], second["error_message"]) == ("failed", "a", "it broke")
    assert [row["id"] for row in await projections.executions(status="failed")] == ["x-1"]
    assert [row["id"] for row in await projections.executions(limit=1)] == ["x-2"]
    projections.close()


async def test_several_at_once_fold_every_entry_once(file: Path) -> None:
    log = MemoryLog()
    for number in range(2500):
        await append(log, f"x-{number}", STARTED, ExecutionSucceeded(1))
    many = [Projections(file) for _ in range(4)]
    await many[0].catch_up(MemoryLog())  # the tables
    await asyncio.gather(*(projections.catch_up(log) for projections in many))
    assert len(await many[0].executions(limit=5000)) == 2500
    for projections in many:
        projections.close()


async def test_another_log_begins_the_rows_again(file: Path) -> None:
    long, short, projections = MemoryLog(), MemoryLog(), Projections(file)
    for number in range(3):
        await append(long, f"old-{number}", STARTED)
    await projections.catch_up(long)
    await append(short, "new-1", STARTED)
    await projections.catch_up(short)
    assert [row["id"] for row in await projections.executions()] == ["new-1"]
    projections.close()


async def test_an_entry_that_cannot_be_read_is_reported_and_the_rest_goes_on(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, projections = MemoryLog(), Projections(file)
    await append(log, "x-1", STARTED)
    log._all[0] = type(log._all[0])("x-1", 1, b'{"strange": true}')
    await append(log, "x-2", STARTED)
    await projections.catch_up(log)
    assert [row["id"] for row in await projections.executions()] == ["x-2"]
    assert "execution 'x-1', position 1" in caplog.text
    projections.close()

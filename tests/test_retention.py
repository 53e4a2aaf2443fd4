"""Purging removes what ended and keeps its id taken; a crash at any point leaves it repeatable."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
from perdure import ExecutionFailed, ExecutionStopped, Settings
from perdure.cluster import retention
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.definitions.loading import load
from perdure.errors import BadInput, ExecutionExists, ExecutionNotFound
from perdure.events.vocabulary import ExecutionPurged

HELLO: dict[str, Any] = {"name": "hello", "nodes": {"greet": {"set": "Hello, ${{ input.name }}!"}}}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with await perdure.connect_async(Settings(store=tmp_path / "store"), local=True) as client:
        yield client


async def entries(client: AsyncClient, execution: str) -> list[Any]:
    return [recorded.slim async for recorded in client._connection.log.read_stored(execution)]


async def finished(client: AsyncClient, execution: str, name: str = "Ann") -> None:
    await (await client.start(HELLO, {"name": name}, id=execution)).result(10)


async def blobs_of(connection: Connection) -> list[str]:
    try:
        return [str(info.name) for info in await (await connection.log.blobs._store()).list(ignore_deletes=True)]  # type: ignore[attr-defined]
    except Exception:
        return []


async def test_only_what_ended_long_enough_ago_is_purged(client: AsyncClient) -> None:
    await finished(client, "x-1")
    with pytest.raises(ExecutionFailed):
        await (await client.start(HELLO, {}, id="x-2")).result(10)
    assert await client.purge(3600) == []
    assert await client.purge(0, ["failed"], dry_run=True) == ["x-2"]
    assert len(await entries(client, "x-2")) == 1
    assert await client.purge(0, ["failed"]) == ["x-2"]
    assert [row["id"] for row in await client.executions()] == ["x-1"]
    counted = await client.statistics()
    await client.rebuild()
    assert await client.statistics() == counted
    assert {row["node"]: (row["succeeded"], row["failed"]) for row in counted} == {"": (1, 1), "greet": (1, 1)}
    (tombstone,) = (await entries(client, "x-2"))[0].events
    assert isinstance(tombstone, ExecutionPurged)
    assert (tombstone.workflow, tombstone.status, tombstone.entries) == ("hello", "failed", 1)


async def test_what_was_cancelled_or_terminated_is_purged_as_well_and_to_ask_for_the_same_end_again_is_no_mistake(
    client: AsyncClient,
) -> None:
    waiting = {"name": "waiting", "nodes": {"w": {"wait": {"signal": "never"}}}}
    stopped = [await client.start(waiting, id=name) for name in ("x-1", "x-2")]
    for run, stop in zip(stopped, (stopped[0].cancel, stopped[1].terminate), strict=True):
        assert await stop()
        with pytest.raises(ExecutionStopped):
            await run.result(10)
        assert await stop()
    assert sorted(await client.purge(0)) == ["x-1", "x-2"]


async def test_large_values_and_snapshots_go_too(client: AsyncClient) -> None:
    await finished(client, "big-1", "x" * 300_000)
    connection = client._connection
    await connection.snapshots.save("big-1", b"state")
    assert await blobs_of(connection)
    await client.purge(0)
    assert await blobs_of(connection) == []
    assert await connection.snapshots.load("big-1") is None


async def test_a_purged_id_cannot_be_started_again(client: AsyncClient) -> None:
    await finished(client, "x-1")
    await client.purge(0)
    with pytest.raises(ExecutionExists, match="purged"):
        await client.start(HELLO, {"name": "Ann"}, id="x-1")
    command = client._command(load(HELLO), {"name": "Ann"}, "x-1", 5)
    await client._connection.inbox.start(command)  # one that was under way meanwhile
    async for recorded in client._connection.log.follow("x-1"):
        if command.id in recorded.slim.causes:
            break
    assert [type(event).__name__ for entry in await entries(client, "x-1") for event in entry.events] == [
        "ExecutionPurged",
        "CommandRefused",
    ]


@pytest.mark.parametrize("step", ["blobs.delete", "snapshots.delete", "log.purge"])
async def test_a_purge_that_broke_off_is_finished_by_the_next(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await finished(client, "x-1", "y" * 300_000)
    connection = client._connection
    part = {"blobs.delete": connection.log.blobs, "snapshots.delete": connection.snapshots, "log.purge": connection.log}

    async def crash(*_: object) -> None:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(part[step], step.partition(".")[2], crash)
        with pytest.raises(RuntimeError):
            await client.purge(0)
    # x-1 has more than its tombstone, and at least one entry before it
    before = await entries(client, "x-1")
    assert isinstance(before[-1].events[0], ExecutionPurged)
    if len(before) > 1:
        assert await client.purge(3600) == ["x-1"]
    assert [type(event) for entry in await entries(client, "x-1") for event in entry.events] == [ExecutionPurged]
    assert await blobs_of(connection) == []


async def test_what_has_not_ended_or_is_not_there_is_not_purged(client: AsyncClient) -> None:
    node = {"tool": "asyncio:sleep", "with": {"delay": 60}}
    run = await client.start({"name": "slow", "nodes": {"a": node}}, id=uuid4().hex)
    with pytest.raises(BadInput, match="has not ended"):
        await retention.purge(client._connection, run.id)
    with pytest.raises(ExecutionNotFound):
        await retention.purge(client._connection, "never")
    await asyncio.sleep(0)


async def test_several_that_purge_the_same_execution_at_once_all_succeed(client: AsyncClient) -> None:
    await finished(client, "x-1", "n" * 200_000)
    await asyncio.gather(*(retention.purge(client._connection, "x-1") for _ in range(6)))
    (entry,) = await entries(client, "x-1")
    assert [type(event) for event in entry.events] == [ExecutionPurged]
    assert await blobs_of(client._connection) == []

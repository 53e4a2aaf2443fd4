"""Verification: what it finds and how it says so, on stores that are at rest, in use, and damaged."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, delete, update
from typer.testing import CliRunner

import perdure
from perdure import Settings
from perdure.cli import app
from perdure.cluster.client import AsyncClient
from perdure.cluster.verification import Verification
from perdure.events.entry import Happened
from perdure.events.vocabulary import ExecutionStarted
from perdure.projections.projection import Projection
from perdure.projections.runner import Projections
from perdure.projections.tables import definitions, executions, statistics

FLOW: dict[str, Any] = {"name": "waits", "nodes": {"go": {"wait": {"signal": "go"}}, "big": {"set": "${{ input }}"}}}


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    async with await perdure.connect_async(Settings(store=tmp_path / "store"), local=True) as client:
        yield client


async def finished(client: AsyncClient, name: str, value: Any = None) -> None:
    run = await client.start(FLOW, value, id=name)
    await run.signal("go")
    await run.result(10)


def changed(client: AsyncClient, *statements: Any) -> None:
    rows = Projections(client._settings.projections_at)
    with rows.store.writing() as connection:
        for statement in statements:
            connection.execute(statement)
    rows.close()


async def problems(client: AsyncClient, *executions: str) -> list[tuple[str, str]]:
    return [(each.execution, p.message) async for each in client.verify(executions or None) for p in each.problems]


async def test_what_went_on_since_the_read_models_were_brought_up_is_no_problem(client: AsyncClient) -> None:
    run = await client.start(FLOW, id="going")
    verification = Verification(client._connection, client._with_own())
    await verification.open()
    await run.signal("go")
    await run.result(10)
    assert (await verification.verify("going")).problems == []
    assert (await verification.whole()).problems == []
    verification.close()


async def test_read_models_that_sum_up_are_held_against_the_whole_log(client: AsyncClient) -> None:
    await finished(client, "one")
    assert await problems(client) == []
    changed(client, update(statistics).values(succeeded=7), delete(definitions))
    assert await problems(client, "one") == []
    told = dict.fromkeys(message for execution, message in await problems(client) if execution == "")
    assert any("has 7 as 'succeeded', and the log makes 1, and 2 more" in message for message in told)
    assert any("of 'definitions' is missing; make it again with" in message for message in told)
    await client._projections.rebuild(client._connection.log, ["statistics", "definitions"])
    assert await problems(client) == []


async def test_a_purged_execution_and_a_fork_verify_with_their_statistics(client: AsyncClient) -> None:
    await finished(client, "old", 1)
    await (await client.get("old").fork(from_="big", id="fork")).result(10)
    await client.batch("purge", filter="id == 'old'", rate=1000)
    assert await problems(client) == []
    await client._projections.rebuild(client._connection.log, ["statistics"])
    assert await problems(client) == []


async def test_a_blob_that_is_gone_is_told_with_the_entry_that_names_it(client: AsyncClient) -> None:
    await finished(client, "big", "x" * 300_000)
    log = client._connection.log
    blobs = [blob.name async for recorded in log.read_stored("big") for blob in recorded.slim.blobs]
    await log.blobs.delete(blobs[:1])
    (told,) = [each async for each in client.verify(["big"])]
    assert [(each.kind, each.n) for each in told.problems] == [("corrupt", 1)]
    assert blobs[0] in told.problems[0].message


async def test_the_command_tells_each_problem_on_a_line_and_ends_with_1(client: AsyncClient) -> None:
    await finished(client, "one")
    assert await problems(client) == []
    changed(client, update(executions).values(status="failed"), update(statistics).values(failed=3))
    words = ["log", "verify", "--all", "--store", str(client._settings.store)]

    def run(*more: str) -> Any:
        return CliRunner().invoke(app, [*words, *more])

    done = await asyncio.to_thread(run)
    assert done.exit_code == 1
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("one: projection: the read model 'executions' has 'failed' as 'status'")
    assert last.startswith("all executions: projection: the read model 'statistics'")
    assert ": 2 problems" in done.stderr
    told = json.loads((await asyncio.to_thread(run, "--json")).stdout)
    assert [each["kind"] for each in told["problems"]] == ["projection", "projection"]


class Starts(Projection):
    name = "starts"
    table = Table("starts", MetaData(), Column("execution", String, primary_key=True), Column("entry", Integer))
    tables = (table,)

    def fold(self, connection: Connection, events: Sequence[Happened]) -> None:
        for each in events:
            if isinstance(each.event, ExecutionStarted):
                connection.execute(self.table.insert().values(execution=each.execution, entry=each.n))


async def test_a_projection_of_the_users_own_is_held_against_the_log(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "store", projections=["test_verification:Starts"])
    async with await perdure.connect_async(settings, local=True) as client:
        await finished(client, "one")
        assert await problems(client) == []
        changed(client, update(Starts.table).values(entry=5))
        ((_, message),) = await problems(client)
        assert "the read model 'starts': the row 'one' of 'starts' has 5 as 'entry', and the log makes 1" in message
        assert [each.problems async for each in client.verify(projections=False)] == [[]]


async def test_read_models_in_postgresql_are_held_against_the_log_like_those_in_sqlite(
    tmp_path: Path, postgres_url: str
) -> None:
    settings = Settings(store=tmp_path / "store", projections_url=postgres_url)
    async with await perdure.connect_async(settings, local=True) as client:
        await finished(client, "one", {"text": "ü"})
        await finished(client, "Two")
        assert await problems(client) == []
        changed(client, update(statistics).values(succeeded=7), update(executions).values(priority=1))
        told = [message for _, message in await problems(client)]
    assert len(told) == 3
    assert "has 7 as 'succeeded', and the log makes 2" in told[2]

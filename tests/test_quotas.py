"""Quotas as whoever starts executions meets them: a typed refusal, the same wherever the start comes from."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from perdure import ExecutionFailed, LimitReached, QuotaExceeded
from perdure.cli import app
from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings
from perdure.console import console
from perdure.console_queues import show_queues


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.open(Settings(store=tmp_path_factory.mktemp("quotas"), hosts=3), "local") as client:
        yield client


def waits(quota: dict[str, Any], **parts: Any) -> dict[str, Any]:
    node = {"wait": {"signal": "go"}}
    return {"name": f"q{uuid4().hex[:10]}", "quota": {"key": "input.tenant", **quota}, "nodes": {"a": node}, **parts}


async def test_a_start_beyond_the_quota_is_refused_for_its_tenant_alone(client: AsyncClient) -> None:
    workflow = waits({"active": 3})
    runs = [await client.start(workflow, {"tenant": "ann"}) for _ in range(3)]
    with pytest.raises(QuotaExceeded, match=r"not let in: limit 'quota:.*' \(key 'ann'\) is used up; start it again"):
        await client.start(workflow, {"tenant": "ann"})
    other = await client.start(workflow, {"tenant": "bob"})
    for run in (*runs, other):
        await run.signal("go")
        await run.result(10)
    await (await client.start(workflow, {"tenant": "ann"})).signal("go")


async def test_the_same_start_again_is_let_in_when_there_is_room_and_attaches_when_it_was(client: AsyncClient) -> None:
    workflow, name = waits({"active": 1}), uuid4().hex
    first = await client.start(workflow, {"tenant": "ann"})
    for _ in range(2):
        with pytest.raises(QuotaExceeded):
            await client.start(workflow, {"tenant": "ann"}, id=name)
    await first.signal("go")
    await first.result(10)
    run = await client.start(workflow, {"tenant": "ann"}, id=name)
    assert await run.status() == "running"
    again = await client.start(workflow, {"tenant": "ann"}, id=name)
    await again.signal("go")
    assert await run.result(10) == {"a": None}


async def test_starts_per_minute_are_counted_over_all_who_share_the_quota(client: AsyncClient) -> None:
    shared = f"shared{uuid4().hex[:8]}"
    nodes = {"a": {"set": 1}}
    one, two = (waits({"starts_per_minute": 4, "name": shared}, nodes=nodes) for _ in range(2))
    for workflow in (one, two, one, two):
        await (await client.start(workflow, {"tenant": "ann"})).result(10)
    with pytest.raises(QuotaExceeded):
        await client.start(one, {"tenant": "ann"})


async def test_many_at_once_and_children_are_held_to_it_too(client: AsyncClient) -> None:
    workflow = waits({"active": 2})
    runs = await client.start_many(workflow, [{"tenant": "ann"}] * 6)
    refused = 0
    for run in runs:
        async for happened in run.events():
            if type(happened.event).__name__ in ("ExecutionAdmitted", "ExecutionFailed"):
                refused += type(happened.event).__name__ == "ExecutionFailed"
                break
    assert refused == 4
    parent = {
        "name": f"p{uuid4().hex[:8]}",
        "workflows": {"inner": workflow},
        "nodes": {"a": {"workflow": "inner", "with": {"tenant": "ann"}}},
    }
    with pytest.raises(ExecutionFailed, match="QuotaExceeded"):
        await (await client.start(parent)).result(10)


async def test_a_workflow_that_rejects_beyond_its_concurrency_says_so_at_the_start(client: AsyncClient) -> None:
    workflow = {"name": f"c{uuid4().hex[:8]}", "concurrency": {"limit": 1, "at_limit": "reject"},
                "nodes": {"a": {"wait": {"signal": "go"}}}}  # fmt: skip
    run = await client.start(workflow)
    with pytest.raises(LimitReached, match="has no room, and rejects"):
        await client.start(workflow)
    await run.cancel()


async def test_who_waits_and_who_holds_is_seen_by_programs_and_people(client: AsyncClient) -> None:
    name = f"seen{uuid4().hex[:8]}"
    workflow = {"name": name, "concurrency": {"limit": 1, "key": "input"}, "nodes": {"a": {"wait": {"signal": "go"}}}}
    runs = [await client.start(workflow, "ann")]
    while await runs[0].status() != "running":
        await asyncio.sleep(0)
    runs.append(await client.start(workflow, "ann", priority=8))

    async def limit() -> dict[str, Any]:
        return next(each for each in (await client.queues())["limits"] if each["limit"] == f"workflow:{name}")

    while not (told := await limit())["keys"][0]["waiting"]:
        await runs[1].begun(within=1)
    (key,) = told["keys"]
    assert told["gives"] == {"concurrency": 1, "at_limit": "queue", "of": "a definition"}
    assert told["decided"]
    assert [each["execution"] for each in key["held"]] == [runs[0].id]
    assert [(each["execution"], each["priority"]) for each in key["waiting"]] == [(runs[1].id, 8)]
    assert (key["key"], key["waits"], key["why"]) == ("ann", 1, "all 1 are held")
    arguments = ["status", "--queue", "--store", str(client._settings.store)]
    shown = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert runs[1].id in shown.stdout
    assert json.loads(shown.stdout)["starts"] == {}
    with console.capture() as captured:
        show_queues(await client.queues())
    lines = [line for line in captured.get().splitlines() if any(run.id in line for run in runs)]
    assert [line.split()[:4] for line in lines] == [
        ["ann", "holds", runs[0].id, "5"], ["ann", "waits", runs[1].id, "8"],
    ]  # fmt: skip
    for run in runs:
        await run.signal("go")
        await run.result(10)

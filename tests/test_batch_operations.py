"""Batches: what they reach, what they record, their pace, and going on after a crash."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from batch_process import signal_all
from histories import append, start

import perdure
from perdure import Settings
from perdure.cluster.batch_records import ACTIONS, Batch
from perdure.cluster.batches import Batches
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.errors import BadInput, TakenOver
from perdure.events.vocabulary import Error, ExecutionFailed

_forks = multiprocessing.get_context("forkserver")
WAITS: dict[str, Any] = {
    "name": "waits",
    "search": {"tenant": "input.tenant"},
    "nodes": {"go": {"wait": {"signal": "go"}}, "then": {"wait": {"signal": "never"}, "needs": ["go"]}},
}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    settings = Settings(store=tmp_path_factory.mktemp("batches") / "store", user="ann")
    async with await perdure.connect_async(settings, local=True) as client:
        yield client


async def waiting(client: AsyncClient, count: int) -> tuple[str, list[AsyncRun]]:
    tenant = uuid4().hex[:8]
    runs = await client.start_many(WAITS, [{"tenant": tenant}] * count)
    while sum((await client.count(where={"tenant": tenant}, at="go")).values()) < count:
        await asyncio.sleep(0)
    return tenant, runs


async def signals(run: AsyncRun) -> int:
    """Return how many commands of batches were answered."""
    return sum(cause.startswith("batch/") for recorded in await run.history() for cause in recorded.entry.causes)


class Killed(BaseException):
    pass


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(client: AsyncClient) -> None:
    tenant, runs = await waiting(client, 3)
    planned = await client.batch("cancel", where={"tenant": tenant}, dry_run=True)
    assert (planned.status, planned.matched, planned.by) == ("preview", 3, "ann")
    assert sorted(planned.first) == sorted(run.id for run in runs)
    assert planned.query["status"] == ["queued", "running", "paused", "compensating"]
    assert [await run.status() for run in runs] == ["running"] * 3
    with pytest.raises(BadInput, match="there is no batch"):
        await client.get_batch(planned.id)


async def test_a_batch_does_what_its_preview_showed_and_records_who_when_what_and_how_it_went(
    client: AsyncClient,
) -> None:
    tenant, runs = await waiting(client, 4)
    planned = await client.batch("cancel", where={"tenant": tenant}, reason="not needed", rate=1000, dry_run=True)
    late = await client.start(WAITS, {"tenant": tenant})
    done = await client.begin_batch(planned)
    assert (done.status, done.outcomes, done.matched) == ("finished", {"done": 4}, 4)
    for run in runs:
        with pytest.raises(perdure.ExecutionStopped, match="cancelled: not needed"):
            await run.result(10)
    assert await late.status() == "running"  # it began after the preview
    recorded = await client.get_batch(done.id)
    assert (recorded.action, recorded.by, recorded.reason, recorded.query["where"]) == (
        "cancel", "ann", "not needed", {"tenant": tenant},
    )  # fmt: skip
    assert recorded.began < (recorded.ended or recorded.began)
    assert (await client.batches())[0].id == done.id


async def test_what_refuses_is_counted_with_its_reason(client: AsyncClient) -> None:
    tenant, runs = await waiting(client, 2)
    await runs[0].cancel()
    with pytest.raises(perdure.ExecutionStopped):
        await runs[0].result(10)
    done = await client.batch(
        "signal", signal="go", where={"tenant": tenant}, status=["running", "cancelled"], rate=1000
    )
    assert done.outcomes == {"done": 1, "refused": 1}
    assert done.refusals == {runs[0].id: f"execution {runs[0].id!r} has ended: it is cancelled"}
    assert await signals(runs[1]) == 1


async def test_a_batch_that_is_broken_off_goes_on_and_each_execution_is_told_once(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cluster.batches._PAGE", 5)
    tenant, runs = await waiting(client, 12)
    planned = await client.batch("signal", signal="go", where={"tenant": tenant}, rate=1000, dry_run=True)
    real, given = AsyncRun.tell, list[str]()

    async def dies(run: AsyncRun, command: Any) -> bool:
        told = await real(run, command)
        given.append(run.id)
        if len(given) == 8:
            raise Killed  # as a kill: in the midst of the second page
        return told

    monkeypatch.setattr(AsyncRun, "tell", dies)
    with pytest.raises(Killed):
        await client.begin_batch(planned)
    broken = await client.get_batch(planned.id)
    assert (broken.status, broken.outcomes) == ("running", {"done": 5})
    monkeypatch.setattr(AsyncRun, "tell", real)
    done = await client.resume_batch(planned.id)
    assert (done.status, done.outcomes) == ("finished", {"done": 12})
    assert [await signals(run) for run in runs] == [1] * 12
    with pytest.raises(BadInput, match="is finished already"):
        await client.resume_batch(planned.id)


@pytest.mark.parametrize("action", ["cancel", "purge"])
async def test_those_that_left_their_status_in_a_page_that_was_broken_off_are_counted(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, action: Any
) -> None:
    monkeypatch.setattr("perdure.cluster.batches._PAGE", 5)
    tenant, runs = await waiting(client, 12)
    if action == "purge":
        await client.batch("terminate", where={"tenant": tenant}, rate=1000)
    planned = await client.batch(action, where={"tenant": tenant}, rate=1000, dry_run=True)
    real, given = Batches._one, list[str]()

    async def dies(batches: Batches, batch: Batch, execution: str) -> tuple[str, str]:
        told = await real(batches, batch, execution)
        given.append(execution)
        if len(given) == 8:
            raise Killed
        return told

    monkeypatch.setattr(Batches, "_one", dies)
    with pytest.raises(Killed):
        await client.begin_batch(planned)
    monkeypatch.setattr(Batches, "_one", real)
    if action == "cancel":
        while (await client.count(where={"tenant": tenant})).get("cancelled", 0) < 8:
            await asyncio.sleep(0)
    assert (await client.get_batch(planned.id)).outcomes == {"done": 5}
    done = await client.resume_batch(planned.id)
    assert (done.status, done.outcomes, done.doing) == ("finished", {"done": 12}, [])
    if action == "cancel":
        assert [await signals(run) for run in runs] == [1] * 12


async def test_a_batch_whose_process_is_killed_goes_on_elsewhere(client: AsyncClient) -> None:
    tenant, runs = await waiting(client, 25)
    hears, says = _forks.Pipe(duplex=False)
    process = _forks.Process(target=signal_all, args=(client._settings, tenant, says))

    def kill() -> None:
        process.start()
        says.close()
        for _ in range(14):  # in the midst of the second page
            assert hears.poll(30), "nothing was done"
            pid = hears.recv()
        os.kill(pid, signal.SIGKILL)
        process.join(10)

    await asyncio.to_thread(kill)
    assert process.exitcode == -signal.SIGKILL
    broken = (await client.batches())[0]
    assert broken.status == "running"
    assert 10 <= broken.outcomes["done"] < 25
    assert (await client.resume_batch(broken.id)).outcomes == {"done": 25}
    assert [await signals(run) for run in runs] == [1] * 25
    hears.close()


async def test_a_batch_can_be_stopped_and_taken_over(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.cluster.batches._PAGE", 2)
    tenant, runs = await waiting(client, 6)
    planned = await client.batch("signal", signal="go", where={"tenant": tenant}, rate=1000, dry_run=True)
    real, stopping = Batches._page, list[Batch]()

    async def page(batches: Batches, batch: Batch, executions: list[str], pace: Any) -> list[tuple[str, str]]:
        if batch.outcomes and not stopping:
            stopping.append(await client.stop_batch(batch.id))
        return await real(batches, batch, executions, pace)

    monkeypatch.setattr(Batches, "_page", page)
    with pytest.raises(TakenOver, match=f"batch {planned.id} was stopped"):
        await client.begin_batch(planned)
    assert sum([await signals(run) for run in runs]) == 4
    assert (await client.resume_batch(planned.id)).outcomes == {"done": 6}
    assert [await signals(run) for run in runs] == [1] * 6


async def test_failed_ones_are_retried_and_ended_ones_purged(client: AsyncClient) -> None:
    tenant = uuid4().hex[:8]
    flow = {**WAITS, "nodes": {"a": {"fail": {"type": "Boom", "message": "x"}}}}
    runs = await client.start_many(flow, [{"tenant": tenant}] * 3)
    for run in runs:
        with pytest.raises(perdure.ExecutionFailed):
            await run.result(10)
    retried = await client.batch("retry", where={"tenant": tenant}, rate=1000)
    assert retried.outcomes == {"done": 3}
    while (await client.count(where={"tenant": tenant})) != {"failed": 3}:
        await asyncio.sleep(0)
    assert (await client.batch("purge", where={"tenant": tenant}, rate=1000)).outcomes == {"done": 3}
    assert await client.count(where={"tenant": tenant}) == {}
    assert len(await runs[0].history()) == 1


async def test_a_batch_keeps_its_pace(client: AsyncClient) -> None:
    tenant, _ = await waiting(client, 5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await client.batch("signal", signal="x", where={"tenant": tenant}, rate=20)).outcomes == {"done": 5}
    assert loop.time() - began >= 4 / 20


@pytest.mark.parametrize(
    ("action", "given", "why"),
    [
        ("cancel", {}, "this would be all executions; say which"),
        ("explode", {"workflow": "x"}, "a batch cannot 'explode'; it can cancel"),
        ("cancel", {"workflow": "x", "rate": 0}, "rate 0"),
        ("signal", {"workflow": "x"}, "a signal has a name"),
        ("cancel", {"workflow": "x", "limit": 3}, "cannot be asked for by 'limit'"),
        ("cancel", {"status": "done"}, "status 'done': it is one of"),
        ("cancel", {"workflow": "x", "rate": float("inf")}, "rate inf"),
        ("cancel", {"workflow": "x", "rate": "5"}, "rate '5'"),
        ("cancel", {"workflow": "x", "reason": 5}, "reason 5: it is text"),
        ("cancel", {"where": {"a": object()}}, "where cannot be recorded"),
        ("signal", {"workflow": "x", "signal": "go", "data": float("nan")}, "data cannot be recorded: it has NaN"),
        ("signal", {"workflow": "x", "signal": "go", "data": "x" * 600_000}, "data has 600002 bytes"),
    ],
)
async def test_a_batch_that_makes_no_sense_is_refused(
    client: AsyncClient, action: Any, given: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        await client.batch(action, **given)
    assert all(
        each.action in ACTIONS for each in await client.batches()
    )  # and leaves nothing behind that cannot be read


async def test_more_than_a_page_of_executions_is_gone_through(client: AsyncClient) -> None:
    log, workflow = client._connection.log, uuid4().hex[:8]
    for number in range(250):
        await append(log, f"{workflow}-{number}", start(workflow), ExecutionFailed(Error("Boom", "x"), None, 1))
    told: list[Batch] = []
    done = await client.batch("purge", workflow=workflow, rate=10_000, told=told.append)
    assert done.outcomes == {"done": 250}
    assert [sum(each.outcomes.values()) for each in told] == [100, 200, 250]

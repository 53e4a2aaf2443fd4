"""One execution of many steps: written, read, folded from all its entries and from a snapshot, and gone on with."""

import asyncio
import os
import signal
import time
from pathlib import Path
from statistics import median

from benchmarks.crash import host_pid
from benchmarks.measuring import standing_by
from benchmarks.meter import Meter
from benchmarks.run import Run, start
from benchmarks.workloads import LIMIT, warm
from perdure.actors.loading import load
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.cluster.status import host_states
from perdure.events.vocabulary import NodeWaiting

_LOADS = 5


def definition(run: Run) -> Path:
    """Return the definition of many steps one after the other, and a wait for a signal behind them."""
    steps = {"foreach": {"items": "input", "as": "n", "max_parallel": 1}, **run.noop([])}
    return run.definition("history", {"steps": steps, "wait": {"wait": {"signal": "go"}, "needs": ["steps"]}}, output=1)


async def history(run: Run) -> None:
    """Measure writing, reading and folding; then a new host goes on with it after a signal (`replay_s`)."""
    with Meter() as meter:
        async with run.client() as client:
            await warm(run, client)
            began = time.perf_counter()
            execution = await start(client, definition(run), list(range(run.n)))
            await _until_it_waits(execution)
            run.figures["write_steps_s"] = run.n / (time.perf_counter() - began)
            began = time.perf_counter()
            run.figures["rows"] = len(await execution.history())
            run.figures["read_s"] = time.perf_counter() - began
            await _fold(run, client, execution)
            if run.mode == "ray":
                await _replaced(client)
        async with run.client() as client:  # in local mode a host that is new
            began = time.perf_counter()
            execution = client.get(execution.id)
            await execution.signal("go", 1)
            await execution.result(LIMIT)
            run.figures["replay_s"] = time.perf_counter() - began
    run.figures.update(meter.figures())


async def _until_it_waits(execution: AsyncRun) -> None:
    async for happened in execution.events():
        if isinstance(happened.event, NodeWaiting):
            return
    raise AssertionError("the execution ended without waiting")


async def _fold(run: Run, client: AsyncClient, execution: AsyncRun) -> None:
    """Fold it from all its entries, and from its snapshot, as a host does that takes it over."""
    connection = client._connection
    whole, from_snapshot, folded_entries = [], [], 0
    for _ in range(_LOADS):
        began = time.perf_counter()
        all_of_it, read = await load(connection.log, None, execution.id)
        whole.append(time.perf_counter() - began)
        began = time.perf_counter()
        saved, folded_entries = await load(connection.log, connection.snapshots, execution.id)
        from_snapshot.append(time.perf_counter() - began)
    if all_of_it.state != saved.state or read != run.figures["rows"]:
        raise AssertionError("the snapshot is of another state than the log")
    if folded_entries == read:
        raise AssertionError(f"there is no snapshot of {read} entries; there is one from some hundreds on")
    run.figures.update(fold_s=median(whole), fold_snapshot_s=median(from_snapshot), snapshot_tail=folded_entries)


async def _replaced(client: AsyncClient) -> None:
    """Kill the host, and return when another process serves in its place."""
    await standing_by(client)
    killed = await host_pid(client)
    os.kill(killed, signal.SIGKILL)
    while (await host_states(client._connection))[0].get("pid") in (None, killed):  # noqa: ASYNC110
        await asyncio.sleep(0.02)

"""The workloads that all peers run alike: after one warm-up of five steps, metered as a whole."""

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.cold import cold
from benchmarks.meter import Meter
from benchmarks.run import Run, milliseconds, outputs, start
from perdure.cluster.client import AsyncClient
from perdure.events.jetstream_log import STREAM
from perdure.events.vocabulary import NodeWaiting

LIMIT = 200.0  # seconds for a result


async def warm(run: Run, client: AsyncClient) -> None:
    """Run five steps that do not count."""
    await (await start(client, run.chain(5))).result(LIMIT)


async def start_latency(run: Run) -> None:
    """Measure cold starts, and one workflow of one step after the other."""
    run.figures["cold_s"] = await asyncio.to_thread(cold, run)
    async with run.client() as client:
        await warm(run, client)
        one, took = run.chain(1), []
        with Meter() as meter:
            for _ in range(run.n):
                began = time.perf_counter()
                await (await start(client, one)).result(LIMIT)
                took.append(time.perf_counter() - began)
        run.figures.update(**milliseconds(took), **meter.figures(run.n))


async def one_of_many(run: Run, definition: Path) -> list[float]:
    """Measure one execution; its definition is loaded before, as peers import their code. Return when steps ran."""
    async with run.client() as client:
        await warm(run, client)
        await client.definition_of(definition)
        with Meter() as meter:
            execution = await start(client, definition)
            await execution.result(LIMIT)
        ran = sorted(each for each in await outputs(execution) if isinstance(each, float))
        if len(ran) != run.n:
            raise AssertionError(f"{run.n} steps were to run, and {len(ran)} have succeeded")
        run.figures.update(meter.figures(run.n))
        return ran


async def chain(run: Run) -> None:
    """Measure steps one after the other: from one step's body to the next one's."""
    ran = await one_of_many(run, run.chain(run.n))
    run.figures.update(milliseconds([after - before for before, after in pairwise(ran)]))


async def fanout(run: Run) -> None:
    """Measure parallel steps, and a join behind them."""
    await one_of_many(run, run.fan(run.n))


async def throughput(run: Run) -> None:
    """Measure many executions of five steps, all begun at once, by what a client has for that."""
    async with run.client() as client:
        await warm(run, client)
        five = run.chain(5)
        with Meter() as meter:
            executions = await client.start_many(five, [None] * run.n)
            await asyncio.gather(*(each.result(LIMIT) for each in executions))
        run.figures.update(meter.figures(run.n), steps_s=5 * run.n / meter.wall)


async def waiting(run: Run) -> None:
    """Measure executions that wait for a signal: the memory of each, and how fast all go on."""
    definition = run.definition("waiting", {"a": {"wait": {"signal": "go"}}})
    async with run.client() as client:
        await warm(run, client)
        before = await _on_the_log(client)
        with Meter() as meter:
            idle = await asyncio.to_thread(meter.pss)
            executions = await client.start_many(definition, [None] * run.n)
            while await _on_the_log(client) < before + run.n:  # noqa: ASYNC110 (as peers are asked)
                await asyncio.sleep(0.05)
            all_waiting = time.perf_counter() - meter.began
            await asyncio.sleep(1)
            grown, began = await asyncio.to_thread(meter.pss) - idle, time.perf_counter()
            await asyncio.gather(*(each.signal("go", 1) for each in executions))
            ends = await asyncio.gather(*(each.result(LIMIT) for each in executions))
            signalled = time.perf_counter() - began
        if ends != [{"a": 1}] * run.n:
            raise AssertionError("not every execution ended with its signal")
        first = (await executions[0].history())[0].entry.events
        if not any(isinstance(event, NodeWaiting) for event in first):
            raise AssertionError(f"an execution's first entry does not say that it waits: {first}")
        run.figures.update(meter.figures(run.n), all_waiting_s=all_waiting, signal_all_done_s=signalled)
        run.figures["kb_per_wf"] = grown / 1024 / run.n


async def _on_the_log(client: AsyncClient) -> int:
    """Return how many executions have an entry; their first one says that they wait."""
    answer = await client._connection.nats.request(f"$JS.API.STREAM.INFO.{STREAM}", timeout=10)
    return int(json.loads(answer.data)["state"]["num_subjects"])

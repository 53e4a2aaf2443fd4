"""Pending timers: what they cost while nobody holds them, and how late they are: `python timers.py [--pending N]`."""

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measuring import disk, host_process, pss, quantiles, row, server_pid
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.status import host_states
from perdure.events.vocabulary import TimerArmed, TimerFired

PENDING = {"name": "pending", "nodes": {"a": {"wait": "7d"}}}
UNTIL = {"name": "until", "nodes": {"a": {"wait": {"until": "${{ input }}"}}}}
AHEAD = 45.0  # seconds; more than near_timer, so that these timers too are left to the inbox


async def lateness(client: AsyncClient, after: int, count: int) -> list[float]:
    """Return by how many seconds the timers behind a log position fired late, once so many have."""
    due: dict[str, datetime] = {}
    late: list[float] = []
    async for recorded in client._connection.log.follow(None, after):
        for happened in recorded.unpack():
            match happened.event:
                case TimerArmed(timer=_, due=at):
                    due[happened.execution] = at
                case TimerFired():
                    late.append((happened.at - due[happened.execution]).total_seconds())
        if len(late) == count:
            return late
    raise AssertionError("a log that is followed does not end")


async def at_rest(client: AsyncClient, timers: int) -> None:
    """Return when so many timers are in the inbox, and no execution is at hand."""
    from perdure.cluster.status import _inbox

    while True:
        (host,), inbox = await host_states(client._connection), await _inbox(client._connection)
        if not host.get("active", 1) and not inbox["starts"] and inbox["timers"] >= timers:
            return
        await asyncio.sleep(0.5)


async def pending(store: Path, client: AsyncClient, host: int, count: int) -> None:
    await client.start_many(PENDING, [None] * 100)
    await at_rest(client, 100)
    processes = {"host": host, "nats-server": server_pid(store)}
    before, on_disk = {name: pss(pid) for name, pid in processes.items()}, disk(store)
    began = time.monotonic()
    for _ in range(count // 10_000):
        await client.start_many(PENDING, [None] * 10_000)
    await at_rest(client, count)
    print(f"{count} pending timers, one for each execution, armed at {count / (time.monotonic() - began):.0f}/s")
    for name, pid in processes.items():
        grown = pss(pid) - before[name]
        print(row(f"  PSS of {name}: {pss(pid) / 1e6:.0f} MB, added per timer", [grown / count], "bytes"))
    print(row("  disk added per execution with its timer", [(disk(store) - on_disk) / count], "bytes"))


async def late(client: AsyncClient, name: str, moments: list[datetime], repeat: int) -> None:
    found: list[tuple[float, float, float]] = []
    for _ in range(repeat):
        shift = datetime.now(UTC) + timedelta(seconds=AHEAD) - moments[0]
        after = await client._connection.log.last()
        counting = asyncio.create_task(lateness(client, after, len(moments)))
        await client.start_many(UNTIL, [(moment + shift).isoformat() for moment in moments])
        found.append(quantiles(await counting))
    for number, what in enumerate(("p50", "p99", "max")):
        print(row(f"{name}: {what} late", [values[number] for values in found], "s"))


async def measure(store: Path, host: int, arguments: argparse.Namespace) -> None:
    zero, count = datetime.fromtimestamp(0, UTC), arguments.due
    spread: list[Any] = [zero + timedelta(seconds=20.0 * number / count) for number in range(count)]
    async with await AsyncClient.open(Settings(store=store), "none") as client:
        await late(client, f"{count} timers due over 20 s", spread, arguments.repeat)
        await late(client, f"{count} timers due at one instant", [zero] * count, arguments.repeat)
        await pending(store, client, host, arguments.pending)
        await late(client, f"the same beside {arguments.pending} that are pending", [zero] * count, arguments.repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int, default=100_000)
    parser.add_argument("--due", type=int, default=5_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, host_process(store := Path(name)) as host:
        asyncio.run(measure(store, host, arguments))


if __name__ == "__main__":
    main()

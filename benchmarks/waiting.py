"""10,000 executions that wait for a signal, then the signal for all, on a cluster: `python waiting.py STORE [COUNT]`.

Says what the whole system's memory and disk grew by for each, and how many end in a second.
"""

import asyncio
import sys
import time
from pathlib import Path

import perdure
from perdure import Settings
from perdure.actors.inputs import SignalExecution
from perdure.cluster.client import AsyncClient
from perdure.cluster.inbox import lane_of
from perdure.cluster.status import host_states

WORKFLOW = {"name": "waits", "nodes": {"a": {"wait": {"signal": "go"}}}}


def memory(store: Path) -> dict[str, int]:
    """Return the PSS in bytes of the server, and of Ray's and perdure's processes, but not of this one."""
    found: dict[str, int] = {"nats-server": 0, "hosts": 0, "supervisor": 0}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        pss = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        if "nats-server" in words and str(store) in words:
            found["nats-server"] += pss
        elif "ray::HostActor" in words:
            found["hosts"] += pss
        elif "ray::SupervisorActor" in words:
            found["supervisor"] += pss
    return found


def disk(store: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in (store / "jetstream").rglob("*") if file.is_file())


async def settled(client: AsyncClient) -> None:
    """Return when no execution is active any more."""
    while True:
        if not any(host.get("active") for host in await host_states(client._connection)):
            return
        await asyncio.sleep(0.1)


async def measure(store: Path, count: int) -> None:
    async with await perdure.connect_async(Settings(store=store)) as client:
        before, disk_before = memory(store), disk(store)
        began = time.monotonic()
        runs = await client.start_many(WORKFLOW, [None] * count)
        started = time.monotonic() - began
        last = await client._connection.log.last()
        await asyncio.gather(*(run.begun(within=600) for run in runs[-100:]))
        await settled(client)
        waiting = time.monotonic() - began
        after, disk_after = memory(store), disk(store)
        grown = {name: round((after[name] - before[name]) / count) for name in after}
        print(f"{count} queued in {started:.1f} s, all waiting and left after {waiting:.1f} s; log at {last}")
        print(f"memory each: {grown}, in all {sum(grown.values())}; disk {(disk_after - disk_before) // count} bytes")
        began = time.monotonic()
        window = asyncio.Semaphore(256)

        async def tell(execution: str) -> None:
            async with window:
                await client._connection.inbox.send(
                    SignalExecution(f"{execution}/go", execution, "go"), lane_of(execution)
                )

        await asyncio.gather(*(tell(run.id) for run in runs))
        told = time.monotonic() - began
        for run in runs:
            await run.result(600)
        ended = time.monotonic() - began
        print(f"told in {told:.1f} s, all ended after {ended:.1f} s: {count / ended:.0f} a second")


if __name__ == "__main__":
    asyncio.run(measure(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000))

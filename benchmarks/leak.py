"""Memory of a host after 10,000 and after 50,000 executions, in a process of its own."""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import host_process, pss, server_pid
from benchmarks.waiting import at_rest
from perdure import Settings
from perdure.cluster.client import AsyncClient

STEPS = {
    "name": "steps",
    "nodes": {f"n{step}": {"set": step, "needs": [f"n{step - 1}"] * (step > 0)} for step in range(3)},
}
WAVE = 1000


async def measure(store: Path, host: int, count: int) -> tuple[int, int]:
    """Run so many executions and return what the host takes after a fifth of them, and in the end, in bytes."""
    taken = {0: pss(host)}
    began = time.monotonic()
    async with await AsyncClient.open(Settings(store=store), "none") as client:
        for done in range(WAVE, count + 1, WAVE):
            runs = await client.start_many(STEPS, [None] * WAVE)
            await runs[-1].result(120)
            await at_rest(client)
            taken[done] = pss(host)
            if done in (WAVE, 2 * WAVE) or done % (count // 5) == 0:
                server = pss(server_pid(store)) / 1e6
                rate = done / (time.monotonic() - began)
                host_mb = taken[done] / 1e6
                print(f"after {done:6} executions: host {host_mb:6.1f} MB, nats-server {server:6.1f} MB, {rate:.0f}/s")
    return taken[count // 5], taken[count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=50_000)
    count = parser.parse_args().executions
    with tempfile.TemporaryDirectory() as name, host_process(store := Path(name)) as host:
        early, late = asyncio.run(measure(store, host, count))
    print(f"growth of the host from {count // 5} to {count} executions: {100 * (late / early - 1):.1f} %")


if __name__ == "__main__":
    main()

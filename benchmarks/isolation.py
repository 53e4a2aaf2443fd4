"""What `isolation: process` costs beside the default, on `perdure up`: time and memory of each execution."""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import cluster, processes, pss, row, standing_by
from perdure import Settings
from perdure.cluster.client import AsyncClient

ONE = {"name": "one", "nodes": {"a": {"set": 1}}}
HOLD = {"name": "hold", "nodes": {"a": {"tool": "asyncio:sleep", "with": {"delay": 8, "result": 1}}}}


async def measure(store: Path, count: int) -> dict[str, float]:
    async with await AsyncClient.open(Settings(store=store), "none") as client:
        await (await client.start(ONE)).result(60)
        await standing_by(client)
        alone = []
        for _ in range(5):
            began = time.monotonic()
            await (await client.start(ONE)).result(60)
            alone.append(time.monotonic() - began)
        began = time.monotonic()
        await asyncio.gather(*(run.result(120) for run in await client.start_many(ONE, [None] * count)))
        rate = count / (time.monotonic() - began)
        before = pss(*processes(store))
        runs = await client.start_many(HOLD, [None] * 4)
        await asyncio.gather(*(run.begun(within=60) for run in runs))
        await asyncio.sleep(3)  # until all four processes are at work
        memory = (pss(*processes(store)) - before) / 4
        await asyncio.gather(*(run.result(120) for run in runs))
        return {"alone": sorted(alone)[2], "rate": rate, "memory": memory / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    for isolation in ("shared", "process"):
        found = []
        for _ in range(arguments.repeat):
            with (
                tempfile.TemporaryDirectory() as name,
                cluster(store := Path(name), isolation),
            ):
                found.append(asyncio.run(measure(store, arguments.executions)))
        print(row(f"{isolation}: one execution of one `set`, start to result", [each["alone"] for each in found], "s"))
        print(row(f"{isolation}: {arguments.executions} at once", [each["rate"] for each in found], "executions/s"))
        print(row(f"{isolation}: PSS added per active execution", [each["memory"] for each in found], "MB"))


if __name__ == "__main__":
    main()

"""What the benchmarks share: a host in a process of its own, a cluster, disk, and rows that say the median."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.process_tree import pss as pss
from benchmarks.process_tree import tree
from perdure.cluster.client import AsyncClient
from perdure.cluster.hosting import SUPERVISOR
from perdure.cluster.status import answer_of

_HOST = """\
import sys, perdure
from pathlib import Path
from perdure import Settings
with perdure.connect(Settings(store=Path(sys.argv[1]), hosts=1), local=True):
    print("serves", flush=True)
    sys.stdin.read()
"""


@contextmanager
def host_process(store: Path) -> Iterator[int]:
    """Serve a store in a process of its own, one host without Ray, and yield its process id."""
    command = [sys.executable, "-c", _HOST, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdin is not None
        assert host.stdout.readline() == b"serves\n"
        try:
            yield host.pid
        finally:
            host.stdin.close()
            host.wait(30)


def as_installed(folder: Path) -> dict[str, str]:
    """Return an environment in which bytecode is kept, in a folder, as it is of an installed package."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def server_pid(store: Path) -> int:
    """Return the process of the store's embedded nats-server."""
    return int(json.loads((store / "server.json").read_text())["pid"])


def disk(store: Path) -> int:
    """Return the bytes that a store takes on disk."""
    blocks = (os.lstat(Path(folder) / name).st_blocks for folder, _, names in os.walk(store) for name in names)
    return 512 * sum(blocks)


def row(name: str, values: Sequence[float], unit: str) -> str:
    """Return one line: the median, and between what the values are."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{name:62} {middle:10.2f} {unit:12} ({low:.2f} to {high:.2f}, {len(values)} runs)"


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, 99th percentile and maximum."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], ordered[-1]


@contextmanager
def cluster(store: Path, isolation: str = "shared") -> Iterator[None]:
    """Have `perdure up` serve a store with one host, on a Ray of its own."""
    command = [sys.executable, "-m", "perdure.cli"]
    environment = {**os.environ, "PERDURE_STORE": str(store), "PERDURE_ISOLATION": isolation}
    up = [*command, "up", "--detach", "--hosts", "1"]
    done = subprocess.run(up, env=environment, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"perdure up failed: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run([*command, "down"], env=environment, check=True, stderr=subprocess.DEVNULL)


def processes(store: Path) -> list[int]:
    """Return all processes of a store's cluster: those of `perdure up` and of its Ray, and the server."""
    roots = {int(json.loads((store / "up.json").read_text())["pid"]), server_pid(store)}
    return sorted({each.pid for root in roots for each in tree(root)})


async def standing_by(client: AsyncClient) -> None:
    """Return when a process stands by."""
    while not (await answer_of(client._connection.nats, SUPERVISOR) or {}).get("standing_by"):  # noqa: ASYNC110
        await asyncio.sleep(0.2)

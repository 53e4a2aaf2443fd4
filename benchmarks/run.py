"""One run of a workload: its folder, its cluster, its client, the definitions that it starts."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.measuring import cluster
from perdure import Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.events.vocabulary import NodeSucceeded

TOOLS = str(Path(__file__).parent / "tools.py")
Mode = Literal["ray", "local"]
RunOn = Literal["loop", "actor"]


@dataclass
class Run:
    """What is run and where. folder: its own, for all that it writes. figures: what it found."""

    workload: str
    mode: Mode
    run_on: RunOn
    n: int
    folder: Path
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        return self.mode if self.run_on == "loop" else f"{self.mode}-{self.run_on}"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def settings(self) -> Settings:
        """The defaults, with one host, as each peer has one worker."""
        return Settings(store=self.store, hosts=1)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Have `perdure up` serve the store, in Ray mode; in local mode there is nothing to bring up."""
        if self.mode == "local":
            yield
            return
        began = time.perf_counter()
        with cluster(self.store):
            self.figures["server_up_s"] = time.perf_counter() - began
            yield

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """Open a client: of the cluster that is up, or with the server and a host in this process."""
        began = time.perf_counter()
        async with await AsyncClient.open(self.settings, "local" if self.mode == "local" else "none") as client:
            self.figures.setdefault("server_up_s", time.perf_counter() - began)
            yield client

    def definition(self, name: str, nodes: dict[str, Any], **more: Any) -> Path:
        """Write a definition and return its file: drivers load those that do not change once."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({"name": name, "tools": [TOOLS], "nodes": nodes, **more}))
        return file

    def chain(self, steps: int) -> Path:
        """Return the definition of so many no-op steps, one after the other."""
        return self.definition(f"chain-{steps}", {f"n{i}": self.noop([f"n{i - 1}"] if i else []) for i in range(steps)})

    def fan(self, steps: int) -> Path:
        """Return the definition of so many parallel no-op steps, and a join behind them."""
        nodes = {f"n{i}": self.noop([]) for i in range(steps)}
        return self.definition("fanout", {**nodes, "join": {"set": steps, "needs": list(nodes)}})

    def noop(self, needs: list[str]) -> dict[str, Any]:
        """Return a no-op step behind some others."""
        node: dict[str, Any] = {"tool": "noop", "needs": needs}
        return node if self.run_on == "loop" else {**node, "run_on": "actor"}

    def durability(self) -> str:
        """Return when the server that has run syncs to disk, from its own configuration."""
        settings = (self.store / "server.conf").read_text()
        if 'sync_interval: "always"' not in settings:
            raise AssertionError(f"every figure is to be with fsync always, but the server was given {settings}")
        return "fsync always"


async def start(client: AsyncClient, definition: Path, input: Any = None) -> AsyncRun:  # noqa: A002 (as the client's)
    """Start an execution, and return as soon as its start is stored for good, as peers do."""
    return await client.start(definition, input, confirm=False)


async def outputs(run: AsyncRun) -> list[Any]:
    """Return the recorded results of all steps that have succeeded."""
    return [each.event.output async for each in run.events() if isinstance(each.event, NodeSucceeded)]


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    ordered = sorted(seconds)
    return {
        "p50_ms": (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) * 500,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    }

"""Meters this process and all below it: wall time, CPU, and memory as RSS and PSS, sampled by a process of its own."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.process_tree import pss, tree

_SAMPLE_SECONDS = 0.2
_PSS_SECONDS = 1.0  # PSS is dear to read


class Meter:
    """`with Meter() as meter: ...`, then `meter.figures()`. apart: processes that do not count, nor what is below."""

    def __init__(self, apart: Sequence[int] = ()) -> None:
        command = [sys.executable, "-S", "-m", "benchmarks.meter", str(os.getpid()), *map(str, apart)]
        root = Path(__file__).parent.parent
        self._sampler = subprocess.Popen(
            command, cwd=root, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.wall = self.began = 0.0
        self._ask()

    def _ask(self, how: str = "") -> dict[str, Any]:
        assert self._sampler.stdin is not None
        assert self._sampler.stdout is not None
        self._sampler.stdin.write(how + "\n")
        told: dict[str, Any] = json.loads(self._sampler.stdout.readline())
        return told

    def pss(self) -> int:
        """Return what all processes take now, in bytes; pages that they share count once."""
        return int(self._ask()["pss"])

    def __enter__(self) -> Self:
        self._before, self.began = self._ask("reset"), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall = time.perf_counter() - self.began
        self._after = self._ask()
        self._sampler.communicate(timeout=10)

    def figures(self, ops: int | None = None) -> dict[str, float]:
        """Return what was metered; with how many operations there were, those of a second too."""
        after = self._after
        figures = {
            "wall_s": self.wall,
            "cpu_s": after["cpu"] - self._before["cpu"],
            "peak_rss_mb": after["peak"] / 2**20,
            "peak_pss_mb": after["peak_pss"] / 2**20,
            "procs": after["procs"],
        }
        return {**figures, "ops_s": ops / self.wall} if ops else figures


def sample(root: int, apart: Sequence[int]) -> None:
    """Sample five times a second, PSS once; answer each line on stdin with the totals so far.

    What has ended meanwhile counts with what it had used when it was last seen.
    """
    cpu: dict[int, float] = {}
    peak = peak_pss = due = 0.0
    while True:
        asked = bool(select.select([sys.stdin], [], [], _SAMPLE_SECONDS)[0])
        line = sys.stdin.readline() if asked else ""
        if asked and not line:
            return
        now = tree(root, {os.getpid(), *apart})
        cpu.update((each.pid, each.cpu) for each in now)
        peak = max(peak, sum(each.rss for each in now))
        if asked or time.monotonic() > due:
            shared, due = pss(*(each.pid for each in now)), time.monotonic() + _PSS_SECONDS
            peak_pss = max(peak_pss, shared)
        if asked:
            alive = sum(each.state != "Z" for each in now)
            told = {"cpu": sum(cpu.values()), "peak": peak, "pss": shared, "peak_pss": peak_pss, "procs": alive}
            print(json.dumps(told), flush=True)
        if line.strip() == "reset":
            peak = peak_pss = 0.0


if __name__ == "__main__":
    sample(int(sys.argv[1]), [int(pid) for pid in sys.argv[2:]])

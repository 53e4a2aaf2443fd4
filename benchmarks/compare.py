"""A table, in Markdown, of perdure's rows and its peers' from lines of JSON: `python -m benchmarks.compare FILE...`."""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
OURS = "perdure"
CHECKPOINTS = ("langgraph",)
HEAD = ("workload", "unit", "perdure, Ray", "perdure, local", "best peer", "ahead by", "the next peers")


@dataclass(frozen=True)
class Figure:
    """One line of the table. more: more of it is better."""

    workload: str
    what: str
    unit: str
    of: Callable[[Row], float | None]
    of_peers: Callable[[Row], float | None] | None = None
    more: bool = False

    def value(self, row: Row) -> float | None:
        of = self.of if row["peer"] == OURS else self.of_peers or self.of
        return of(row)


def field(name: str, per: Callable[[Row], float] = lambda _: 1.0) -> Callable[[Row], float | None]:
    return lambda row: row[name] / per(row) if name in row else None


def replayed(from_checkpoint: bool) -> Callable[[Row], float | None]:
    """Return how long a peer takes to be where it was: those that keep checkpoints load the last one."""
    return lambda row: row.get("replay_s") if (row["peer"] in CHECKPOINTS) == from_checkpoint else None


FIGURES = (
    Figure("start", "one step, submit to result, median", "ms", field("p50_ms")),
    Figure("start", "cold: from a new process to its first result", "s", field("cold_s")),
    Figure("chain", "100 steps, one after the other", "steps/s", field("ops_s"), more=True),
    Figure("fanout", "200 steps at once, and a join", "steps/s", field("ops_s"), more=True),
    Figure("throughput", "executions of 5 steps, all at once", "executions/s", field("ops_s"), more=True),
    Figure("throughput", "CPU of the whole system for each", "ms", field("cpu_s", lambda row: row["n"] / 1e3)),
    Figure("waiting", "memory of each that waits, whole system", "kB", field("kb_per_wf")),
    Figure("waiting", "from signalling all to all done", "s", field("signal_all_done_s", lambda row: row["n"] / 2000)),
    Figure("crash", "from the kill (or restart) to all 200 done", "s", field("recover_s")),
    Figure("history", "10,000 steps, from all entries (peers: replayed)", "s", field("fold_s"), replayed(False)),
    Figure("history", "10,000 steps, from a snapshot (a checkpoint)", "s", field("fold_snapshot_s"), replayed(True)),
)


def medians(rows: Iterable[Row], figure: Figure) -> dict[str, float]:
    """Return the median of a figure by peer and variant."""
    found = defaultdict[str, list[float]](list)
    for row in rows:
        if row["workload"] == figure.workload and (value := figure.value(row)) is not None:
            found[f"{row['peer']} {row['variant']}"].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def line(rows: Iterable[Row], figure: Figure) -> str:
    found = medians(rows, figure)
    ours = {name.removeprefix(f"{OURS} "): found.pop(name) for name in list(found) if name.startswith(f"{OURS} ")}
    peers = sorted(found.items(), key=lambda item: -item[1] if figure.more else item[1])
    ratio = ""
    if peers and "ray" in ours:
        best, mine = peers[0][1], ours["ray"]
        ratio = f"{mine / best if figure.more else best / mine:.2g}x" if mine > 0 else "none taken"
    cells = [
        f"`{figure.workload}`: {figure.what}", figure.unit, shown(ours.get("ray")), shown(ours.get("local")),
        f"{shown(peers[0][1])} ({peers[0][0]})" if peers else "", ratio,
        ", ".join(f"{name} {shown(value)}" for name, value in peers[1:5]),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def durability(rows: Iterable[Row]) -> Iterable[str]:
    """Yield a line for each system: what it was told to keep through a loss of power, and its version."""
    for name, said in sorted(
        {(f"{row['peer']} {row['variant']}", f"{row['durability']} | {row['version']}") for row in rows}
    ):
        yield f"| {name} | {said} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="lines of `python -m benchmarks --json`, and the peers'")
    rows = [json.loads(each) for file in parser.parse_args().files for each in file.read_text().splitlines() if each]
    if not any(row["peer"] == OURS for row in rows):
        sys.exit("none of these lines is perdure's; make them with: python -m benchmarks --json")
    print(f"| {' | '.join(HEAD)} |")
    print("|---" * len(HEAD) + "|")
    print("\n".join(line(rows, figure) for figure in FIGURES))
    print("\n| system | durability | versions |\n|---|---|---|")
    print("\n".join(durability(rows)))


if __name__ == "__main__":
    main()

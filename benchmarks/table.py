"""Rows as a table for people: the median of each figure, and in brackets the least and the greatest."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

FIGURES = {
    "cold_s": "s from a new process to the first result",
    "server_up_s": "s until server and host were up",
    "p50_ms": "ms, median",
    "p99_ms": "ms, 99th percentile",
    "ideal_ms": "ms that the endpoint alone takes",
    "endpoint_cpu_s": "s of CPU of the endpoint, beside the others",
    "ops_s": "operations in a second",
    "steps_s": "steps in a second",
    "all_waiting_s": "s until all wait",
    "kb_per_wf": "kB of memory (PSS of all processes) for each",
    "signal_all_done_s": "s from the first signal until all are done",
    "before_kill_s": "s until half of the effects were there, and the kill",
    "progress_s": "s from the kill to the next step",
    "recover_s": "s from the kill until all are done",
    "done_at_kill": "effects at the kill",
    "lost": "effects lost",
    "effects_twice": "effects twice",
    "began_twice": "steps that began twice",
    "write_steps_s": "steps written in a second",
    "rows": "entries",
    "read_s": "s to read all entries",
    "fold_s": "s to load and fold all entries",
    "fold_snapshot_s": "s to load from the snapshot",
    "snapshot_tail": "entries folded behind the snapshot",
    "replay_s": "s from a signal to the end, on a new host",
    "wall_s": "s in all",
    "cpu_s": "s of CPU, all processes",
    "peak_pss_mb": "MB of memory at most (PSS)",
    "load": "load of the machine",
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a block for each workload and variant, in the order in which they first ran."""
    blocks = defaultdict(list)
    for row in rows:
        blocks[row["workload"], row["variant"], row["n"]].append(row)
    return "\n\n".join("\n".join(_lines(*key, found)) for key, found in blocks.items())


def _lines(workload: str, variant: str, n: int, rows: Sequence[dict[str, Any]]) -> list[str]:
    runs = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    lines = [f"{workload}  {variant}  n={n}  {runs}, {rows[0]['durability']}"]
    for name, what in FIGURES.items():
        if values := [row[name] for row in rows if name in row]:
            between = f"({_number(min(values))} to {_number(max(values))})" if min(values) < max(values) else ""
            lines.append(f"  {name:18}{_number(statistics.median(values)):>9}  {between:20}{what}")
    return lines


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"

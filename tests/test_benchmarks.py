"""The command that measures perdure's side of the comparison with its peers; no test asserts a time."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EVERY_PEER = {
    "peer", "variant", "workload", "n", "wall_s", "cpu_s", "peak_rss_mb", "peak_pss_mb", "procs", "ops_s", "version",
    "durability", "load", "label",
}  # fmt: skip


def benchmarks(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_is_one_line_of_json_with_the_fields_of_every_peer() -> None:
    done = benchmarks("start", "--mode", "local", "--n", "3", "--repeat", "1", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, done.stdout.splitlines())
    assert set(row) == EVERY_PEER | {"cold_s", "server_up_s", "p50_ms", "p99_ms"}
    named = {name: row[name] for name in ("peer", "variant", "workload", "n", "durability", "label")}
    assert named == {
        "peer": "perdure", "variant": "local", "workload": "start", "n": 3, "durability": "fsync always",
        "label": "rep1",
    }  # fmt: skip
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= 1000 * row["wall_s"]
    assert row["cold_s"] > row["server_up_s"] > 0


def test_a_run_that_fails_says_so_and_the_command_ends_with_an_error() -> None:
    done = benchmarks("chain", "--mode", "local", "--run-on", "loop", "--repeat", "1", "--limit", "0.01")
    assert (done.returncode, done.stdout) == (1, "")
    assert "FAILED chain, local, run_on loop, n=100, rep1: it took longer than 0.01 s" in done.stderr


def test_help_names_the_workloads_and_a_slip_is_told_with_them() -> None:
    told = benchmarks("--help")
    slip = benchmarks("strat")
    for workload in ("start", "chain", "fanout", "throughput", "waiting", "crash", "history", "montage", "agents"):
        assert workload in told.stdout
        assert workload in slip.stderr
    assert (told.returncode, slip.returncode) == (0, 2)
    assert "there is no workload 'strat'" in slip.stderr

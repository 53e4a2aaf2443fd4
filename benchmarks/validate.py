"""`perdure validate` of a large workflow, as a whole process: the median of several runs, in seconds."""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def definition(nodes: int, edges: int) -> str:
    """Return YAML of a DAG: two edges of three are reads, the third is written under `needs`."""
    chance = random.Random(1)
    lines = ["name: large", "nodes:"]
    left = edges
    for number in range(nodes):
        wanted = min(number, round(left / (nodes - number)))
        left -= wanted
        behind = [f"n{other}" for other in chance.sample(range(max(0, number - 200), number), min(wanted, 200))]
        cut = (len(behind) + 2) // 3
        reads = ", ".join(f'{name}: "${{{{ nodes.{name}.output.value }}}}"' for name in behind[cut:])
        lines += [
            f"  n{number}:",
            f"    description: The step of number {number}.",
            f"    tool: work.step_{number % 50}",
            f"    needs: [{', '.join(behind[:cut])}]",
            f"    with: {{{reads}}}",
            "    retry: {attempts: 3, on: [Unavailable]}",
            "    timeout: 30s",
        ]
    return "\n".join([*lines, f'output: "${{{{ nodes.n{nodes - 1}.output }}}}"', ""])


def seconds(file: Path) -> float:
    """Return the wall time of one command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "perdure.cli", "validate", str(file)], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure, after one run that is not counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--edges", type=int, default=6000)
    parser.add_argument("--repeat", type=int, default=5, help="counted runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.yaml"
        text = definition(given.nodes, given.edges)
        file.write_text(text, encoding="utf-8")
        seconds(file)
        runs = [seconds(file) for _ in range(given.repeat)]
    print(f"{given.nodes} nodes, {given.edges} edges, {len(text) / 1000:.0f} kB", end="  ")
    print(f"median {statistics.median(runs):5.2f}  min {min(runs):5.2f}  max {max(runs):5.2f}")


if __name__ == "__main__":
    main()

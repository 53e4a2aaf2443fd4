"""Small nodes in node actors, on a local Ray: how many of one execution are done in a second."""

import argparse
import tempfile
import time
from pathlib import Path

import perdure
from perdure import Client, Settings

TOOLS = """\
from perdure import tool

@tool
def plain(n: int) -> int:
    return n

@tool
async def on_loop(n: int) -> int:
    return n
"""


def workflow(file: Path, tool: str, together: int) -> dict[str, object]:
    """Return a workflow of one small call for each number of its input."""
    items = {"items": "input", "as": "n", "max_parallel": together}
    many = {"foreach": items, "tool": tool, "with": {"n": "${{ n }}"}, "run_on": "actor"}
    return {"name": f"small-{tool}", "tools": [str(file)], "nodes": {"many": many}}


def seconds(client: Client, definition: dict[str, object], count: int) -> float:
    began = time.monotonic()
    client.start(definition, list(range(count))).result(timeout=300)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, perdure.connect(Settings(store=Path(folder) / "store")) as client:
        file = Path(folder) / "small.py"
        file.write_text(TOOLS)
        for tool in ("plain", "on_loop"):
            for together in (16, 1000):
                definition = workflow(file, tool, together)
                seconds(client, definition, arguments.nodes)  # with the start of its actors
                took = sorted(seconds(client, definition, arguments.nodes) for _ in range(arguments.repeat))
                rates = ", ".join(f"{arguments.nodes / each:.0f}" for each in took)
                middle = arguments.nodes / took[len(took) // 2]
                print(f"{tool:<8} {together:>5} at once: {middle:6.0f} nodes/s  ({rates})", flush=True)


if __name__ == "__main__":
    main()

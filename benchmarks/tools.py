"""The tools that the workloads call: they do nothing, and say when."""

import asyncio
import time
from pathlib import Path

from perdure import Context, tool


@tool
async def noop() -> float:
    """Return when it ran, on the clock that all processes of a machine share."""
    return time.perf_counter()


@tool
async def slow(file: str, this: Context) -> None:
    """Note in a file that it began, and its effect 50 ms later."""
    _note(file, f"s {this.execution}/{this.node}")
    await asyncio.sleep(0.05)
    _note(file, f"e {this.execution}/{this.node}")


@tool
async def look(x: int) -> int:
    """Look something up."""
    return x + 1


def _note(file: str, line: str) -> None:
    with Path(file).open("ab", 0) as notes:
        notes.write(f"{line}\n".encode())

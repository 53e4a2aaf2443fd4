"""Tools that note what they were called for, quick ones and one that waits at a gate."""

import asyncio
from typing import Any

from perdure import tool

GATES: dict[str, asyncio.Event] = {}
MADE: list[Any] = []


@tool
async def quick(n: int) -> int:
    """Double a number that is not below zero."""
    MADE.append(n)
    if n < 0:
        raise ValueError(f"{n} is below zero")
    return n * 2


@tool
async def gated(n: int, gate: str = "") -> int:
    """Double a number, once its gate is open."""
    MADE.append(n)
    if gate:
        await GATES.setdefault(gate, asyncio.Event()).wait()
    return n * 2

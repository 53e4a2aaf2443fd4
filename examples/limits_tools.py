"""The tools of limits.yaml."""

import asyncio
from typing import Any

from perdure import tool


@tool
async def fetch(page: str) -> str:
    """Read a page, slowly."""
    await asyncio.sleep(0.2)
    return f"page {page}"


@tool
async def sum_up(text: str) -> dict[str, Any]:
    """Say it shorter, and what that took."""
    return {"text": text.upper(), "tokens": len(text)}

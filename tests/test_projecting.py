"""The process that keeps the read models: it hears of new entries, and need not ask for them."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from histories import append, start

from perdure.cluster import projecting
from perdure.cluster.connection import Connection
from perdure.cluster.projecting import keep_projecting
from perdure.cluster.settings import Settings
from perdure.cluster.tasks import stop
from perdure.projections.runner import Projections


async def test_an_entry_that_comes_while_nothing_else_does_is_folded_at_once(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "_LOOK_ANYWAY", 3600.0)
    settings = Settings(store=tmp_path)
    projections = Projections(settings.projections_at)
    keeping = asyncio.create_task(keep_projecting(connection, settings))
    try:
        await _reached(projections, connection, await connection.log.last())
        for _ in range(3):
            await _reached(projections, connection, await append(connection.log, uuid4().hex, start()))
    finally:
        await stop(keeping)
        projections.close()


async def _reached(projections: Projections, connection: Connection, position: int) -> None:
    async with asyncio.timeout(30):
        while max(position - each["position"] for each in (await projections.lag(connection.log)).values()) > 0:
            await asyncio.sleep(0.02)

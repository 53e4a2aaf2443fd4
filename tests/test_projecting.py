"""The process that keeps the read models: it hears of new entries, need not ask for them, and sweeps by them."""

import asyncio
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from histories import append, start
from proxy import Proxy

from perdure.cluster import projecting, ray_actors
from perdure.cluster.connection import Connection, open_connection
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.projecting import keep_projecting
from perdure.cluster.settings import Settings
from perdure.cluster.sweep import keep_sweeping
from perdure.cluster.tasks import stop
from perdure.events.subjects import LIVE
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


async def test_an_entry_whose_word_was_lost_with_the_connection_is_folded_once_that_is_back(
    server: NatsServer, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projecting, "_LOOK_ANYWAY", 3600.0)
    settings = Settings(store=tmp_path)
    projections, lost = Projections(settings.projections_at), asyncio.Event()

    def lose(subject: str, _data: bytes) -> str | None:
        if not subject.startswith(f"{LIVE}.") or lost.is_set():
            return None
        lost.set()
        return "cut"

    async with Proxy.before(server.url) as proxy:
        own = await open_connection(proxy.url, server.token)
        keeping = asyncio.create_task(keep_projecting(own, settings))
        try:
            for _ in range(3):
                await _reached(projections, connection, await append(connection.log, uuid4().hex, start()))
                if not lost.is_set():
                    proxy.answers = lose
            assert lost.is_set()
        finally:
            await stop(keeping)
            await own.close()
            projections.close()


async def test_a_sweep_that_cannot_be_made_is_said_and_the_next_one_is_made(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swept = asyncio.Event()

    async def look(_connection: Connection, projections: Projections) -> int:
        await projections.prepare(connection.log)
        swept.set()
        return 0

    monkeypatch.setattr("perdure.cluster.sweep.sweep", look)
    settings = Settings(store=tmp_path)
    place = settings.projections_at
    monkeypatch.setattr(Settings, "projections_at", "no-such-database://x")
    sweeping = asyncio.create_task(keep_sweeping(connection, settings, every=0.01))
    try:
        async with asyncio.timeout(20):
            while "overdue timers were not looked for" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not swept.is_set()
            monkeypatch.setattr(Settings, "projections_at", place)
            await swept.wait()
    finally:
        await stop(sweeping)


async def test_the_process_of_the_read_models_folds_tells_and_sweeps_at_the_same_time(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {name: asyncio.Event() for name in ("keep_projecting", "keep_telling", "keep_sweeping")}

    async def keep(begun: asyncio.Event, *_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    for name, begun in kept.items():
        monkeypatch.setattr(ray_actors, name, partial(keep, begun))
    keeping = asyncio.create_task(ray_actors.keep_read_models(connection, Settings(store=tmp_path)))
    async with asyncio.timeout(20):
        await asyncio.gather(*(begun.wait() for begun in kept.values()))
    await stop(keeping)


async def _reached(projections: Projections, connection: Connection, position: int) -> None:
    async with asyncio.timeout(30):
        while max(position - each["position"] for each in (await projections.lag(connection.log)).values()) > 0:
            await asyncio.sleep(0.02)

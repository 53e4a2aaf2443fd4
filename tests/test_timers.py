"""Durable timers on a real server: what is armed, what replaces it, who removes it, and what wakes whom."""

from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from hosts_lab import Lab, begun, until

from perdure.actors.alarms import Alarms
from perdure.actors.inputs import FireTimer, decode_command
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import STREAM
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.sweep import sweep
from perdure.errors import Deposed
from perdure.events.entry import Happened
from perdure.events.subjects import token_of
from perdure.events.vocabulary import TimerFired
from perdure.projections.inboxes import overdue
from perdure.projections.runner import Projections

WAIT = {"name": "nap", "nodes": {"a": {"wait": "400ms"}}}
DAY = {"name": "day", "nodes": {"a": {"wait": {"signal": "go", "timeout": "1d"}}}}


def key() -> str:
    return f"t{uuid4().hex[:10]}"


@pytest.fixture
async def lab(server: NatsServer, connection: Connection) -> AsyncIterator[Lab]:
    """A lab that leaves nothing in the inbox, which other tests look into."""
    lab = Lab(server, connection)
    yield lab
    for subject in ("perdure.timer.>", f"perdure.cmd.{lab.lane}.>", f"perdure.start.*.{lab.lane}.>"):
        await connection.nats.jetstream().purge_stream(STREAM, subject=subject)


async def stored(connection: Connection, subject: str) -> int:
    info = await connection.nats.jetstream().stream_info(STREAM, subjects_filter=subject)
    return sum((info.state.subjects or {}).values())


async def test_arming_a_timer_again_replaces_it_and_it_comes_once_as_a_command(lab: Lab) -> None:
    each, inbox, now = key(), lab.connection.inbox, datetime.now(UTC)
    js = lab.connection.nats.jetstream()
    first, second = now + timedelta(seconds=0.3), now + timedelta(seconds=0.7)
    await inbox.arm(each, lab.lane, "wait/a", first)
    await inbox.arm(each, lab.lane, "wait/a", second)
    assert await stored(lab.connection, f"perdure.timer.{each}.>") == 1
    await until(lambda: _is(stored(lab.connection, f"perdure.cmd.{lab.lane}.{each}"), 1))
    message = await js.get_last_msg(STREAM, f"perdure.cmd.{lab.lane}.{each}")
    assert decode_command(message.data or b"") == FireTimer.of(each, "wait/a", second)
    assert datetime.now(UTC) >= second
    assert await stored(lab.connection, f"perdure.timer.{each}.>") == 0


async def test_a_timer_that_fired_is_not_removed_again_and_one_that_was_cancelled_is(lab: Lab) -> None:
    purged: list[str] = []
    fires, cancelled = key(), key()
    async with lab.host(near_timer=0) as serving:
        purge = serving.host._inbox._js.purge_stream

        async def noting(name: str, subject: str = "") -> bool:
            purged.append(subject)
            return await purge(name, subject=subject)

        serving.host._inbox._js.purge_stream = noting  # type: ignore[method-assign, assignment]
        napping = await lab.start(fires, WAIT)
        assert await napping.result(20) == {"a": None}
        waiting = await lab.start(cancelled, DAY)
        await until(lambda: _is(stored(lab.connection, f"perdure.timer.{cancelled}.>"), 1))
        assert await waiting.signal("go", 1)
        assert await waiting.result(20) == {"a": 1}
        await until(lambda: _is(stored(lab.connection, f"perdure.timer.{cancelled}.>"), 0))
    assert purged == [f"perdure.timer.{cancelled}.{token_of('wait/a')}"]


async def test_near_timers_give_their_place_to_executions_that_wait_for_one(lab: Lab) -> None:
    """One place, and two executions that sleep: neither keeps the other from beginning."""
    async with lab.host(executions_per_actor=1, near_timer=3600):
        sleeping = await lab.start(key(), {"name": "long", "nodes": {"a": {"wait": "1h"}}})
        await begun(sleeping)
        other = await lab.start(key(), {"name": "short", "nodes": {"a": {"set": 1}}})
        assert await other.result(20) == {"a": 1}
    assert await stored(lab.connection, f"perdure.timer.{sleeping.id}.>") == 1


async def test_a_sweep_wakes_an_execution_whose_schedule_was_lost_and_nobody_else(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cluster.sweep._AT_ONCE", 1)  # so that several pages are looked through
    async with lab.host(near_timer=0, passivate_after=0):
        lost, kept = await lab.start(key(), WAIT), await lab.start(key(), DAY)
        for run in (lost, kept):
            await begun(run)
        await until(lambda: _is(stored(lab.connection, f"perdure.timer.{kept.id}.>"), 1))
        await lab.connection.inbox.disarm(lost.id, "wait/a")
    assert not any(isinstance(each.event, TimerFired) for each in await _events(lab, lost.id))
    projections = Projections(tmp_path / "p.sqlite")
    assert await until_overdue(lab, projections, lost.id) >= 1  # other tests may have left some
    assert await sweep(lab.connection, projections, 0) == 0  # a command waits for it already
    async with lab.host():
        assert await lost.result(20) == {"a": None}
        assert await kept.status() == "running"
    fired = [each.event for each in await _events(lab, lost.id) if isinstance(each.event, TimerFired)]
    assert fired == [TimerFired("wait/a")]
    assert lost.id not in {execution for execution, _, _ in await _overdue(lab, projections)}
    projections.close()


async def test_who_is_no_owner_any_more_neither_arms_nor_removes_a_timer() -> None:
    changed: list[str] = []

    class Queue:
        async def arm(self, _execution: str, _lane: str, timer: str, _due: datetime) -> None:
            changed.append(f"arm {timer}")

        async def disarm(self, _execution: str, timer: str) -> None:
            changed.append(f"disarm {timer}")

    async def deposed() -> None:
        raise Deposed("a newer owner")

    far = datetime.now(UTC) + timedelta(days=1)
    alarms = Alarms("x", Queue(), lambda: 30.0, deposed, lambda _: None)
    with pytest.raises(Deposed):
        await alarms.reconcile("0", {"wait/a": far})
    alarms.remember({"wait/b": far})
    with pytest.raises(Deposed):
        await alarms.reconcile("0", {})
    assert changed == []


async def _events(lab: Lab, execution: str) -> list[Happened]:
    return [each async for recorded in lab.connection.log.read(execution) for each in recorded.unpack()]


async def _overdue(lab: Lab, projections: Projections) -> list[tuple[str, str, datetime]]:
    await projections.catch_up(lab.connection.log)
    return await projections.read(partial(overdue, before=datetime.now(UTC), limit=10_000, offset=0))


async def until_overdue(lab: Lab, projections: Projections, execution: str) -> int:
    await until(lambda: _has(lab, projections, execution))
    return await sweep(lab.connection, projections, 0)


async def _has(lab: Lab, projections: Projections, execution: str) -> bool:
    return execution in {each for each, _, _ in await _overdue(lab, projections)}


async def _is(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted

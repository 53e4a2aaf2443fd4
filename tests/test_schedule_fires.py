"""Schedules on a real server: what fires, and how often, when hosts are lost, replaced, and told things twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hosts_lab import SET, WAIT, Lab, until

from perdure.actors.inputs import ActivateExecution, FireTimer, decode_command
from perdure.actors.schedule_log import ScheduleLog
from perdure.actors.schedule_state import Schedule, execution_of, id_of
from perdure.cluster.client import AsyncClient
from perdure.cluster.connection import Connection
from perdure.cluster.inbox import Lanes
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.ownership import Ownership
from perdure.cluster.run import AsyncRun
from perdure.cluster.schedules import Schedules
from perdure.cluster.settings import Settings
from perdure.cluster.sweep import sweep
from perdure.errors import BadInput, Deposed, ScheduleNotFound
from perdure.events.subjects import token_of
from perdure.events.vocabulary import ExecutionStarted
from perdure.projections.runner import Projections

PAST = "2026-03-01T12:00"
FIRST, SECOND, THIRD = (datetime(2026, 3, 1, 12, minute, tzinfo=UTC) for minute in range(3))


@pytest.fixture
async def lab(server: NatsServer, connection: Connection) -> AsyncIterator[Lab]:
    lab = Lab(server, connection)
    yield lab
    await Ownership(connection.nats, connection.registry, lab.lane).move(Lanes((lab.lane,)))
    for subject in (f"perdure.cmd.{lab.lane}.*", f"perdure.start.*.{lab.lane}.*"):
        await connection.nats.jetstream().purge_stream("PERDURE_INBOX", subject=subject)


@pytest.fixture
async def schedules(lab: Lab, settings: Settings) -> AsyncIterator[Schedules]:
    """The schedules of a client whose commands come on the lab's lane."""
    async with await AsyncClient.open(settings, "none") as client:
        yield Schedules(
            Settings(user="ann"), lab.connection, client.definition_of, client._ship, sees_secrets=False,
            lane=lambda _: lab.lane,
        )  # fmt: skip


@pytest.fixture
def name() -> str:
    return f"s{uuid4().hex[:12]}"


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)


async def starts(lab: Lab, execution: str) -> int:
    """Return how often an execution began."""
    history = await AsyncRun(execution, lab.connection).history()
    return sum(isinstance(each.event, ExecutionStarted) for recorded in history for each in recorded.unpack())


def is_now(schedules: Schedules, name: str, check: Callable[[Schedule], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return check(await schedules.show(name))

    return look


async def test_a_schedule_fires_at_its_time_while_nothing_holds_it(lab: Lab, schedules: Schedules, name: str) -> None:
    async with lab.host() as serving:
        at = in_seconds(2)
        added = await schedules.add(name, SET, {"a": 1}, at=at, time_as="at")
        assert (added.armed, added.status, added.next(3, datetime.now(UTC))) == (at, "active", [at])
        await until(lambda: _rests(serving.host.active_on, lab))
        run = AsyncRun(execution_of(name, at), lab.connection)
        started = await run.begun(within=10)
        assert started is not None
        assert started.input == {"a": 1, "at": at.isoformat().replace("+00:00", "Z")}
        await until(is_now(schedules, name, lambda each: not each.running))
        done = await schedules.show(name)
        assert (done.status, [fire.outcome for fire in done.last]) == ("done", ["succeeded"])
        assert await lab.waiting() == 0


async def _rests(active_on: Callable[[set[str]], list[Any]], lab: Lab) -> bool:
    return not active_on({lab.lane})


async def test_a_fire_that_came_due_while_no_host_was_there_is_caught_up(
    lab: Lab, schedules: Schedules, name: str
) -> None:
    at = in_seconds(2)
    await schedules.add(name, SET, at=at)
    await until(lambda: _passed(at))
    async with lab.host():
        assert await AsyncRun(execution_of(name, at), lab.connection).begun(within=10) is not None


async def _passed(at: datetime) -> bool:
    return datetime.now(UTC) > at


async def test_a_backfill_runs_one_after_the_other_and_asking_again_starts_nothing(
    lab: Lab, schedules: Schedules, name: str
) -> None:
    await schedules.add(name, SET, cron="* * * * *")
    ids = await schedules.backfill(name, PAST, "2026-03-01T12:02")
    assert ids == [execution_of(name, at) for at in (FIRST, SECOND, THIRD)]
    async with lab.host():
        for each in ids:
            await AsyncRun(each, lab.connection).result(20)
        assert [await starts(lab, each) for each in ids] == [1, 1, 1]
        assert await schedules.backfill(name, PAST, "2026-03-01T12:02") == []
        await schedules.remove(name)


async def test_skip_and_cancel_know_whether_the_last_one_runs(lab: Lab, schedules: Schedules, name: str) -> None:
    await schedules.add(name, WAIT, cron="* * * * *", overlap="cancel")
    (first,) = await schedules.backfill(name, PAST, PAST)
    async with lab.host():
        assert await AsyncRun(first, lab.connection).begun(within=20) is not None
        (second,) = await schedules.backfill(name, "2026-03-01T12:01", "2026-03-01T12:01", "skip")
        await until(is_now(schedules, name, lambda each: any(fire.outcome == "skipped" for fire in each.last)))
        assert await AsyncRun(second, lab.connection).begun() is None
        at = in_seconds(2)
        await schedules.add(name, WAIT, at=at, overlap="cancel", replace=True)
        assert await AsyncRun(execution_of(name, at), lab.connection).begun(within=20) is not None
        assert await AsyncRun(first, lab.connection).status() == "cancelled"
        assert [fire.outcome for fire in (await schedules.show(name)).last] == ["cancelled", "skipped", "running"]


@pytest.mark.parametrize("moment", ["before the start is sent", "after the start is sent", "before the timer is armed"])
async def test_a_fire_whose_host_dies_halfway_starts_once_under_the_next_one(
    lab: Lab, schedules: Schedules, name: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = type(lab.connection.inbox)
    died = asyncio.Event()

    def dying(call: Callable[..., Awaitable[None]], *, after: bool) -> Callable[..., Awaitable[None]]:
        async def instead(*args: Any) -> None:
            if not died.is_set():
                if after:
                    await call(*args)
                died.set()
                await asyncio.Event().wait()  # nothing more comes of this host
            await call(*args)

        return instead

    if moment == "before the timer is armed":
        monkeypatch.setattr(inbox, "arm", dying(inbox.arm, after=False))
    else:
        monkeypatch.setattr(inbox, "start", dying(inbox.start, after=moment.startswith("after")))
    await schedules.add(name, SET, cron="* * * * *", overlap="queue")
    ids = await schedules.backfill(name, PAST, "2026-03-01T12:01")
    async with lab.host():
        await asyncio.wait_for(died.wait(), 20)
    async with lab.host():
        for each in ids:
            await AsyncRun(each, lab.connection).result(20)
        await until(is_now(schedules, name, lambda each: not each.running and not each.waiting))
        assert [await starts(lab, each) for each in ids] == [1, 1]
        assert (await schedules.show(name)).started == 2


async def test_what_is_told_twice_to_two_hosts_in_turn_starts_once(lab: Lab, schedules: Schedules, name: str) -> None:
    at = in_seconds(2)
    await schedules.add(name, SET, at=at)
    again = FireTimer.of(id_of(name), "fire", at)
    run = AsyncRun(execution_of(name, at), lab.connection)
    for _ in range(2):
        async with lab.host():
            for _ in range(3):
                await lab.send(again)
            await lab.send(ActivateExecution(uuid4().hex, id_of(name)))
            await run.result(20)
            await until(lambda: _nothing_waits(lab))
    assert await starts(lab, run.id) == 1
    assert (await schedules.show(name)).started == 1


async def _nothing_waits(lab: Lab) -> bool:
    return await lab.waiting() == 0


async def test_a_stale_owner_can_append_nothing_and_starts_nothing(lab: Lab, schedules: Schedules, name: str) -> None:
    at = in_seconds(2)
    await schedules.add(name, SET, at=at)
    async with lab.host() as serving:
        await AsyncRun(execution_of(name, at), lab.connection).result(20)
        await until(is_now(schedules, name, lambda each: not each.running))
        stale = ScheduleLog(name, lab.connection.log, lab.connection.snapshots, serving.host.own.epoch - 1)
        with pytest.raises(Deposed, match="is owned by epoch"):
            await stale.load()


async def test_changes_at_the_same_moment_are_all_made(lab: Lab, schedules: Schedules, name: str) -> None:
    await schedules.add(name, SET, cron="* * * * *")
    asked = [
        schedules.backfill(name, f"2026-03-01T12:{minute:02}", f"2026-03-01T12:{minute:02}") for minute in range(8)
    ]
    await asyncio.gather(*asked)
    assert len((await schedules.show(name)).waiting) == 8


async def test_a_long_history_is_read_from_its_snapshot(lab: Lab, schedules: Schedules, name: str) -> None:
    await schedules.add(name, SET, cron="0 0 1 1 *")
    for number in range(110):
        await schedules.pause(name, str(number))
        await schedules.resume(name)
    reads = 0
    read = lab.connection.log.read

    class Counting:
        def read(self, *args: Any) -> Any:
            nonlocal reads

            async def counted() -> AsyncIterator[Any]:
                nonlocal reads
                async for recorded in read(*args):
                    reads += 1
                    yield recorded

            return counted()

    loaded = await ScheduleLog(name, Counting(), lab.connection.snapshots).load()  # type: ignore[arg-type]
    assert (loaded.n, loaded.state) == (221, await schedules.show(name))
    assert reads <= 30


async def test_an_execution_that_cannot_start_is_told_as_failed(
    lab: Lab, schedules: Schedules, name: str, settings: Settings, store: Path
) -> None:
    workflow = f"w{uuid4().hex[:8]}"
    async with await AsyncClient.open(settings, "none") as client:
        await client.workflows.register({"name": workflow, "nodes": {"a": {"set": 1}}})
        await schedules.add(name, workflow, cron="* * * * *")
        assert (await schedules.show(name)).plan.digest == ""  # type: ignore[union-attr]
        await client.workflows.deprecate(workflow, 1, "charges twice")
    (first,) = await schedules.backfill(name, PAST, PAST)
    async with lab.host(nats_token_file=store / "token"):
        await until(is_now(schedules, name, lambda each: bool(each.last) and each.last[-1].outcome == "failed"))
    assert "charges twice" in (await schedules.show(name)).last[-1].text
    assert await AsyncRun(first, lab.connection).begun() is None


async def test_a_timer_that_the_server_lost_is_found_by_the_sweep(
    connection: Connection, settings: Settings, name: str, tmp_path: Path
) -> None:
    at = in_seconds(2)
    async with await AsyncClient.open(settings, "none") as client:
        lane = (await client.schedules.add(name, SET, at=at)).plan.lane  # type: ignore[union-attr]
    commands = f"perdure.cmd.{lane}.{token_of(id_of(name))}"
    js, projections = connection.nats.jetstream(), Projections(tmp_path / "projections.sqlite")
    await js.purge_stream("PERDURE_INBOX", subject=commands)  # nobody armed it, and nobody will
    await until(lambda: _passed(at))
    await sweep(connection, projections, overdue=0)
    found = decode_command((await js.get_last_msg("PERDURE_INBOX", commands)).data or b"")
    assert found == FireTimer.of(id_of(name), "fire", at)
    await js.purge_stream("PERDURE_INBOX", subject=commands)
    projections.close()


async def test_a_schedule_is_found_paused_resumed_and_removed_by_name(schedules: Schedules, name: str) -> None:
    await schedules.add(name, SET, cron="0 3 * * *", zone="Europe/Berlin")
    assert name in [each.name for each in await schedules.list()]
    assert (await schedules.pause(name, "holidays")).status == "paused"
    assert (await schedules.resume(name)).status == "active"
    await schedules.remove(name)
    assert name not in [each.name for each in await schedules.list()]
    with pytest.raises(ScheduleNotFound, match=name):
        await schedules.show(name)


async def test_bad_input_is_told_before_anything_is_recorded(schedules: Schedules, name: str) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "the cron expression 'x'": {"cron": "x"}, "overlap policy 'both'": {"cron": "* * * * *", "overlap": "both"},
        "every: not a duration": {"every": "soon"}, "not a number of whole seconds": {"every": "1500ms"},
        "given: none": {}, "no time zone": {"cron": "* * * * *", "zone": "Mars"},
        "the input is no object": {"cron": "* * * * *", "input": [1], "time_as": "at"},
    }  # fmt: skip
    for message, given in wrong.items():
        with pytest.raises(BadInput, match=message):
            await schedules.add(name, SET, **given)
    with pytest.raises(ScheduleNotFound):
        await schedules.show(name)

"""The actor of a schedule, on a log in memory: what it sends and arms, and when."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from test_schedules import plan

from perdure.actors.inputs import ActivateExecution, FireTimer, ReportChild
from perdure.actors.schedule_actor import ScheduleActor
from perdure.actors.schedule_log import ScheduleLog
from perdure.actors.schedule_state import Schedule, execution_of, id_of
from perdure.actors.schedules import BackfillSchedule, Input, SetSchedule
from perdure.errors import BadInput, LogUnavailable
from perdure.events.memory_log import MemoryLog
from perdure.events.schedules import Overlap, Timing

NOW = datetime.now(UTC).replace(microsecond=0)
ID = id_of("s")
YEARLY = Timing("0 0 1 1 *")
WAKE = ActivateExecution("w", ID)
OLD, OLDER = NOW - timedelta(hours=1), NOW - timedelta(hours=2)


class NoSnapshots:
    """Snapshots that are never kept."""

    async def save(self, execution: str, data: bytes) -> None: ...

    async def load(self, execution: str) -> bytes | None: ...

    async def delete(self, execution: str) -> None: ...


class World:
    """What the actor acts on: the log, the starts and cancels that were sent, the timer, and what has ended."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.ended: set[str] = set()
        self.armed: datetime | None = None
        self.fails: list[Exception] = []
        self.epoch = 1

    def schedule_log(self, epoch: int = 0) -> ScheduleLog:
        return ScheduleLog("s", self.log, NoSnapshots(), epoch)

    async def ask(self, *asked: Input) -> None:
        for each in asked:
            assert await self.schedule_log().change([each])

    def actor(self) -> ScheduleActor:
        """Return the actor of a next owner."""
        self.epoch += 1
        return ScheduleActor("s", self.schedule_log(self.epoch), self, self)

    async def state(self) -> Schedule:
        return (await self.schedule_log().load()).state

    async def start(self, schedule: Schedule, execution: str) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.started.append(execution)

    async def cancel(self, schedule: Schedule, execution: str) -> None:
        self.cancelled.append(execution)

    async def end_of(self, schedule: Schedule, execution: str) -> ReportChild | None:
        return ReportChild("e", ID, execution) if execution in self.ended else None

    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        self.armed = due

    async def disarm(self, execution: str, timer: str) -> None:
        self.armed = None


@pytest.fixture
def world() -> World:
    return World()


def run(at: datetime) -> str:
    return execution_of("s", at)


def added(overlap: Overlap = "skip", timing: Timing = YEARLY) -> SetSchedule:
    return SetSchedule(plan(overlap, timing=timing, at=NOW))


async def test_it_arms_what_the_log_says_though_the_inbox_may_hold_nothing(world: World) -> None:
    await world.ask(added())
    assert await world.actor().run(WAKE)
    assert world.armed == (await world.state()).armed is not None


async def test_a_schedule_that_was_never_added_is_none(world: World) -> None:
    assert not await world.actor().run(WAKE)
    assert world.armed is None


async def test_what_an_owner_that_is_gone_has_not_sent_is_sent_before_anything_new_is_decided(world: World) -> None:
    await world.ask(added("allow"), BackfillSchedule([OLDER], "allow"))
    world.fails = [LogUnavailable("the inbox is away")]
    with pytest.raises(LogUnavailable):
        await world.actor().run(WAKE)
    assert list((await world.state()).running) == [run(OLDER)]
    assert world.started == []
    await world.ask(BackfillSchedule([OLD], "allow"))
    await world.actor().run(WAKE)
    assert world.started == [run(OLDER), run(OLD)]


async def test_what_was_sent_and_is_decided_past_is_not_sent_again(world: World) -> None:
    await world.ask(added("allow"), BackfillSchedule([OLDER], "allow"))
    await world.actor().run(WAKE)
    await world.ask(BackfillSchedule([OLD], "allow"))
    await world.actor().run(WAKE)
    await world.actor().run(WAKE)
    assert world.started.count(run(OLDER)) <= 2  # the last entry's may come twice, and count once
    assert world.started[-1] == run(OLD)


async def test_an_end_whose_report_is_on_its_way_holds_no_fire_back(world: World) -> None:
    at = NOW + timedelta(hours=1)
    await world.ask(added(timing=Timing(at=at)), BackfillSchedule([OLD], "queue"))
    await world.actor().run(WAKE)
    world.ended = {run(OLD)}
    await world.actor().run(FireTimer.of(ID, "fire", at))
    assert [(each.outcome, each.execution) for each in (await world.state()).last] == [
        ("succeeded", run(OLD)), ("running", run(at)),
    ]  # fmt: skip
    assert world.started[-1] == run(at)


async def test_one_that_gives_way_is_cancelled_until_it_has_ended(world: World) -> None:
    at = NOW + timedelta(hours=1)
    await world.ask(added("cancel", Timing(at=at)), BackfillSchedule([OLD], "queue"))
    await world.actor().run(WAKE)
    await world.actor().run(FireTimer.of(ID, "fire", at))
    assert (world.cancelled, world.started[-1]) == ([run(OLD)], run(OLD))
    await world.actor().run(ReportChild("e", ID, run(OLD)))
    assert (world.cancelled, world.started[-1]) == ([run(OLD)], run(at))


async def test_what_cannot_start_makes_room_for_the_next(world: World) -> None:
    world.fails = [BadInput("no such workflow")]
    await world.ask(added("queue"), BackfillSchedule([OLDER, OLD], "queue"))
    await world.actor().run(WAKE)
    assert world.started == [run(OLD)]
    assert [(each.outcome, each.text) for each in (await world.state()).last] == [
        ("failed", "BadInput: no such workflow"), ("running", ""),
    ]  # fmt: skip


async def test_hundreds_that_may_start_at_once_are_started_in_several_entries(world: World) -> None:
    times = [NOW - timedelta(minutes=minute) for minute in range(450, 0, -1)]
    await world.ask(added("allow"), BackfillSchedule(times, "allow"))
    await world.actor().run(WAKE)
    assert world.started == [run(at) for at in times]
    assert (await world.schedule_log().load()).n == 2 + 5


async def test_it_takes_what_it_is_told_meanwhile_and_turns_away_what_comes_too_late(world: World) -> None:
    await world.ask(added("queue"), BackfillSchedule([OLDER, OLD], "queue"))
    actor = world.actor()
    told = asyncio.create_task(actor.tell(ReportChild("e", ID, run(OLDER))))
    await asyncio.sleep(0)
    assert await actor.run(WAKE)
    assert await told
    assert world.started == [run(OLDER), run(OLD)]
    assert not await actor.tell(WAKE)

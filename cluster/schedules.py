"""The schedules of a store, for its clients: each is a log of its own, which a host acts on when it is woken."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any, TypedDict, TypeVar, get_args
from uuid import uuid4

from msgspec import structs

from perdure.actors.fire_times import check_timing, fires, time_in
from perdure.actors.inputs import ActivateExecution
from perdure.actors.schedule_log import ScheduleLog
from perdure.actors.schedule_state import Schedule, execution_of, id_of
from perdure.actors.schedules import (
    MOST_WAITING,
    BackfillSchedule,
    Input,
    PauseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    SetSchedule,
)
from perdure.cluster.checks import check_id, checked
from perdure.cluster.connection import Connection
from perdure.cluster.hosting import cluster_answers
from perdure.cluster.inbox import lane_of
from perdure.cluster.references import is_reference
from perdure.cluster.registry import Changed
from perdure.cluster.schedule_starts import input_at
from perdure.cluster.settings import Settings
from perdure.cluster.users import user_of
from perdure.definitions.durations import duration_in_bounds
from perdure.definitions.loading import Definition, WorkflowLike
from perdure.errors import BadInput, ScheduleNotFound
from perdure.events.schedules import Overlap, ScheduleSet, Timing
from perdure.events.subjects import execution_of as id_in
from perdure.events.subjects import token_of

_INDEX = "schedules"
_LOOKS_AT_ONCE = 64

Result = TypeVar("Result")
DefinitionOf = Callable[[WorkflowLike], Awaitable[Definition]]
Ship = Callable[[Definition, dict[str, str]], Awaitable[dict[str, str]]]


class Options(TypedDict, total=False):
    """How a schedule may be; see `Schedules.add`."""

    cron: str
    every: float | str
    at: datetime | str | None
    zone: str
    overlap: Overlap
    jitter: float | str
    catch_up: float | str
    priority: int
    time_as: str
    replace: bool


class Schedules:
    """The schedules of a store. They fire while hosts serve it: those of `perdure up`, or of a client.

    lane: on which commands for the schedule with this id come.
    """

    def __init__(
        self, settings: Settings, connection: Connection, definition_of: DefinitionOf, ship: Ship,
        *, sees_secrets: bool, lane: Callable[[str], str] = lane_of,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._connection = connection
        self._definition_of = definition_of
        self._ship = ship
        self._sees_secrets = sees_secrets
        self._lane = lane

    async def add(
        self,
        name: str,
        workflow: WorkflowLike,
        input: Any = None,
        *,
        cron: str = "",
        every: float | str = 0,
        at: datetime | str | None = None,
        zone: str = "UTC",
        overlap: Overlap = "skip",
        jitter: float | str = 0,
        catch_up: float | str = 3600,
        priority: int = 5,
        time_as: str = "",
        replace: bool = False,
    ) -> Schedule:
        """Start a workflow again and again: by a cron expression in a time zone, by an interval, or once, `at` a time.

        workflow: as for `start`; a registered workflow's name means the version that is active at each fire. overlap:
        while an execution of an earlier fire runs, a fire is left out (skip), waits (queue), makes it give way
        (cancel), or starts beside it (allow). every, jitter, catch_up: seconds, or text such as `90s`; each fire is put
        off within `jitter`, and left out where it could not be started within `catch_up`. time_as: the key of the input
        that gets the fire time. replace: change a schedule that is there.
        Raises what `start` raises, or BadInput.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        timing = Timing(
            cron, zone, _seconds("every", every), now if every else None, time_in(zone, at, "at") if at else None,
            _seconds("jitter", jitter),
        )  # fmt: skip
        plan = ScheduleSet(
            now, user_of(self._settings), "", timing, self._lane(id_of(name)), input=input, priority=priority,
            overlap=overlap, catch_up=_seconds("catch_up", catch_up), time_as=time_as,
        )  # fmt: skip
        check_plan(name, plan)
        told = SetSchedule(await self._planned(name, workflow, plan), replace)
        await self._index(name)
        return await self._change(name, told)

    async def list(self) -> Sequence[Schedule]:
        """Return every schedule, by name."""
        tokens = await self._connection.registry.keys_under(_INDEX)
        found = await _each([self._load(id_in(token)) for token in tokens])
        return sorted((each for each in found if each.there), key=lambda each: each.name)

    async def show(self, name: str) -> Schedule:
        """Return one schedule. Raises ScheduleNotFound."""
        found = await self._load(name)
        if not found.there:
            raise ScheduleNotFound(f"there is no schedule {name!r}; see them with: perdure schedule list")
        return found

    async def pause(self, name: str, reason: str = "") -> Schedule:
        """Start nothing from now on; what runs goes on. Raises ScheduleNotFound."""
        return await self._change(name, PauseSchedule(reason, user_of(self._settings)))

    async def resume(self, name: str) -> Schedule:
        """Fire again; the fire times in the pause are left out. Raises ScheduleNotFound."""
        return await self._change(name, ResumeSchedule(user_of(self._settings)))

    async def remove(self, name: str) -> Schedule:
        """Fire no more; what runs goes on. Raises ScheduleNotFound."""
        return await self._change(name, RemoveSchedule(user_of(self._settings)))

    async def backfill(
        self, name: str, since: datetime | str, until: datetime | str | None = None, overlap: Overlap | None = None
    ) -> Sequence[str]:
        """Start the executions of fire times that have passed and have none yet; return their ids, oldest first.

        since, until: the first and the last moment that counts, in the schedule's time zone where they name none; up
        to now where absent. overlap: one after the other (queue) unless the schedule allows them side by side.
        Raises ScheduleNotFound, or BadInput where they are too many.
        """
        found = await self.show(name)
        assert found.plan is not None  # noqa: S101 (it is there)
        timing, now = found.plan.timing, datetime.now(UTC)
        first = time_in(timing.zone, since, "since")
        last = min(now, time_in(timing.zone, until, "until") if until else now)
        if timing.since is not None:
            timing = _backwards(timing, first)
        times = list(islice(takewhile(lambda at: at <= last, fires(timing, first - _MOMENT)), MOST_WAITING + 1))
        begun = await _each([self._connection.log.last(execution_of(name, at)) for at in times])
        missing = [at for at, position in zip(times, begun, strict=True) if not position]
        if missing:
            how = overlap or ("allow" if found.plan.overlap == "allow" else "queue")
            check_overlap(how)
            await self._change(name, BackfillSchedule(missing, how, user_of(self._settings)))
        return [execution_of(name, at) for at in missing]

    async def served(self) -> bool:
        """Say whether hosts answer that let schedules fire."""
        return await cluster_answers(self._connection)

    async def _planned(self, name: str, workflow: WorkflowLike, plan: ScheduleSet) -> ScheduleSet:
        """Return the plan with the definition that it starts, checked as a start of it would be."""
        definition = await self._definition_of(workflow)
        sample = input_at(plan, plan.at.isoformat())
        value, places = checked(
            self._settings, definition, sample, execution_of(name, plan.at), plan.priority,
            sees_secrets=self._sees_secrets,
        )  # fmt: skip
        if isinstance(workflow, str) and is_reference(workflow):
            return structs.replace(plan, workflow=workflow)
        value = {key: each for key, each in value.items() if key != plan.time_as} if plan.time_as else value
        await self._connection.registry.put_definition(definition.plan.digest, definition.workflow)
        tools = await self._ship(definition, places)
        return structs.replace(
            plan, workflow=definition.plan.name, digest=definition.plan.digest, input=value, tools=tools
        )

    async def _index(self, name: str) -> None:
        """Note the name, by which the schedule is found; what is true of it is on its log alone."""
        key = f"{_INDEX}.{token_of(name)}"
        found, revision = await self._connection.registry.read(key)
        if found is None:
            try:
                await self._connection.registry.swap(key, b"1", revision)
            except Changed:
                return  # another one has noted it

    async def _load(self, name: str) -> Schedule:
        return (await ScheduleLog(name, self._connection.log, self._connection.snapshots).load()).state

    async def _change(self, name: str, told: Input) -> Schedule:
        """Record what is asked for, and wake the schedule's owner."""
        log = ScheduleLog(name, self._connection.log, self._connection.snapshots)
        while not await log.change([told]):
            continue
        state = (await log.load()).state
        assert state.plan is not None  # noqa: S101 (else it was refused)
        await self._connection.inbox.send(ActivateExecution(uuid4().hex, id_of(name)), state.plan.lane)
        return state


_MOMENT = timedelta(microseconds=1)


def check_plan(name: str, plan: ScheduleSet) -> None:
    """Raise BadInput where a schedule cannot be so, whatever it starts."""
    check_id(name)
    check_overlap(plan.overlap)
    check_timing(plan.timing, plan.at)
    if len(name) > 150:
        raise BadInput(f"the name of schedule {name[:40]!r}... is longer than 150 characters")
    if plan.time_as and not isinstance(plan.input, dict | None):
        raise BadInput(f"the input is no object, so it cannot carry the fire time as {plan.time_as!r}")


def check_overlap(overlap: str) -> None:
    """Raise BadInput where this is no overlap policy."""
    if overlap not in get_args(Overlap):
        raise BadInput(f"the overlap policy {overlap!r} is none of {', '.join(get_args(Overlap))}")


def _seconds(name: str, value: float | str) -> int:
    """Return whole seconds, which fire times are made of."""
    try:
        seconds = duration_in_bounds(value)
    except ValueError as error:
        raise BadInput(f"{name}: {error}") from None
    if seconds != int(seconds):
        raise BadInput(f"{name}: {value!r} is not a number of whole seconds")
    return int(seconds)


def _backwards(timing: Timing, first: datetime) -> Timing:
    """Return an interval's timing as if it had begun before a time, on the same beat."""
    assert timing.since is not None  # noqa: S101 (it is an interval)
    every = timedelta(seconds=timing.every)
    behind = max(0, (timing.since - first) // every + 2)
    return structs.replace(timing, since=timing.since - every * behind)


async def _each(work: list[Awaitable[Result]]) -> list[Result]:
    """Return what all of these come to, some at a time."""
    window = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def one(each: Awaitable[Result]) -> Result:
        async with window:
            return await each

    return list(await asyncio.gather(*map(one, work)))

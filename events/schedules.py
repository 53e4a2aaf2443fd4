"""The words of schedules: what happened to one, which has a log of its own beside those of executions."""

from datetime import datetime
from typing import Any, Literal

import msgspec

Overlap = Literal["skip", "queue", "cancel", "allow"]
"""What becomes of a fire while the execution of an earlier one still runs."""


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a schedule fires: by a cron expression in a time zone, every so many seconds after `since`, or once, `at`.

    jitter: seconds within which each fire is put off, by a share that its time alone decides.
    """

    cron: str = ""
    zone: str = "UTC"
    every: int = 0
    since: datetime | None = None
    at: datetime | None = None
    jitter: int = 0


class _ScheduleEvent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of the events of schedules."""


class ScheduleSet(_ScheduleEvent, frozen=True):
    """A schedule was added, or changed: what it starts, when, and how; its commands come on this lane.

    digest: of the definition; "" where the workflow is registered, and each fire looks up its active version. time_as:
    the key under which the input carries the fire time. catch_up: seconds by which a fire may be late.
    """

    at: datetime
    by: str
    workflow: str
    timing: Timing
    lane: str
    digest: str = ""
    input: Any = None
    tools: dict[str, str] = {}
    priority: int = 5
    overlap: Overlap = "skip"
    catch_up: int = 3600
    time_as: str = ""


class SchedulePaused(_ScheduleEvent, frozen=True):
    """A schedule starts nothing from now on."""

    reason: str = ""
    by: str = ""


class ScheduleResumed(_ScheduleEvent, frozen=True):
    """A schedule starts executions again; the fire times up to `at` (UTC) that lie in its pause are left out."""

    at: datetime
    by: str = ""


class ScheduleRemoved(_ScheduleEvent, frozen=True):
    """A schedule fires no more; what it started goes on."""

    by: str = ""


class BackfillAsked(_ScheduleEvent, frozen=True):
    """Somebody asked for the executions of fire times that have passed; `overlap` is theirs."""

    times: list[datetime]
    overlap: Overlap
    by: str = ""


class FireStarted(_ScheduleEvent, frozen=True):
    """For this fire time an execution starts."""

    at: datetime
    execution: str


class FireQueued(_ScheduleEvent, frozen=True):
    """A fire waits until what runs has ended."""

    at: datetime


class FireSkipped(_ScheduleEvent, frozen=True):
    """For this fire time nothing is started, and why."""

    at: datetime
    why: str


class FiresMissed(_ScheduleEvent, frozen=True):
    """The fire times from `first` to `last` (UTC) had passed too long ago when somebody was there to start anything."""

    first: datetime
    last: datetime


class FireEnded(_ScheduleEvent, frozen=True):
    """The execution of a fire has ended, or could not begin; `error` is the type of its error."""

    execution: str
    error: str = ""
    message: str = ""


class FireCancelled(_ScheduleEvent, frozen=True):
    """The execution of an earlier fire is to be cancelled: a newer one waits."""

    execution: str


ScheduleEvent = (
    ScheduleSet
    | SchedulePaused
    | ScheduleResumed
    | ScheduleRemoved
    | BackfillAsked
    | FireStarted
    | FireQueued
    | FireSkipped
    | FiresMissed
    | FireEnded
    | FireCancelled
)

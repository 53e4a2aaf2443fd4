"""The words of the log: every event type, in the past tense, as an immutable value."""

from datetime import datetime
from typing import Any

import msgspec


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed: a type name that `retry.on` matches, a message for people, data for programs."""

    type: str
    message: str
    data: Any = None


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of all events; the JSON form carries the class name as `type`."""


class ExecutionStarted(_Event, frozen=True):
    """An execution began: of this definition, with this input, its commands on this lane, its tools at these places."""

    workflow: str
    digest: str
    input: Any
    lane: str
    tools: dict[str, str] = {}
    priority: int = 5


class NodeScheduled(_Event, frozen=True):
    """An attempt at a node is to run, with this input."""

    node: str
    attempt: int
    input: Any = None


class NodeResumed(_Event, frozen=True):
    """A new owner runs an attempt again that was under way when its predecessor was lost."""

    node: str
    attempt: int


class NodeSucceeded(_Event, frozen=True):
    """A node has its output."""

    node: str
    attempt: int
    output: Any = None


class NodeAttemptFailed(_Event, frozen=True):
    """An attempt failed and another one follows when the timer `retry/<node>` fires."""

    node: str
    attempt: int
    error: Error


class NodeFailed(_Event, frozen=True):
    """A node failed for good at this attempt."""

    node: str
    attempt: int
    error: Error


class NodeSkipped(_Event, frozen=True):
    """A node does not run in this execution."""

    node: str
    reason: str


class NodeCancelled(_Event, frozen=True):
    """A node that was running is not wanted any more."""

    node: str
    reason: str


class TimerArmed(_Event, frozen=True):
    """A timer is to fire at `due` (UTC)."""

    timer: str
    due: datetime


class TimerFired(_Event, frozen=True):
    """A timer's time has come."""

    timer: str


class TimerCancelled(_Event, frozen=True):
    """A timer is not wanted any more."""

    timer: str


class CommandRefused(_Event, frozen=True):
    """A command could not be carried out in the state that it met."""

    command: str
    reason: str


class ExecutionSucceeded(_Event, frozen=True):
    """An execution is done and has its output."""

    output: Any = None


class ExecutionFailed(_Event, frozen=True):
    """An execution ended because of this error, at this node where one is to blame."""

    error: Error
    node: str | None = None
    attempt: int = 0


class ExecutionPurged(_Event, frozen=True):
    """The past of an ended execution was removed; this is what is left of it, and keeps its id taken.

    blobs: names of the large values that go with it.
    """

    workflow: str
    digest: str
    status: str
    started: datetime
    ended: datetime
    entries: int
    blobs: list[str] = []


Event = (
    ExecutionStarted
    | NodeScheduled
    | NodeResumed
    | NodeSucceeded
    | NodeAttemptFailed
    | NodeFailed
    | NodeSkipped
    | NodeCancelled
    | TimerArmed
    | TimerFired
    | TimerCancelled
    | CommandRefused
    | ExecutionSucceeded
    | ExecutionFailed
    | ExecutionPurged
)

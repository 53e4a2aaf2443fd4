"""What events mean to several projections: which end a node's attempt, what an execution's status becomes."""

import re
from typing import Any

from perdure.events.vocabulary import (
    ExecutionAdmitted,
    ExecutionCancelled,
    ExecutionCancelling,
    ExecutionCompensated,
    ExecutionCompensating,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionQueued,
    ExecutionResumed,
    ExecutionRetried,
    ExecutionSucceeded,
    ExecutionTerminated,
    MacrostepTaken,
    Microstep,
    NodeAttemptFailed,
    NodeCancelled,
    NodeCatching,
    NodeCaught,
    NodeFailed,
    NodeSkipped,
    NodeStuck,
    NodeSucceeded,
)

SETTLES: dict[type, str] = {
    NodeSucceeded: "succeeded",
    NodeAttemptFailed: "failed",
    NodeFailed: "failed",
    NodeCatching: "failed",
    NodeCaught: "failed",
    NodeStuck: "failed",
    NodeCancelled: "cancelled",
    NodeSkipped: "skipped",
}
"""How an attempt at a node, or its waiting, has ended when this happens."""

ENDS: dict[type, str] = {
    ExecutionSucceeded: "succeeded",
    ExecutionFailed: "failed",
    ExecutionCancelled: "cancelled",
    ExecutionTerminated: "terminated",
    ExecutionCompensated: "compensated",
}
"""The status of an execution that ended so."""

STATUS: dict[type, str] = {
    ExecutionQueued: "queued",
    ExecutionAdmitted: "running",
    ExecutionPaused: "paused",
    ExecutionResumed: "running",
    ExecutionCancelling: "cancelling",
    ExecutionCompensating: "compensating",
    ExecutionRetried: "running",
    **ENDS,
}
"""The status that an execution has after this."""

STATUSES = ("queued", "running", "paused", "cancelling", "compensating", *ENDS.values())

_NUMBERS = re.compile(r"\[\d+\]|#\d+")


def node_of(path: str) -> str:
    """Return a path as it stands in the definition: `check[3]/verify` is of `check/verify`."""
    return _NUMBERS.sub("", path) if "[" in path or "#" in path else path


def states_of(event: MacrostepTaken) -> tuple[list[str], list[str]]:
    """Return the paths of the states that a macrostep left for good, and of those that it entered and did not leave."""
    left: dict[str, None] = {}
    entered: dict[str, None] = {}
    for step in event.steps:
        _take(step, left, entered)
    return [_state(event, each) for each in left], [_state(event, each) for each in entered]


def _take(step: Microstep, left: dict[str, None], entered: dict[str, None]) -> None:
    for state in step.exited:
        if state in entered:
            del entered[state]
        else:
            left[state] = None
    for state in step.entered:
        entered[state] = None


def _state(event: MacrostepTaken, state: str) -> str:
    return f"{event.chart}/{state}" if event.chart else state


def error_of(event: Any) -> str | None:
    """Return the type of the error that an event tells, if it tells one."""
    error = getattr(event, "error", None)
    return None if error is None else error.type

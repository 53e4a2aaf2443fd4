"""Whether a start is let in: a quota, or a limit that rejects, refuses it at once, and the caller hears of it."""

import asyncio
import contextlib
from contextlib import aclosing

from perdure.actors.admission import is_refused
from perdure.actors.loading import load
from perdure.actors.state import Started
from perdure.cluster.connection import Connection
from perdure.definitions.plan import Plan
from perdure.errors import LimitReached, PerdureError, QuotaExceeded
from perdure.events.vocabulary import (
    Error,
    Event,
    ExecutionAdmitted,
    ExecutionFailed,
    ExecutionQueued,
    ExecutionRetried,
    ExecutionStarted,
)

_REFUSALS: dict[str, type[PerdureError]] = {"QuotaExceeded": QuotaExceeded, "LimitReached": LimitReached}


async def was_refused(connection: Connection, execution: str) -> bool:
    """Say whether an execution was started before and not let in: to start it again is to try again."""
    folded, _ = await load(connection.log, connection.snapshots, execution)
    return isinstance(folded.state, Started) and is_refused(folded.state)


async def let_in(connection: Connection, execution: str, plan: Plan, after: int, within: float) -> None:
    """Return once the limits that refuse have let an execution in, or so many seconds have passed.

    after: the position in the log behind which its start is answered. Raises QuotaExceeded or LimitReached.
    """
    refuses = {gate.group for gate in plan.gates if gate.given is not None and gate.given.at_limit == "reject"}
    if not refuses:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within), aclosing(connection.log.follow(execution, after)) as entries:  # type: ignore[type-var]
            async for recorded in entries:
                if any(_is_decided(execution, event, refuses) for event in recorded.entry.events):
                    return


def _is_decided(execution: str, event: Event, refuses: set[str]) -> bool:
    if isinstance(event, ExecutionFailed):
        _raise(execution, event.error)
    if isinstance(event, ExecutionQueued):
        return event.claim.limit not in refuses
    return not isinstance(event, ExecutionStarted | ExecutionRetried | ExecutionAdmitted)


def _raise(execution: str, error: Error) -> None:
    if error.type in _REFUSALS:
        raise _REFUSALS[error.type](f"execution {execution!r} is not let in: {error.message}")

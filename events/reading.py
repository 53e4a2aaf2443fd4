"""Reading the log for subscribers: the chosen events of each entry, from a place on, to a position or for ever."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

from perdure.errors import CorruptBlob
from perdure.events.choice import Choice, Workflows
from perdure.events.entry import Happened, Recorded
from perdure.events.log import Log
from perdure.events.vocabulary import ExecutionPurged


class Place(NamedTuple):
    """How far a subscriber is: all before the entry at `position` is done, and of it so many events."""

    position: int = 1
    events: int = 0

    @classmethod
    def behind(cls, position: int) -> "Place":
        """Return the place behind a whole entry."""
        return cls(position + 1)

    @classmethod
    def after(cls, happened: Happened) -> "Place":
        """Return the place behind one event."""
        return cls(happened.position, happened.i + 1)


class Chosen(NamedTuple):
    """An entry as its subscriber sees it: the position, the execution's workflow, the chosen events, maybe none."""

    position: int
    workflow: str
    events: list[Happened]


async def chosen(log: Log, choice: Choice, place: Place, until: int | None = None) -> AsyncIterator[Chosen]:
    """Yield the entries from a place on: up to the position `until`, or also those that come, for ever.

    Large values are there too. Raises CorruptEntry, CorruptBlob and LogUnavailable.
    """
    workflows = Workflows(log)
    async with aclosing(_entries(log, choice.execution, place.position - 1, until)) as entries:  # type: ignore[type-var]
        async for recorded in entries:
            found = await _chosen(log, choice, workflows, recorded)
            if recorded.position == place.position:
                found = found._replace(events=[item for item in found.events if item.i >= place.events])
            yield found


async def _entries(log: Log, execution: str | None, after: int, until: int | None) -> AsyncIterator[Recorded]:
    if until is None:
        async with aclosing(log.follow(execution, after)) as live:  # type: ignore[type-var]
            async for recorded in live:
                yield recorded
        return
    async for recorded in log.read(execution, after) if execution else log.read_all(after):
        if recorded.position > until:
            return
        yield recorded


async def _chosen(log: Log, choice: Choice, workflows: Workflows, recorded: Recorded) -> Chosen:
    nothing = Chosen(recorded.position, "", [])
    if recorded.imported and not choice.imports:
        return nothing
    try:
        events = (await log.with_events(recorded)).unpack()
        if not (wanted := _wanted(choice, events)):
            return nothing
        workflow = await workflows.of(recorded.execution, events)
        if choice.workflows and workflow not in choice.workflows:
            return nothing
        events = (await log.with_values(recorded)).unpack()
    except CorruptBlob:
        if await _is_purged(log, recorded.execution):
            return nothing  # blobs go before entries do
        raise
    return Chosen(recorded.position, workflow, [events[item.i] for item in wanted])


def _wanted(choice: Choice, events: list[Happened]) -> list[Happened]:
    kinds = choice.kinds
    return [item for item in events if isinstance(item.event, kinds)] if kinds else events


async def _is_purged(log: Log, execution: str) -> bool:
    last = await log.last(execution)
    async for recorded in log.read(execution, last - 1):
        return any(isinstance(event, ExecutionPurged) for event in recorded.slim.events)
    return False

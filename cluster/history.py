"""The past of one execution: its entries, its state at any of them, and what each entry changed."""

from collections.abc import AsyncIterator, Generator
from datetime import UTC, datetime
from typing import Any

import msgspec

from perdure.actors.described import Difference, changes
from perdure.actors.folded import Folded
from perdure.actors.state import Purged, Started
from perdure.cluster.connection import Connection
from perdure.errors import BadInput, ExecutionNotFound
from perdure.events.entry import Entry, Recorded

At = int | datetime
"""A place in a past: after the entry of this number (from 1), or at this time."""


class Step(msgspec.Struct, frozen=True):
    """One entry of a past, as it is stored and decoded, and how the execution stood after it."""

    recorded: Recorded
    entry: Entry
    after: Folded


class History:
    """The past of an execution. Await it for a list of all stored entries so far, iterate over it for one at a time."""

    def __init__(self, execution: str, connection: Connection) -> None:
        self.execution = execution
        self._connection = connection

    def __await__(self) -> Generator[Any, None, list[Recorded]]:
        return self.all().__await__()

    def __aiter__(self) -> AsyncIterator[Recorded]:
        return self._connection.log.read(self.execution)

    async def steps(self) -> AsyncIterator[Step]:
        """Yield the past entry by entry, folded again. Raises ExecutionNotFound, CorruptEntry, CorruptBlob."""
        folded = Folded()
        async for recorded in self:
            entry = recorded.entry
            folded = folded.after(recorded, entry)
            yield Step(recorded, entry, folded)
        if not folded.n:
            raise ExecutionNotFound(f"there is no execution {self.execution!r} in this store")

    async def step(self, at: At | None = None) -> Step:
        """Return the last entry up to a place, with the state after it; the newest one where no place is given.

        Raises BadInput where nothing had happened at that place, or its past was removed, and as `steps`.
        """
        if at is not None and (isinstance(at, bool) or not isinstance(at, int | datetime)):
            raise BadInput(f"at {at!r}: a place in the past is the number of an entry, or a datetime")
        if isinstance(at, datetime) and at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        found = last = None
        async for step in self.steps():
            last = step
            if at is None or (step.entry.n <= at if isinstance(at, int) else step.entry.at <= at):
                found = step
        assert last is not None  # noqa: S101 (steps has raised where there is none)
        if isinstance(last.after.state, Purged):
            raise BadInput(f"the past of execution {self.execution!r} was removed: it was purged")
        if found is None or (isinstance(at, int) and at > last.entry.n):
            raise BadInput(self._nowhere(at, last))
        return found

    async def at(self, at: At) -> Started:
        """Return the state as it was after the entry number `at`, or at a time. Raises as `step`."""
        state = (await self.step(at)).after.state
        assert isinstance(state, Started)  # noqa: S101 (neither before the start nor purged)
        return state

    async def diff(self, before: At, after: At | None = None) -> list[Difference]:
        """Return what changed between two places; up to now where only one is given. Raises as `step`."""
        first, second = [(await self.step(at)).after.state for at in (before, after)]
        return changes(self.execution, first, second)

    async def all(self) -> list[Recorded]:
        """Return all stored entries so far; none where there is no such execution."""
        return [recorded async for recorded in self]

    def _nowhere(self, at: At | None, last: Step) -> str:
        if isinstance(at, int):
            return f"execution {self.execution!r} has entries 1 to {last.entry.n}, and none has the number {at}"
        return f"execution {self.execution!r} had not begun at {at}"

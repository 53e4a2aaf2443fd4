"""A schedule on the log: loaded, and changed one entry at a time by whoever was first."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from perdure.actors.inputs import Command
from perdure.actors.schedule_state import Schedule, fold, id_of
from perdure.actors.schedules import Input, decide
from perdure.errors import CorruptEntry, Deposed, VersionConflict
from perdure.events.entry import Entry, Recorded
from perdure.events.log import Log
from perdure.events.schedules import FireStarted
from perdure.events.snapshots import Snapshots

_FORMAT = 1
"""Raised whenever the state of schedules changes, or how events fold into it."""

_EVERY = 200  # entries after which a snapshot is saved


class Folded(msgspec.Struct, frozen=True):
    """A schedule as of its entry number `n`. prev: digest of that entry; epoch: of the newest owner.

    unsent: executions whose starts may not have been sent: those of the last entry of an owner, for each one sends what
    is owed before it appends anything; others only ask.
    """

    state: Schedule
    n: int = 0
    position: int = 0
    prev: str = ""
    epoch: int = 0
    unsent: tuple[str, ...] = ()
    format: int = _FORMAT

    def after(self, recorded: Recorded) -> "Folded":
        """Fold one more stored entry."""
        entry = recorded.entry
        if entry.n != self.n + 1:
            raise CorruptEntry(
                f"{recorded.execution!r}: entry {entry.n} follows entry {self.n}; what is between is missing"
            )
        started = tuple(event.execution for event in entry.events if isinstance(event, FireStarted))
        return Folded(
            fold(self.state, entry.events), entry.n, recorded.position, recorded.digest, max(self.epoch, entry.epoch),
            started if entry.epoch else self.unsent,
        )  # fmt: skip


async def _free() -> None:
    """Let everything pass: whoever only asks for changes owns nothing."""


class ScheduleLog:
    """One schedule. epoch: the owner's that sends what it owes; 0 for others, who may change it but send nothing."""

    def __init__(
        self, name: str, log: Log, snapshots: Snapshots, epoch: int = 0, fence: Callable[[], Awaitable[None]] = _free
    ) -> None:
        self._id = id_of(name)
        self._log = log
        self._snapshots = snapshots
        self._epoch = epoch
        self._fence = fence
        self._new = Folded(Schedule(name))
        self._folded: Folded | None = None
        self._tail = 0

    async def load(self) -> Folded:
        """Return it as of now, or as of the last time that this was asked, if nobody else has written since then.

        Raises Deposed where a newer owner has it, and LogUnavailable.
        """
        if self._folded is not None:
            return self._folded
        folded, self._tail = await self._saved() or self._new, 0
        async for recorded in self._log.read(self._id, folded.position):
            folded = folded.after(recorded)
            self._tail += 1
        if self._epoch and folded.epoch > self._epoch:
            raise Deposed(f"{self._id!r} is owned by epoch {folded.epoch}, this is {self._epoch}")
        self._folded = folded
        return folded

    async def change(self, inputs: Sequence[Input]) -> bool:
        """Append what follows from inputs as one entry; False where another one was faster: load it again then."""
        folded = await self.load()
        now, state, events = datetime.now(UTC), folded.state, []
        for given in inputs:
            following = decide(state, given, now)
            state = fold(state, following)
            events += following
        if not events:
            return True
        causes = [given.id for given in inputs if isinstance(given, Command) and given.id]
        entry = Entry(uuid4().hex, folded.n + 1, folded.prev, now, list(events), causes, self._epoch)
        await self._fence()
        self._folded = None  # until it is known how it went
        try:
            recorded = await self._log.append(self._id, entry, folded.position)
        except VersionConflict:
            return False
        self._folded = folded.after(recorded)
        await self._save()
        return True

    async def fenced(self) -> None:
        """Return once this is known to be the owner; raise Deposed where it is not any more."""
        await self._fence()

    async def _saved(self) -> Folded | None:
        """Return the snapshot where it can be read, and the log still has the very entry that it ends with."""
        data = await self._snapshots.load(self._id)
        try:
            saved = msgspec.msgpack.decode(data, type=Folded) if data else None
        except msgspec.DecodeError:
            return None
        if saved is None or saved.format != _FORMAT:
            return None
        async for recorded in self._log.read(self._id, saved.position - 1, 1):
            if recorded.position == saved.position and recorded.digest == saved.prev:
                return saved
        return None

    async def _save(self) -> None:
        self._tail += 1
        if self._tail >= _EVERY and self._folded is not None:
            self._tail = 0
            await self._snapshots.save(self._id, msgspec.msgpack.encode(self._folded))

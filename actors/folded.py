"""An execution folded from its log: its state, and what its next entry needs to know."""

import msgspec
from immutables import Map

from perdure.actors.evolve import fold
from perdure.actors.state import (
    INITIAL,
    ExecutionState,
)
from perdure.errors import CorruptEntry
from perdure.events.entry import Entry, Recorded
from perdure.events.vocabulary import (
    ExecutionPurged,
)

REMEMBERED = 10_000
"""Commands that are remembered at least. An inbox repeats those that it has no acknowledgement for: fewer by far."""


class Folded(msgspec.Struct, frozen=True):
    """An execution as of its entry number `n`: its state, and what the next append needs to know.

    handled, before: ids of the commands already answered, the newest, and as many at most that were before. epoch: the
    newest owner's. last: the last entry as it is stored.
    """

    state: ExecutionState = INITIAL
    n: int = 0
    position: int = 0
    epoch: int = 0
    handled: Map[str, None] = Map()
    before: Map[str, None] = Map()
    last: Recorded | None = None

    @property
    def prev(self) -> str:
        """The digest of the last entry, which the next one names; "" before the first."""
        return self.last.digest if self.last is not None else ""

    def knows(self, command: str) -> bool:
        """Say whether a command was answered, unless many thousands were since."""
        return command in self.handled or command in self.before

    def after(self, recorded: Recorded, entry: Entry | None = None, state: ExecutionState | None = None) -> "Folded":
        """Fold one more stored entry; entry, state: it decoded, and the state after it, where they are known."""
        entry = entry or recorded.entry
        if entry.n != self.n + 1 and not any(isinstance(event, ExecutionPurged) for event in entry.events):
            raise CorruptEntry(
                f"execution {recorded.execution!r}: entry {entry.n} follows entry {self.n}; what is between is missing"
            )
        handled, before = self.handled, self.before
        if len(handled) >= REMEMBERED:
            handled, before = Map[str, None](), handled
        for cause in entry.causes:
            handled = handled.set(cause, None)
        return Folded(
            state=fold(entry.events, self.state) if state is None else state,
            n=entry.n,
            position=recorded.position,
            epoch=max(self.epoch, entry.epoch),
            handled=handled,
            before=before,
            last=recorded,
        )

"""The order in which calls that wait for an actor go on: by turns of executions, by priority, then by age. Pure.

Each waits at a place, which is the moment at which it came, one step of priority being worth a minute of waiting. Next
is the first place of all; but an execution that had a turn stands as if its calls had come at that moment. So ten
thousand calls of one execution do not delay the first call of another, a higher priority goes first, and whoever waits
for long enough comes before any newcomer.
"""

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Generic, NamedTuple, TypeVar

AGEING = 60.0  # seconds of waiting that are worth one step of priority
NORMAL = 5

Call = TypeVar("Call", bound=Hashable)


class _Place(NamedTuple):
    """A place in the line of one execution; lower ones come first. `number` tells in which order they came."""

    at: float
    number: int
    priority: int


class _Share:
    """What waits of one execution, and when it had its last turn."""

    def __init__(self) -> None:
        self.line: list[tuple[_Place, int]] = []
        self.served = float("-inf")
        self.turn = -1


class CallQueue(Generic[Call]):
    """Calls that wait. All times are seconds of one clock."""

    def __init__(self) -> None:
        self._count = count()
        self._places: dict[Call, tuple[_Place, str]] = {}
        self._calls: dict[int, Call] = {}
        self._shares: dict[str, _Share] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, call: object) -> bool:
        return call in self._places

    def __iter__(self) -> Iterator[Call]:
        """Yield all that wait by their places, which is their order but for the turns."""
        return iter(sorted(self._places, key=lambda call: self._places[call][0]))

    @property
    def urgency(self) -> float:
        """The first place of all, lower is more urgent; infinity where nothing waits."""
        return min((place.at for place, _ in self._places.values()), default=float("inf"))

    def add(self, call: Call, share: str, now: float, priority: int = NORMAL) -> None:
        """Let a call of an execution wait since `now`."""
        place = _Place(now - (priority - NORMAL) * AGEING, next(self._count), priority)
        self._places[call], self._calls[place.number] = (place, share), call
        heappush(self._shares.setdefault(share, _Share()).line, (place, place.number))

    def remove(self, call: Call) -> None:
        """Take out a call that waits; one that does not is no error."""
        if call in self._places:
            place, share = self._places.pop(call)
            del self._calls[place.number]
            self._tidy(share)

    def head(self) -> Call | None:
        """Return who is next, None where nothing waits."""
        share = min(self._shares.values(), key=self._rank, default=None)
        return self._calls[share.line[0][1]] if share is not None else None

    def take(self, now: float) -> Call:
        """Take out who is next; its execution has had a turn at `now`."""
        call = self.head()
        assert call is not None  # noqa: S101 (who takes has looked)
        share = self._shares[self._places[call][1]]
        share.served, share.turn = now, next(self._count)
        self.remove(call)
        return call

    def share_of(self, call: Call) -> str:
        """Return whose call waits."""
        return self._places[call][1]

    def _rank(self, share: _Share) -> tuple[float, int, _Place]:
        place = share.line[0][0]
        return max(place.at, share.served - (place.priority - NORMAL) * AGEING), share.turn, place

    def _tidy(self, name: str) -> None:
        """Drop what was taken out from the head of a line, and the line with its last call."""
        share = self._shares[name]
        while share.line and share.line[0][1] not in self._calls:
            heappop(share.line)
        if not share.line:
            del self._shares[name]

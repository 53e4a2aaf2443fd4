"""Small calls that travel together: how many, and what becomes of each. One word to Ray then carries many of them."""

import asyncio
from math import ceil
from typing import Any, NamedTuple

from perdure.actors.work import Work
from perdure.events.vocabulary import Error

LENGTH = 0.03  # seconds for which a batch may keep its first result back
MOST = 64  # calls in one
_QUICK = 0.005  # seconds that a call may take for its pool's calls to travel together
_WEIGHT = 0.3  # of the newest batch in the mean


class NotBegun(Exception):
    """A call was not begun, for others took longer than was thought: it has to wait for another turn."""


class TakesLong(Exception):
    """A call goes on, and is to be awaited by itself; the actor is its own from now on."""


class Slice(NamedTuple):
    """What came of a batch: outcomes of the first calls, the one that goes on ("" for none), and how long they took."""

    outcomes: list[tuple[Any, Error | None]]
    going_on: str
    seconds: float


class Pace:
    """How long calls of one pool take, as far as that was seen: seconds of each within its actor."""

    def __init__(self) -> None:
        self._mean: float | None = None

    @property
    def unknown(self) -> bool:
        """Whether nothing was seen yet."""
        return self._mean is None

    def took(self, seconds: float) -> None:
        """Take note of a call with its way to Ray and back, which says something only where that is short."""
        if self._mean is not None and seconds < self._mean:
            self.saw(1, seconds)

    def saw(self, calls: int, seconds: float) -> None:
        """Take note of how long some calls took together."""
        each = seconds / calls
        self._mean = each if self._mean is None else self._mean + _WEIGHT * (each - self._mean)

    def together(self, waiting: int, actors: int) -> int:
        """Return how many of the calls that wait travel together, so that every actor has of them; at least one."""
        if self._mean is None or self._mean > _QUICK:
            return 1
        return max(1, min(MOST, int(LENGTH / max(self._mean, LENGTH / MOST)), ceil(waiting / max(actors, 1))))


def may_travel(work: Work) -> bool:
    """Say whether a call may go with others: not one whose time is measured closely, or that was lost before."""
    node = work.node
    return not work.resumed and node.heartbeat is None and (node.timeout is None or node.timeout >= 1.0)


class Batch:
    """Calls that travel together; who made one awaits its outcome, or leaves it."""

    def __init__(self, ticket: str, works: list[Work]) -> None:
        self.works = {call_id(ticket, work): work for work in works}
        loop = asyncio.get_running_loop()
        self._outcomes: dict[str, asyncio.Future[tuple[Any, Error | None]]] = {
            call: loop.create_future() for call in self.works
        }

    @property
    def calls(self) -> list[tuple[str, Any, Any]]:
        """The calls as they are sent: id, arguments, context."""
        return [(call, work.input, work.context()) for call, work in self.works.items()]

    async def outcome(self, call: str) -> tuple[Any, Error | None]:
        """Return what came of a call; raise NotBegun, TakesLong or WorkerLost."""
        return await self._outcomes[call]

    def leave(self, call: str) -> None:
        """Take note that nobody waits for a call any more."""
        self._outcomes[call].cancel()

    def is_left(self, call: str) -> bool:
        """Say whether nobody waits for a call any more."""
        return self._outcomes[call].cancelled()

    def settle(self, came: Slice) -> None:
        """Tell everybody what came of the calls."""
        for number, (call, outcome) in enumerate(self._outcomes.items()):
            if outcome.done():
                continue
            if number < len(came.outcomes):
                outcome.set_result(came.outcomes[number])
            else:
                outcome.set_exception(TakesLong() if call == came.going_on else NotBegun())

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits still that there is no outcome."""
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error)


def call_id(ticket: str, work: Work) -> str:
    """Return the name of a call within its actor."""
    return f"{ticket}/{work.execution}/{work.path}"

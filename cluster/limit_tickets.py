"""The tickets that attempts of one process have at limits."""

import asyncio
from collections.abc import Awaitable, Callable

from perdure.actors.limit_facts import Rule, Ticket

LetGo = Callable[[str, "Entry", float | None], None]
"""Gives a ticket back: the limit, the ticket, and how much was taken in truth, where that is known."""


class Entry:
    """One ticket of this process. settled: done once it is held, or with the error for which it never will be.

    lost: gets the error for which an attempt has to stop.
    """

    def __init__(self, ticket: Ticket, rule: Rule) -> None:
        self.ticket, self.rule = ticket, rule
        self.held = False
        self.before = 0
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hold(self) -> None:
        """Let whoever waits go on."""
        self.held = True
        if not self.settled.done():
            self.settled.set_result(None)

    def end(self, error: Exception) -> None:
        """Let whoever waits, or works, hear that it is over."""
        for each in (self.lost, self.settled):
            if not each.done():
                each.set_exception(error)
                each.exception()  # whoever does not look has gone


class Leases:
    """What one attempt holds; see limiting.Leases."""

    def __init__(self, let_go: LetGo) -> None:
        self._let_go = let_go
        self.entries: list[tuple[str, Entry]] = []

    @property
    def lost(self) -> Awaitable[None]:
        """See limiting.Leases."""
        return self._first_lost()

    async def _first_lost(self) -> None:
        done, _ = await asyncio.wait(
            {entry.lost for _, entry in self.entries}, return_when=asyncio.FIRST_COMPLETED
        )  # fmt: skip
        for each in done:
            each.result()

    def give_back(self, spent: dict[str, float]) -> None:
        """See limiting.Leases."""
        for group, entry in self.entries:
            self._let_go(group, entry, spent.get(group))

"""Leases: the commands that made executions active, and what embodies these."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from nats.aio.msg import Msg

from perdure.actors.inputs import Command
from perdure.cluster.inbox import lane_in


class Embodied(Protocol):
    """An execution that acts, in this process or in one of its own."""

    async def run(self, *first: Command) -> bool:
        """Act until the execution ends or can be left; return whether there is one: False where it never began."""
        ...

    async def tell(self, given: Command) -> bool:
        """Hand over a command; False when the execution has stopped acting."""
        ...

    def hurry(self) -> None:
        """Have it leave at once when it is quiet: others wait for its place."""
        ...

    def leave(self) -> None:
        """Have it begin nothing more, and leave as soon as what is under way has come to its end."""
        ...


class Lease:
    """The command that made an execution active: acknowledged only when the execution ends or is left.

    leaving: its lane goes to another owner,
    and with it the lease. told: the commands that came since and are not decided yet, in their order. over: the
    execution was left, and they are told to the next one.
    """

    def __init__(self, message: Msg, embody: Callable[[], Embodied]) -> None:
        self.message = message
        self.lane = lane_in(message.subject)
        self.leaving = False
        self.over = False
        self.told: dict[int, Msg] = {}
        self.task: asyncio.Task[None]
        self._embody = embody
        self._execution: Embodied | None = None
        self._renewed: asyncio.Event | None = None

    def embodied(self) -> Embodied:
        """Return what embodies the execution, made when it is first asked for."""
        if self._execution is None:
            self._execution = self._embody()
            if self.leaving:
                self._execution.leave()
        return self._execution

    def renew(self) -> None:
        """Have the execution embodied anew."""
        self._execution = None
        self._tell_renewed()

    def end(self) -> None:
        """Take note that the execution was left."""
        self.over = True
        self._tell_renewed()

    @property
    def renewed(self) -> asyncio.Event:
        """Set when what embodies the execution now is replaced, or has ended."""
        if self._renewed is None:  # few ever ask
            self._renewed = asyncio.Event()
        return self._renewed

    def _tell_renewed(self) -> None:
        if self._renewed is not None:
            self._renewed.set()
            self._renewed = None

    def leave(self) -> None:
        """Have the execution leave for another owner, once what is under way has come to its end."""
        self.leaving = True
        self.embodied().leave()

    def hurry(self) -> None:
        """Have the execution leave at once when it is quiet."""
        if self._execution is not None:
            self._execution.hurry()


def sequence(message: Msg) -> int:
    """Return a command's place in the inbox, the same however often it is delivered."""
    return message.metadata.sequence.stream

"""What a host and the keeper of all node actors say to each other."""

from typing import Any, NamedTuple, Protocol

from ray.actor import ActorHandle

from perdure.actors.call_queue import NORMAL
from perdure.actors.demands import Demand
from perdure.actors.node_process import NodeProcess
from perdure.events.vocabulary import Error

RUNS = "\n"
"""What stands between the runs for which one ticket is held."""


class Granted(NamedTuple):
    """An actor for one call. stops: whether its tool can hear that it is to stop."""

    actor: "ActorHandle[NodeProcess]"
    stops: bool


class NotGranted(NamedTuple):
    """Why a call gets no actor: how the process was lost as it started, or the error of it; neither if taken back."""

    lost: str = ""
    error: Error | None = None


class Heard(NamedTuple):
    """What the keeper tells a holder of tickets.

    waits: for what each ticket waits. pressed: the pools that others wait for. losses: how many node actors have died
    with calls. lost: the runs that were lost so, and how; none where the holder has heard of all.
    """

    waits: dict[str, str]
    pressed: list[str]
    losses: int
    lost: dict[str, str]


class Keeper(Protocol):
    """The actor that keeps all pools; each method is called by `remote`."""

    def ask(
        self, ticket: str, holder: str, demand: Demand, alone: bool, share: str = "", priority: int = NORMAL
    ) -> Any:
        """Give Granted when there is an actor for the call, or NotGranted; `share`: for which execution it is."""

    def release(self, ticket: str, spoiled: bool) -> Any:
        """End a call, or take back a question; a spoiled actor is killed."""

    def hear(self, holder: str, runs: dict[str, str], more: dict[str, int], losses: int) -> Any:
        """Take note that a holder of tickets lives, what each is held for now, and how many more wait; give Heard.

        runs: those that each ticket is for, with RUNS between them. more: calls without a ticket yet, by pool. losses:
        those that it has heard of.
        """

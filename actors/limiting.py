"""What is said between a limit and those who ask it, and the port through which executions do."""

from collections.abc import Awaitable
from typing import Any, Literal, Protocol

import msgspec

from perdure.actors.limit_facts import Rule, Ticket
from perdure.definitions.limits import PlanLimit
from perdure.errors import PerdureError
from perdure.events.vocabulary import LimitClaim


class Superseded(PerdureError):
    """A newer one came to a limit at which the older one is cancelled."""


class LimitUnknown(PerdureError):
    """A limit is the cluster's, and its settings do not say how much it gives."""


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a ticket stands; see scheduling.Standing."""

    state: Literal["held", "waiting", "superseded", "gone"]
    before: int = 0
    by: str = ""


class _Request(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of all requests to a limit."""


class Ask(_Request, frozen=True):
    """Take a ticket in; the answer is its Standing, `gone` where it is rejected."""

    ticket: Ticket
    rule: Rule


class GiveBack(_Request, frozen=True):
    """Take a ticket back, from its holder; cost: what was taken of a rate in truth. The answer is its Standing."""

    ticket: str
    holder: str = ""
    cost: float | None = None


class Beat(_Request, frozen=True):
    """Hear that a process lives; the answer is the Standing of each of its tickets."""

    holder: str
    tickets: list[str] = []


class Report(_Request, frozen=True):
    """Say how the limit stands; the answer is JSON for people and programs."""


Request = Ask | GiveBack | Beat | Report


class Pushed(msgspec.Struct, frozen=True):
    """Where a ticket stands from now on, told to its holder."""

    limit: str
    ticket: str
    standing: Standing


class Limits(Protocol):
    """The limits as an execution asks them."""

    async def admit(self, ticket: Ticket, limit: PlanLimit, began: float) -> Standing:
        """Ask for a whole execution to be let in; where it waits, an AdmitExecution follows.

        Raises LogUnavailable while nobody can answer.
        """
        ...

    async def give_back(self, limit: str, ticket: str) -> None:
        """Give back what an execution holds, or let it wait no more; raises LogUnavailable as `admit`."""
        ...

    async def acquire(self, work: Any) -> "Leases":
        """Return what an attempt claims, once it has all of it.

        Raises QueueTimeout, LimitReached, Superseded or LimitUnknown.
        """
        ...


class Leases(Protocol):
    """What one attempt holds of limits. lost: ends with the error for which it has to stop."""

    @property
    def lost(self) -> Awaitable[None]:
        """Ends with an error when something of it is not held any more."""
        ...

    def give_back(self, spent: dict[str, float]) -> None:
        """Give all of it back, and say of the rates among them how much was taken in truth, where that is known."""
        ...


def rule_of(given: Any, rank: tuple[int, float]) -> Rule:
    """Return the rule that a definition or a setting (`Given`) means."""
    return Rule(given.concurrency, given.rate, given.per, given.burst, given.at_limit, dict(given.weights), rank)


def claimed(claim: LimitClaim) -> str:
    """Name a limit as people read it."""
    return f"limit {claim.limit!r}" + (f" (key {claim.key!r})" if claim.key else "")

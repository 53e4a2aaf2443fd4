"""What happens at a limit, as it is recorded: rules, tickets, and what became of them."""

from typing import Any, Literal

import msgspec

AtLimit = Literal["queue", "reject", "cancel_older"]


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much a limit gives. per: seconds; weights: of shares, 1 where absent.

    rank: of several rules for one name the highest counts: settings before definitions, newer before older.
    """

    slots: int | None = None
    rate: float | None = None
    per: float = 1.0
    burst: float | None = None
    at_limit: AtLimit = "queue"
    weights: dict[str, float] = {}
    rank: tuple[int, float] = (0, 0.0)

    @property
    def most(self) -> float:
        """How much of a rate may be taken at once."""
        return self.burst if self.burst is not None else self.rate or 0.0

    def same_as(self, other: "Rule") -> bool:
        """Say whether it gives the same as another, whoever declared it."""
        return msgspec.structs.replace(self, rank=other.rank) == other


class Ticket(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asks for a limit: an attempt at a node, or a whole execution, which has no holder and keeps what it has.

    since: UTC, in seconds since 1970. holder: the process that does the work; what it holds lapses with it. lane: of
    the commands of the execution.
    """

    id: str
    execution: str
    since: float
    key: str = ""
    share: str = ""
    cost: float = 1.0
    priority: int = 5
    node: str = ""
    holder: str = ""
    lane: str = ""


class _Fact(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of all facts."""


class Opened(_Fact, frozen=True):
    """A limiter took over: whatever the one before decides from here on is refused by the log."""

    owner: str


class Ruled(_Fact, frozen=True):
    """The limit gives so much from here on."""

    rule: Rule


class Queued(_Fact, frozen=True):
    """An execution waits; attempts that wait are asked for again by their processes, and not recorded."""

    ticket: Ticket


class Granted(_Fact, frozen=True):
    """A ticket has what it asked for."""

    ticket: Ticket


class Moved(_Fact, frozen=True):
    """An attempt goes on in another process, with what it holds."""

    key: str
    ticket: str
    holder: str


class Superseded(_Fact, frozen=True):
    """A ticket has to go, for a newer one came."""

    key: str
    ticket: Ticket
    by: str


class Returned(_Fact, frozen=True):
    """A ticket is given back, or waits no more. cost: what was taken of a rate in truth, where that is known."""

    key: str
    ticket: str
    cost: float | None = None


class Told(_Fact, frozen=True):
    """An execution that waited has the command by which it is let in."""

    key: str
    ticket: str


class Kept(_Fact, frozen=True):
    """A part of all that is known, so that what came before can go. last: it is whole with this part."""

    rule: Rule
    keys: dict[str, Any]
    first: bool = False
    last: bool = False


Fact = Opened | Ruled | Queued | Granted | Moved | Superseded | Returned | Told | Kept


class LimitEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a limit's log: what was decided together, and when (UTC, in seconds since 1970)."""

    at: float
    facts: list[Fact]
    v: int = 1

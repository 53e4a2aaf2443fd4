"""Who gets how much of a limit, and when: decisions about tickets, of which the facts are recorded. Pure.

Who waits is served by shares in turn (weighted, in virtual time), and within a share by priority and age: one step of
priority is worth so many seconds of waiting, so that whoever waits long enough comes before any newcomer.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from math import inf
from typing import Literal, NamedTuple

import msgspec

from perdure.actors.limit_facts import Fact, Granted, Moved, Queued, Returned, Rule, Ruled, Superseded, Ticket
from perdure.actors.limit_state import Group, Keyed, apply

AGEING = 60.0  # seconds of waiting that are worth one step of priority
_EPSILON = 1e-9


class Standing(NamedTuple):
    """Where a ticket stands: `gone` is what was refused, given back, lapsed, or never asked for.

    before: how many of its share go before it. by: who has superseded it.
    """

    state: Literal["held", "waiting", "superseded", "gone"]
    before: int = 0
    by: str = ""


class _Place(NamedTuple):
    """A place in a line; lower ones come first."""

    order: float
    since: float
    ticket: str


def place_of(ticket: Ticket, ageing: float) -> _Place:
    """Return a ticket's place: it never changes, for all who wait grow older alike. ageing: inf for none."""
    if ageing == inf:
        return _Place(-ticket.priority, ticket.since, ticket.id)
    return _Place(ticket.since - ticket.priority * ageing, ticket.since, ticket.id)


class Scheduler:
    """One limit at work. ttl: seconds without a word of a process after which what it holds lapses.

    opens: before this time nothing is given, for who waits has still to ask again. Attempts that wait, and the
    processes that were heard of, are forgotten with it; all else is in the state, which is the fold of the facts.
    """

    def __init__(
        self, group: Group, now: float, *, ageing: float = AGEING, ttl: float = 5.0, opens: float = 0.0
    ) -> None:
        self.group = group
        self._ageing = ageing
        self._ttl = ttl
        self._opens = opens
        self._began = now
        self._lines: dict[str, dict[str, list[_Place]]] = {}
        self._waiting: dict[str, Ticket] = {}
        self._key_of: dict[str, str] = {}
        self._heard: dict[str, float] = {}
        for key, keyed in group.keys.items():
            for ticket in (*keyed.held.values(), *keyed.out.values()):
                self._key_of[ticket.id] = key
            for ticket in keyed.queue.values():
                self._line_up(ticket)

    def ask(self, ticket: Ticket, rule: Rule, now: float) -> list[Fact]:
        """Take a ticket in: it is granted, waits, or is `gone` at once where the rule says so; see `standing`."""
        facts = list(self._ruled(rule, now))
        self.hear(ticket.holder, now)
        if ticket.id in self._key_of:
            return facts + self._known(ticket, now)
        keyed, rule = self.group.keyed(ticket.key), self._rule
        if rule.at_limit == "reject" and (self._lines.get(ticket.key) or not self._fits(keyed, ticket, now)):
            return facts
        self._line_up(ticket)
        facts += self._settled(ticket.key, now, at_once=rule.at_limit == "reject")
        if ticket.id in self._waiting:
            if not ticket.holder:
                facts.append(self._do(Queued(ticket), now))
            if rule.at_limit == "cancel_older":
                facts += self._supersede(ticket, now)
        return facts

    def give_back(self, ticket: str, holder: str, cost: float | None, now: float) -> list[Fact]:
        """Take back what a ticket holds, or let it wait no more; who is not its holder any more changes nothing."""
        key = self._key_of.get(ticket)
        if key is None:
            return []
        keyed = self.group.keyed(key)
        known = keyed.held.get(ticket) or keyed.out.get(ticket) or self._waiting.get(ticket)
        if known is not None and known.holder != holder:
            return []
        return self._gone(key, ticket, cost, now) + self._settled(key, now)

    def hear(self, holder: str, now: float) -> None:
        """Take note that a process lives."""
        if holder:
            self._heard[holder] = now

    def tick(self, now: float) -> list[Fact]:
        """Let time pass: what silent processes hold lapses, and rates fill up."""
        facts: list[Fact] = []
        for ticket in [each for each in self._tickets() if each.holder and self._silent(each.holder, now)]:
            facts += self._gone(ticket.key, ticket.id, None, now)
        self._heard = {holder: at for holder, at in self._heard.items() if now - at < self._ttl}
        for key in [key for key, lines in self._lines.items() if lines]:
            facts += self._settled(key, now)
        return facts

    def standing(self, ticket: str) -> Standing:
        """Say where a ticket stands."""
        key = self._key_of.get(ticket)
        if key is None:
            return Standing("gone")
        keyed = self.group.keyed(key)
        if ticket in keyed.superseded:
            return Standing("superseded", by=keyed.superseded[ticket])
        if ticket in keyed.held:
            return Standing("held")
        waiting = self._waiting[ticket]
        return Standing("waiting", bisect_left(self._lines[key][waiting.share], place_of(waiting, self._ageing)))

    def next_due(self, now: float) -> float | None:
        """Return when something can be granted though nobody says a word; None where that is never so."""
        dues = [due for key, lines in self._lines.items() if lines and (due := self._due(key, now)) is not None]
        return min(dues, default=None)

    def waiting(self, key: str) -> list[Ticket]:
        """Return those who wait for a key's value, as they would be served if there were one share."""
        places = sorted(place for line in self._lines.get(key, {}).values() for place in line)
        return [self._waiting[place.ticket] for place in places]

    def compact(self, now: float) -> None:
        """Forget the values of the key of which nothing is to be known any more."""
        for key in [key for key, keyed in self.group.keys.items() if keyed.is_idle(self._rule, now)]:
            if not self._lines.get(key):
                del self.group.keys[key]
                self._lines.pop(key, None)

    @property
    def _rule(self) -> Rule:
        assert self.group.rule is not None  # noqa: S101 (the first who asks brings one)
        return self.group.rule

    def _do(self, fact: Fact, now: float) -> Fact:
        apply(self.group, fact, now)
        return fact

    def _ruled(self, rule: Rule, now: float) -> Iterator[Fact]:
        known = self.group.rule
        if known is None or (rule.rank > known.rank and not rule.same_as(known)):
            yield self._do(Ruled(rule), now)
            for key in list(self._lines):
                yield from self._settled(key, now)

    def _known(self, ticket: Ticket, now: float) -> list[Fact]:
        """Let a ticket that is asked for again be its new holder's, with what it has or its place in the line."""
        keyed = self.group.keyed(self._key_of[ticket.id])
        if ticket.id in self._waiting:
            known = self._waiting[ticket.id]
            self._waiting[ticket.id] = msgspec.structs.replace(known, holder=ticket.holder)
            return []
        if ticket.id in keyed.held and keyed.held[ticket.id].holder != ticket.holder:
            return [self._do(Moved(self._key_of[ticket.id], ticket.id, ticket.holder), now)]
        return []

    def _line_up(self, ticket: Ticket) -> None:
        self._waiting[ticket.id], self._key_of[ticket.id] = ticket, ticket.key
        line = self._lines.setdefault(ticket.key, {}).setdefault(ticket.share, [])
        insort(line, place_of(ticket, self._ageing))

    def _leave_line(self, ticket: Ticket) -> None:
        del self._waiting[ticket.id]
        lines = self._lines[ticket.key]
        line = lines[ticket.share]
        del line[bisect_left(line, place_of(ticket, self._ageing))]
        if not line:
            del lines[ticket.share]

    def _settled(self, key: str, now: float, *, at_once: bool = False) -> list[Fact]:
        """Grant whatever can be granted of a key's value."""
        facts: list[Fact] = []
        keyed = self.group.keyed(key)
        while (at_once or now >= self._opens) and (first := self._first(key, keyed)) is not None:
            if not self._fits(keyed, first, now):
                break
            self._leave_line(first)
            facts.append(self._do(Granted(first), now))
        return facts

    def _first(self, key: str, keyed: Keyed) -> Ticket | None:
        """Return whose turn it is: of the share that has had least, the first in its line."""
        lines = self._lines.get(key)
        if not lines:
            return None
        share = min(lines, key=lambda each: (keyed.turn_of(each), lines[each][0]))
        return self._waiting[lines[share][0].ticket]

    def _fits(self, keyed: Keyed, ticket: Ticket, now: float) -> bool:
        rule = self._rule
        if rule.slots is not None and len(keyed.held) >= rule.slots:
            return False
        return rule.rate is None or keyed.level_at(rule, now) >= min(ticket.cost, rule.most) - _EPSILON

    def _due(self, key: str, now: float) -> float | None:
        keyed, rule = self.group.keyed(key), self._rule
        first = self._first(key, keyed)
        if first is None or (rule.slots is not None and len(keyed.held) >= rule.slots):
            return None
        if rule.rate is None:
            return max(now, self._opens)
        missing = max(0.0, min(first.cost, rule.most) - keyed.level_at(rule, now))
        return max(now + missing * rule.per / rule.rate, self._opens)

    def _supersede(self, newcomer: Ticket, now: float) -> list[Fact]:
        """Have the oldest go, held or waiting, so that no more are left than there is room for."""
        key, facts = newcomer.key, list[Fact]()
        keyed, slots = self.group.keyed(key), self._rule.slots
        staying = [each for each in keyed.held.values() if each.id not in keyed.superseded]
        staying += [self._waiting[place.ticket] for line in self._lines[key].values() for place in line]
        for ticket in sorted(staying, key=lambda each: (each.since, each.id))[: len(staying) - (slots or len(staying))]:
            if ticket.id in self._waiting:
                self._leave_line(ticket)
            facts.append(self._do(Superseded(key, ticket, newcomer.id), now))
        return facts

    def _gone(self, key: str, ticket: str, cost: float | None, now: float) -> list[Fact]:
        waiting, keyed = self._waiting.get(ticket), self.group.keyed(key)
        recorded = ticket in keyed.held or ticket in keyed.queue or ticket in keyed.out
        if waiting is not None:
            self._leave_line(waiting)
        self._key_of.pop(ticket, None)
        return [self._do(Returned(key, ticket, cost), now)] if recorded else []

    def _tickets(self) -> Iterable[Ticket]:
        for keyed in self.group.keys.values():
            yield from keyed.held.values()
            yield from keyed.out.values()
        yield from self._waiting.values()

    def _silent(self, holder: str, now: float) -> bool:
        return now - self._heard.get(holder, self._began) >= self._ttl

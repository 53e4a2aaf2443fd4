"""The state of one limit: the fold of its facts, in place, for they are many and it is nobody else's."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from perdure.actors.limit_facts import (
    Fact,
    Granted,
    Kept,
    LimitEntry,
    Moved,
    Opened,
    Queued,
    Returned,
    Rule,
    Ruled,
    Superseded,
    Ticket,
    Told,
)


class Keyed(msgspec.Struct, omit_defaults=True):
    """What is known of one value of a limit's key.

    level: how much of the rate there was at the time `at`; None for all of it. turn, turns: the virtual time, and up to
    where each share has had its part of it. held: who has what they asked for. queue: executions that wait. out: those
    that a newer one has superseded before their turn came; superseded: by whom, of these and of those that hold.
    untold: executions that were let in after they had waited, and may not know it.
    """

    level: float | None = None
    at: float = 0.0
    turn: float = 0.0
    turns: dict[str, float] = {}
    held: dict[str, Ticket] = {}
    queue: dict[str, Ticket] = {}
    out: dict[str, Ticket] = {}
    superseded: dict[str, str] = {}
    untold: dict[str, Ticket] = {}

    def level_at(self, rule: Rule, now: float) -> float:
        """Return how much of the rate there is now; below nothing where a call took more than it had asked for."""
        if self.level is None or rule.rate is None:
            return rule.most
        return min(rule.most, self.level + max(0.0, now - self.at) * rule.rate / rule.per)

    def turn_of(self, share: str) -> float:
        """Return the virtual time at which a share has its next turn; one that was away has no claim on the past."""
        return max(self.turn, self.turns.get(share, 0.0))

    def is_idle(self, rule: Rule, now: float) -> bool:
        """Whether a new one would be just as good."""
        full = self.level is None or self.level_at(rule, now) >= rule.most
        return full and not (self.held or self.queue or self.out)


class Group(msgspec.Struct, omit_defaults=True):
    """All that is known of one limit."""

    rule: Rule | None = None
    keys: dict[str, Keyed] = {}
    building: dict[str, Keyed] | None = None

    def keyed(self, key: str) -> Keyed:
        """Return what is known of a value of its key."""
        found = self.keys.get(key)
        if found is None:
            found = self.keys[key] = Keyed()
        return found


def apply(group: Group, fact: Fact, at: float) -> None:
    """Take one fact into the state."""
    _APPLY[type(fact)](group, fact, at)


def replay(entries: Iterable[LimitEntry]) -> Group:
    """Return the state after all of these entries."""
    group = Group()
    for entry in entries:
        for fact in entry.facts:
            apply(group, fact, entry.at)
    return group


def parts_of(group: Group, size: int = 1000) -> list[Kept]:
    """Return the state as facts from which it can be made again, of at most so many keys and tickets each."""
    assert group.rule is not None  # noqa: S101 (whoever asks says the rule)
    chunks: list[dict[str, Any]] = [{}]
    room = size
    for key, keyed in group.keys.items():
        for part in _split(keyed, size):
            if room <= 0:
                chunks.append({})
                room = size
            if key in chunks[-1]:
                chunks.append({})
                room = size
            chunks[-1][key] = msgspec.to_builtins(part)
            room -= 1 + len(part.held) + len(part.queue)
    last = len(chunks) - 1
    return [Kept(group.rule, chunk, number == 0, number == last) for number, chunk in enumerate(chunks)]


def _split(keyed: Keyed, size: int) -> Iterable[Keyed]:
    """Yield a key's state, and the rest of its tickets apart where they are too many for one message."""
    held, queue = list(keyed.held.items()), list(keyed.queue.items())
    yield msgspec.structs.replace(keyed, held=dict(held[:size]), queue=dict(queue[:size]))
    for start in range(size, max(len(held), len(queue)), size):
        end = start + size
        yield Keyed(held=dict(held[start:end]), queue=dict(queue[start:end]))


def _opened(_group: Group, _fact: Opened, _at: float) -> None:
    return


def _ruled(group: Group, fact: Ruled, at: float) -> None:
    before, group.rule = group.rule, fact.rule
    for keyed in group.keys.values():
        if before is not None and keyed.level is not None:
            keyed.level, keyed.at = min(keyed.level_at(before, at), fact.rule.most), at


def _queued(group: Group, fact: Queued, _at: float) -> None:
    group.keyed(fact.ticket.key).queue[fact.ticket.id] = fact.ticket


def _granted(group: Group, fact: Granted, at: float) -> None:
    rule, ticket = group.rule, fact.ticket
    keyed = group.keyed(ticket.key)
    assert rule is not None  # noqa: S101 (nothing is granted without one)
    if keyed.queue.pop(ticket.id, None) is not None:
        keyed.untold[ticket.id] = ticket
    keyed.held[ticket.id] = ticket
    charge = 1.0
    if rule.rate is not None:
        keyed.level, keyed.at, charge = keyed.level_at(rule, at) - ticket.cost, at, ticket.cost
    keyed.turn = keyed.turn_of(ticket.share)
    keyed.turns = {share: turn for share, turn in keyed.turns.items() if turn > keyed.turn}
    keyed.turns[ticket.share] = keyed.turn + charge / rule.weights.get(ticket.share, 1.0)


def _moved(group: Group, fact: Moved, _at: float) -> None:
    held = group.keyed(fact.key).held
    held[fact.ticket] = msgspec.structs.replace(held[fact.ticket], holder=fact.holder)


def _superseded(group: Group, fact: Superseded, _at: float) -> None:
    keyed, ticket = group.keyed(fact.key), fact.ticket
    keyed.superseded[ticket.id] = fact.by
    keyed.queue.pop(ticket.id, None)
    if ticket.id not in keyed.held:
        keyed.out[ticket.id] = ticket


def _returned(group: Group, fact: Returned, at: float) -> None:
    keyed, rule = group.keyed(fact.key), group.rule
    ticket = keyed.held.pop(fact.ticket, None)
    for each in (keyed.queue, keyed.out, keyed.superseded, keyed.untold):
        each.pop(fact.ticket, None)
    if ticket is not None and fact.cost is not None and rule is not None and rule.rate is not None:
        keyed.level, keyed.at = min(rule.most, keyed.level_at(rule, at) + ticket.cost - fact.cost), at


def _told(group: Group, fact: Told, _at: float) -> None:
    group.keyed(fact.key).untold.pop(fact.ticket, None)


def _kept(group: Group, fact: Kept, _at: float) -> None:
    """Take in a part; only the last one makes the whole count, for who wrote them may have died in between."""
    if fact.first or group.building is None:
        group.building = {}
    for key, data in fact.keys.items():
        part = msgspec.convert(data, Keyed)
        if (known := group.building.get(key)) is not None:
            known.held.update(part.held)
            known.queue.update(part.queue)
        else:
            group.building[key] = part
    if fact.last:
        group.rule, group.keys, group.building = fact.rule, group.building, None


_APPLY: dict[type, Callable[[Group, Any, float], None]] = {
    Opened: _opened,
    Ruled: _ruled,
    Queued: _queued,
    Granted: _granted,
    Moved: _moved,
    Superseded: _superseded,
    Returned: _returned,
    Told: _told,
    Kept: _kept,
}

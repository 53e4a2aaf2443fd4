"""How a limit stands, as data for people and programs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from perdure.actors.limit_facts import Rule, Ticket
from perdure.actors.limit_state import Group, Keyed

_SHOWN = 100  # of those who wait for one value of a key, or hold it
_KEYS = 50  # values of a key, those for which most wait


def report(limit: str, group: Group, waiting: Mapping[str, list[Ticket]], now: float) -> dict[str, Any]:
    """Return who holds a limit, who waits for it and why, by the values of its key."""
    rule = group.rule
    used = {key: each for key, each in group.keys.items() if waiting.get(key) or not each.is_idle(rule or Rule(), now)}
    first = sorted(used, key=lambda key: (-len(waiting.get(key, [])), key))[:_KEYS]
    keys = [_of_key(group, key, used[key], waiting.get(key, []), now) for key in sorted(first)]
    return {"limit": limit, "gives": _given(rule) if rule is not None else {}, "of_keys": len(used), "keys": keys}


def _given(rule: Rule) -> dict[str, Any]:
    """Return how much a limit gives, in the words of definitions."""
    given: dict[str, Any] = {} if rule.slots is None else {"concurrency": rule.slots}
    if rule.rate is not None:
        given |= {"rate": rule.rate, "per": rule.per, "burst": rule.most}
    return {**given, "at_limit": rule.at_limit, "of": "settings" if rule.rank[0] else "a definition"}


def _of_key(group: Group, key: str, keyed: Keyed, waiting: list[Ticket], now: float) -> dict[str, Any]:
    rule = group.rule
    told: dict[str, Any] = {
        "key": key, "held": [_shown(each, keyed) for each in list(keyed.held.values())[:_SHOWN]],
        "holds": len(keyed.held),
        "waiting": [_shown(each, keyed) for each in waiting[:_SHOWN]], "waits": len(waiting),
    }  # fmt: skip
    if rule is not None and rule.rate is not None:
        told["left"] = round(keyed.level_at(rule, now), 3)
    if waiting and rule is not None:
        full = rule.slots is not None and len(keyed.held) >= rule.slots
        told["why"] = f"all {rule.slots} are held" if full else "the rate is used up"
    return told


def _shown(ticket: Ticket, keyed: Keyed) -> dict[str, Any]:
    shown: dict[str, Any] = {"execution": ticket.execution}
    if ticket.node:
        shown["node"] = ticket.node
    shown |= {"priority": ticket.priority, "since": datetime.fromtimestamp(ticket.since, UTC).isoformat()}
    if ticket.share:
        shown["share"] = ticket.share
    if ticket.cost != 1.0:
        shown["cost"] = ticket.cost
    if ticket.id in keyed.superseded:
        shown["superseded_by"] = keyed.superseded[ticket.id]
    return shown

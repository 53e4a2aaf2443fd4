"""The pools of node actors as decisions: told of calls, ends and time, they answer what to spawn, grant and kill. Pure.

A call asks with a ticket. It is granted a ready actor of its pool, or waits in order. Of what waits, as many actors are
spawned as the pool's size allows; whether the cluster has room for them is for Ray to say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Literal, NamedTuple

from perdure.actors.call_queue import NORMAL, CallQueue
from perdure.actors.demands import Demand

PRESSURE = 1.0  # seconds that a spawned actor waits for resources before idle ones of other pools make room
FAIRNESS = 30.0  # seconds after which busy ones do, as soon as a call of theirs ends
LAPSE = 10.0  # seconds without a word from who holds tickets until they are void
REPORTS = "perdure.pools"  # the subject on which the keeper says how the pools stand
STARTING = "its node actor is starting"
MAX_STARTING = 16  # of one pool at once
CLOSE = 5.0  # seconds between the ages of two pools' calls for which Ray may choose between them


class Spawn(NamedTuple):
    """Start an actor for a pool."""

    actor: str
    demand: Demand


class Grant(NamedTuple):
    """Let a ticket's call be made on an actor."""

    ticket: str
    actor: str


class Kill(NamedTuple):
    """End an actor."""

    actor: str


Action = Spawn | Grant | Kill


@dataclass(eq=False)
class _Ticket:
    id: str
    pool: str
    holder: str
    since: float
    alone: bool
    actor: str | None = None


@dataclass
class _Actor:
    id: str
    pool: str
    since: float
    stage: Literal["pending", "starting", "ready"] = "pending"
    tickets: set[str] = field(default_factory=set)
    spoiled: bool = False
    alone: bool = False


@dataclass
class _Pool:
    demand: Demand
    waiting: CallQueue[_Ticket] = field(default_factory=CallQueue)
    actors: dict[str, _Actor] = field(default_factory=dict)
    denied: float | None = None
    """Since when no actor is asked of Ray for it, as there is no room and another pool is more urgent."""

    @property
    def coming(self) -> list[_Actor]:
        return [each for each in self.actors.values() if each.stage != "ready"]

    @property
    def idle(self) -> list[_Actor]:
        """Those without a call, longest first."""
        free = [each for each in self.actors.values() if each.stage == "ready" and not each.tickets]
        return sorted(free, key=lambda each: each.since)

    @property
    def spare(self) -> list[_Actor]:
        """The idle ones that need not be kept."""
        return self.idle[: max(0, len(self.actors) - self.demand.min)]

    @property
    def first(self) -> float:
        """How urgent it is: when its longest call came, with a minute for each step of priority."""
        return self.waiting.urgency

    @property
    def pending(self) -> list[_Actor]:
        return [each for each in self.actors.values() if each.stage == "pending"]

    @property
    def full(self) -> bool:
        """Whether it may have no more actors than have their resources."""
        return self.demand.max is not None and len(self.actors) - len(self.pending) >= self.demand.max

    def starved(self, now: float, seconds: float) -> bool:
        """Whether calls wait for an actor that has waited for resources so long, or was not even asked of Ray."""
        since = [each.since for each in self.pending] + ([] if self.denied is None else [self.denied])
        return bool(self.waiting and since and now - min(since) >= seconds)


class PoolReport(NamedTuple):
    """How one pool stands. busy: actors with calls. waits: for what its first call waits, "" where it does not."""

    place: str
    needs: str
    actors: int
    busy: int
    coming: int
    calls: int
    queued: int
    waits: str


class Pools:
    """All pools of a cluster. idle: seconds. places: how many actors of pools that take no resources work at once."""

    def __init__(self, idle: float, places: int) -> None:
        self._idle = idle
        self.places = places
        self._pools: dict[str, _Pool] = {}
        self._tickets: dict[str, _Ticket] = {}
        self._heard: dict[str, float] = {}
        self._more: dict[str, Mapping[str, int]] = {}
        self._count = 0
        self.totals: dict[str, float] | None = None
        """How much the cluster has of each resource in all, where that is known."""

    @property
    def holders(self) -> int:
        """How many hold tickets, or did a moment ago."""
        return len(self._heard)

    def ask(
        self, ticket: str, holder: str, demand: Demand, now: float, *, alone: bool = False, share: str = "",
        priority: int = NORMAL,
    ) -> list[Action]:  # fmt: skip
        """Ask for an actor for a call of an execution, `share`; where it is `alone`, with no other call beside it."""
        self._heard[holder] = now
        pool = self._pools.setdefault(demand.key, _Pool(demand))
        asked = self._tickets[ticket] = _Ticket(ticket, demand.key, holder, now, alone)
        pool.waiting.add(asked, share or holder, now, priority)
        return self._settled(now)

    def placed(self, actor: str, now: float) -> list[Action]:
        """Take note that an actor has its resources and its process, and begins to load its tool."""
        if (found := self._actor(actor)) is not None:
            found.stage, found.since = "starting", now
        return self._settled(now)

    def ready(self, actor: str, now: float) -> list[Action]:
        """Take note that an actor takes calls."""
        if (found := self._actor(actor)) is not None:
            found.stage, found.since = "ready", now
        return self._settled(now)

    def blamed(self, actor: str) -> str | None:
        """Return the ticket for which an actor that could not start was started, which is told why; take it out."""
        found = self._actor(actor)
        waiting = self._pools[found.pool].waiting if found is not None else CallQueue[_Ticket]()
        asked = waiting.head()
        if asked is None:
            return None
        waiting.remove(asked)
        del self._tickets[asked.id]
        return asked.id

    def tickets_of(self, actor: str) -> list[str]:
        """Return the tickets whose calls an actor has."""
        found = self._actor(actor)
        return sorted(found.tickets) if found is not None else []

    def gone(self, actor: str, now: float) -> list[Action]:
        """Take note that an actor is no more; those whose calls it had find out by themselves."""
        if (found := self._actor(actor)) is not None:
            for ticket in found.tickets:
                self._tickets.pop(ticket, None)
            del self._pools[found.pool].actors[actor]
        return self._settled(now)

    def release(self, ticket: str, now: float, *, spoiled: bool = False) -> list[Action]:
        """End a call, or give up waiting. spoiled: its actor takes no other call, and is killed when it has none."""
        asked = self._tickets.pop(ticket, None)
        if asked is None:
            return []
        self._pools[asked.pool].waiting.remove(asked)
        actions = self._let_go(asked, now, spoiled=spoiled) if asked.actor is not None else []
        return actions + self._settled(now)

    def hear(self, holder: str, now: float, more: Mapping[str, int] = MappingProxyType({})) -> None:
        """Take note that a holder of tickets lives, and how many calls wait there beyond its tickets, by pool."""
        self._heard[holder] = now
        self._more[holder] = more

    def tick(self, now: float) -> list[Action]:
        """Let time pass: holders that fell silent, idle actors, pools that get no room."""
        actions: list[Action] = []
        for holder in [each for each, at in self._heard.items() if now - at >= LAPSE]:
            del self._heard[holder]
            self._more.pop(holder, None)
            for ticket in [each.id for each in self._tickets.values() if each.holder == holder]:
                actions += self.release(ticket, now, spoiled=True)
        for pool in list(self._pools.values()):
            idle = self._idle if pool.demand.idle is None else pool.demand.idle
            actions += [self._kill(each) for each in pool.spare if now - each.since >= idle]
        actions += self._pressed(now) + self._settled(now)
        self._pools = {key: pool for key, pool in self._pools.items() if pool.waiting or pool.actors}
        return actions

    def why(self, ticket: str) -> str:
        """Say for what a call waits; STARTING where an actor starts for it that waits for nothing else, "" for none."""
        asked = self._tickets.get(ticket)
        if asked is None or asked.actor is not None:
            return ""
        if asked.id in self._served(self._pools[asked.pool]):
            return STARTING
        pool, demand = self._pools[asked.pool], self._pools[asked.pool].demand
        if demand.max is not None and len(pool.actors) >= demand.max and not pool.coming:
            return f"waiting for one of its {demand.max} node actors"
        if not demand.amounts and not demand.takes:
            return "waiting for a free CPU"
        return f"waiting for {demand.needs}{self._lacking(demand)}"

    def _lacking(self, demand: Demand) -> str:
        """Say of which resources a demand is for more than the whole cluster has."""
        if self.totals is None:
            return ""
        has = [
            f"{self.totals.get(name, 0):g} {name}"
            for name, amount in demand.amounts.items()
            if self.totals.get(name, 0) < amount
        ]
        return f"; the whole cluster has {' and '.join(has)}" if has else ""

    def reports(self) -> Iterator[PoolReport]:
        """Yield how every pool stands that has calls or actors."""
        for pool in self._pools.values():
            busy = [each for each in pool.actors.values() if each.tickets]
            calls = sum(len(each.tickets) for each in busy)
            waits = next((why for each in reversed(list(pool.waiting)) if (why := self.why(each.id))), "")
            queued = len(pool.waiting) + sum(more.get(pool.demand.key, 0) for more in self._more.values())
            if pool.actors or pool.waiting:
                yield PoolReport(
                    pool.demand.place, pool.demand.needs, len(pool.actors), len(busy), len(pool.coming), calls,
                    queued, waits,
                )  # fmt: skip

    def waits(self, holder: str) -> dict[str, str]:
        """Return for what each ticket of a holder waits that has no actor yet; see `why`."""
        return {
            each.id: self.why(each.id)
            for each in self._tickets.values()
            if each.holder == holder and each.actor is None
        }

    def pressed(self, holder: str) -> list[str]:
        """Return the pools whose actors a holder may not keep for its next call, for others could use them now."""
        pools = {self._tickets[each].pool for each in self._tickets if self._tickets[each].holder == holder}
        return [key for key in pools if self._is_pressed(self._pools[key], holder)]

    def _is_pressed(self, pool: _Pool, holder: str) -> bool:
        if any(each.holder != holder for each in pool.waiting):
            return True
        free = [] if pool.demand.takes else [each for each in self._pools.values() if not each.demand.takes]
        return any(each.waiting for each in (*self._rivals(pool), *free) if each is not pool)

    def _actor(self, actor: str) -> _Actor | None:
        return next((pool.actors[actor] for pool in self._pools.values() if actor in pool.actors), None)

    def _settled(self, now: float) -> list[Action]:
        """Grant what can be granted, and spawn what is missing; what is most urgent comes first."""
        actions: list[Action] = []
        for pool in sorted(self._pools.values(), key=lambda each: each.first):
            while (asked := pool.waiting.head()) is not None:
                actor = self._free_actor(pool, asked)
                if actor is None:
                    break
                pool.waiting.take(now)
                asked.actor = actor.id
                actor.tickets.add(asked.id)
                actor.alone = asked.alone
                actions.append(Grant(asked.id, actor.id))
            actions += self._sized(pool, now)
        return actions

    def _free_actor(self, pool: _Pool, asked: _Ticket) -> _Actor | None:
        """Return an actor for a call: the fullest that has room, so that others get idle."""
        able = [
            each
            for each in pool.actors.values()
            if each.stage == "ready" and not each.spoiled and not each.alone
            and len(each.tickets) < (1 if asked.alone else pool.demand.concurrency)
        ]  # fmt: skip
        if not pool.demand.takes and self._places_left() <= 0:
            able = [each for each in able if each.tickets]
        return max(able, key=lambda each: (len(each.tickets), each.since), default=None)

    def _places_left(self) -> int:
        free = [each for pool in self._pools.values() if not pool.demand.takes for each in pool.actors.values()]
        return self.places - sum(1 for each in free if each.tickets or each.stage != "ready")

    def _sized(self, pool: _Pool, now: float) -> list[Action]:
        """Spawn what is missing of a pool, and give up what is not wanted any more before it has begun."""
        demand, coming = pool.demand, pool.coming
        wanted = sum(1 for each in pool.waiting if each.alone)
        wanted += ceil((len(pool.waiting) - wanted) / demand.concurrency)
        wanted = max(wanted, demand.min - (len(pool.actors) - len(coming)))
        missing, wanted = wanted, min(wanted, len(coming) + self._room(pool))
        denied = missing > wanted == 0
        pool.denied = (pool.denied or now) if denied else None
        if wanted < len(coming):
            surplus = sorted(pool.pending, key=lambda each: -each.since)[: len(coming) - wanted]
            return [self._kill(each) for each in surplus] if demand.takes else []
        room = MAX_STARTING - len(coming)
        room = room if demand.max is None else min(room, demand.max - len(pool.actors))
        room = room if demand.takes else min(room, self._places_left())
        return [self._spawn(pool, now) for _ in range(min(room, wanted - len(coming)))]

    def _room(self, pool: _Pool) -> int:
        """Return how many more actors of a pool may wait at Ray for their resources; less than none are too many.

        As many as the cluster has room for, as far as that is known. Beyond these only those of the pool that is the
        most urgent of all that want the same: what becomes free is its, and else Ray would choose.
        """
        amounts, totals = pool.demand.amounts, self.totals
        rivals = [each for each in self._rivals(pool) if each.waiting and not each.full]
        if totals is None or not amounts or all(pool.first <= each.first + CLOSE for each in rivals):
            return MAX_STARTING
        taken = dict.fromkeys(amounts, 0.0)
        for other in self._pools.values():
            held = len(other.actors) - (0 if other is pool else len(other.pending))
            for name in taken:
                taken[name] += held * other.demand.amounts.get(name, 0.0)
        fit = min(int((totals.get(name, 0.0) - taken[name]) // amount) for name, amount in amounts.items())
        return max(fit, -len(pool.pending))

    def _spawn(self, pool: _Pool, now: float) -> Action:
        self._count += 1
        actor = f"{pool.demand.key}-{self._count}"
        pool.actors[actor] = _Actor(actor, pool.demand.key, now)
        return Spawn(actor, pool.demand)

    def _kill(self, actor: _Actor) -> Action:
        del self._pools[actor.pool].actors[actor.id]
        return Kill(actor.id)

    def _let_go(self, asked: _Ticket, now: float, *, spoiled: bool) -> list[Action]:
        """Take a call off its actor; end one that is spoiled, or whose resources others have waited for long."""
        pool = self._pools[asked.pool]
        actor = pool.actors.get(asked.actor or "")
        if actor is None:
            return []
        actor.tickets.discard(asked.id)
        actor.spoiled, actor.alone, actor.since = actor.spoiled or spoiled, False, now
        if actor.tickets:
            return []
        if actor.spoiled:
            return [self._kill(actor)]
        starved = [each for each in self._rivals(pool) if each.starved(now, FAIRNESS) and each.first < pool.first]
        for each in starved:
            for coming in each.coming:
                coming.since = now  # it has been served now; another one has to wait as long
            each.denied = None if each.denied is None else now
        return [self._kill(each) for each in (actor, *pool.pending)] if starved else []  # its own would be quicker

    def _rivals(self, pool: _Pool) -> list[_Pool]:
        """Return the other pools that take of the same resources."""
        takes = pool.demand.amounts.keys()
        return [each for each in self._pools.values() if each is not pool and takes & each.demand.amounts.keys()]

    def _pressed(self, now: float) -> list[Action]:
        """End an idle actor for every pool that waits for resources which others hold without need."""
        actions: list[Action] = []
        for pool in [each for each in self._pools.values() if each.starved(now, PRESSURE)]:
            spare = [actor for rival in self._rivals(pool) for actor in rival.spare]
            if spare:
                actions.append(self._kill(min(spare, key=lambda each: each.since)))
        return actions

    @staticmethod
    def _served(pool: _Pool) -> set[str]:
        """Return the waiting tickets for which an actor is starting that has, or needs, no resources to wait for."""
        sure = [each for each in pool.coming if each.stage == "starting" or not pool.demand.takes]
        return {each.id for each in list(pool.waiting)[: len(sure) * pool.demand.concurrency]}

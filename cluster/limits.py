"""The limits as one process asks them: finds who decides, or does so itself, and keeps what its attempts hold."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.actors.admission import ticket_of
from perdure.actors.limit_facts import Rule, Ticket
from perdure.actors.limiting import (
    Ask,
    Beat,
    GiveBack,
    LimitUnknown,
    Pushed,
    Request,
    Standing,
    Superseded,
    claimed,
    rule_of,
)
from perdure.actors.loading import load
from perdure.actors.state import Started
from perdure.actors.time_limits import QueueTimeout
from perdure.actors.work import Work, WorkerLost
from perdure.cluster.connection import Connection
from perdure.cluster.limit_log import LimitLogs
from perdure.cluster.limit_tickets import Entry, Leases
from perdure.cluster.limiter import ASK_AGAIN, Limiter, answers, lease_subject, subject_of
from perdure.cluster.settings import Settings
from perdure.cluster.tasks import stop
from perdure.definitions.limits import PlanLimit
from perdure.errors import LimitReached, LogUnavailable, VersionConflict
from perdure.events.vocabulary import LimitClaim

_log = logging.getLogger("perdure.limits")
_ANSWER_SECONDS = 1.5  # after which whoever should answer counts as gone, and is replaced
_TRY_AGAIN = 0.05  # seconds
_IN_ONE_BEAT = 1000  # tickets, so that the names of all fit into one message
_SHOWN_AFTER = 2.0  # seconds of waiting from which an execution records it
Answer = TypeVar("Answer")


class ClusterLimits:
    """The limits of a store; see Limits. Nothing is opened for them before the first one is asked for."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._nats = connection.nats
        self._settings = settings
        self._since = time.time()
        self._holder = uuid4().hex
        self._logs = LimitLogs(connection.nats, settings.log_timeout, settings.replicas)
        self._ours: dict[str, Limiter] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._answered: dict[str, float] = {}
        self._entries: dict[str, dict[str, Entry]] = {}
        self._returning: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hearing: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        connection.closing.append(self.close)

    async def admit(self, ticket: Ticket, limit: PlanLimit, began: float) -> Standing:
        """Ask for an execution to be let in; see Limits."""
        return await self._ask(limit.group, Ask(ticket, self._rule(limit, began)), Standing)

    async def give_back(self, limit: str, ticket: str) -> None:
        """Give back what an execution holds; see Limits."""
        await self._ask(limit, GiveBack(ticket), Standing)

    async def acquire(self, work: Work) -> Leases:
        """Return what an attempt claims, once it has all of it; see Limits."""
        leases, told = Leases(self.let_go), bool(work.waits_for)
        try:
            for claim in work.claims:
                told |= await self._have(leases, work, claim)
        except BaseException:
            leases.give_back({})
            raise
        finally:
            work.parked(False)
        if told:
            work.queued("")
        return leases

    def decides(self, limit: str) -> bool:
        """Say whether this process decides about a limit, as far as it knows."""
        return limit in self._ours and not self._ours[limit].closed

    def let_go(self, group: str, entry: Entry, cost: float | None) -> None:
        """Give a ticket back, for as long as it takes."""
        ticket = entry.ticket.id
        if self._entries.get(group, {}).get(ticket) is not entry:
            return  # a later run of the same attempt has it now
        del self._entries[group][ticket]
        task = self._spawn(self._returned(group, GiveBack(ticket, self._holder, cost)))
        self._returning[group, ticket] = task
        task.add_done_callback(lambda done: self._forget_return(group, ticket, done))

    async def close(self) -> None:
        """Stop all that goes on; what this process holds lapses, and another one decides."""
        beating = [each for each in (self._beating, self._hearing) if each is not None]
        await stop(*beating, *self._tasks)
        for limiter in list(self._ours.values()):
            await limiter.close()

    async def _have(self, leases: Leases, work: Work, claim: LimitClaim) -> bool:
        """Wait until a claim is held; say whether the execution was told that it waits."""
        entry = self._entry(work, claim)
        if (returning := self._returning.get((claim.limit, entry.ticket.id))) is not None:
            await asyncio.wait({returning})  # of an earlier run: it must not take back what this one gets
        await self._hear()
        self._entries.setdefault(claim.limit, {})[entry.ticket.id] = entry
        leases.entries.append((claim.limit, entry))
        await self._ask_for(claim.limit, entry)
        if entry.settled.done():
            entry.settled.result()
            return False
        work.parked(True)
        return await self._waited(work, claim, entry)

    async def _waited(self, work: Work, claim: LimitClaim, entry: Entry) -> bool:
        patience, told = work.node.queue_timeout, False
        began = asyncio.get_running_loop().time()
        while not entry.settled.done():
            waited = asyncio.get_running_loop().time() - began
            if patience is not None and waited >= patience:
                what = f"{claimed(claim)} had no room within {patience:g} s: {entry.before} before it"
                raise QueueTimeout(what)
            if not told and waited >= _SHOWN_AFTER:
                work.queued(f"{claimed(claim)}: {entry.before} before it")
                told = True
            dues = [due - waited for due in (None if told else _SHOWN_AFTER, patience) if due is not None]
            await asyncio.wait({entry.settled}, timeout=min(dues, default=None))
        entry.settled.result()
        return told

    def _entry(self, work: Work, claim: LimitClaim) -> Entry:
        limit = work.plan.limits[claim.limit]
        ticket = Ticket(
            f"{work.execution}/{work.path}#{work.attempt}", work.execution, claim.since.timestamp(), claim.key,
            claim.share, claim.cost, work.priority, work.path, self._holder,
        )  # fmt: skip
        return Entry(ticket, self._rule(limit, work.began))

    def _rule(self, limit: PlanLimit, began: float) -> Rule:
        """Return the rule that counts: what the settings say goes before what any definition says."""
        if (given := self._settings.limits.get(limit.group)) is not None:
            return rule_of(given, (1, self._since))
        if limit.given is None:
            raise LimitUnknown(
                f"limit {limit.group!r} is the cluster's, and its setting 'limits' (PERDURE_LIMITS) does not name it"
            )
        return rule_of(limit.given, (0, began))

    async def _ask_for(self, group: str, entry: Entry) -> None:
        while True:
            try:
                standing = await self._ask(group, Ask(entry.ticket, entry.rule), Standing)
                break
            except LogUnavailable as error:
                _log.warning("limit %s: %s", group, error)
                await asyncio.sleep(self._settings.limit_lease / 4)
        if standing.state == "gone" and not entry.held:
            entry.end(LimitReached(f"limit {group!r} has nothing left, and rejects whoever comes then"))
        self._take(entry, standing)

    def _take(self, entry: Entry, standing: Standing) -> None:
        entry.before = standing.before
        if standing.state == "held":
            entry.hold()
        elif standing.state == "superseded":
            entry.end(Superseded(f"{standing.by} came after it, and the limit cancels the older one"))

    async def _hear(self) -> None:
        """Be told of our tickets, and tell that we live, from now on."""
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._subscribe())
            self._beating = asyncio.create_task(self._beat(), name="perdure-leases")
        await asyncio.shield(self._hearing)

    async def _subscribe(self) -> None:
        await self._nats.subscribe(lease_subject(self._holder), cb=self._pushed)

    async def _pushed(self, message: Msg) -> None:
        pushed = msgspec.json.decode(message.data, type=Pushed)
        if (entry := self._entries.get(pushed.limit, {}).get(pushed.ticket)) is not None:
            self._take(entry, pushed.standing)

    async def _beat(self) -> None:
        """Keep what we hold, and learn what we missed."""
        while True:
            await asyncio.sleep(self._settings.limit_lease / 4)
            groups = [group for group, entries in self._entries.items() if entries]
            await asyncio.gather(*map(self._renew, groups))

    async def _renew(self, group: str) -> None:
        all_held = {ticket: entry.held for ticket, entry in self._entries[group].items()}
        tickets = list(all_held)
        for start in range(0, len(tickets), _IN_ONE_BEAT):
            some = tickets[start : start + _IN_ONE_BEAT]
            await self._renew_some(group, {ticket: all_held[ticket] for ticket in some})

    async def _renew_some(self, group: str, held: dict[str, bool]) -> None:
        """Renew tickets, of which it is known which were held before this."""
        try:
            standings = await self._ask(group, Beat(self._holder, list(held)), dict[str, Standing])
        except LogUnavailable as error:
            _log.warning("limit %s: %s", group, error)
            return
        for ticket, standing in standings.items():
            entry = self._entries[group].get(ticket)
            if entry is None:
                continue
            if standing.state != "gone":
                self._take(entry, standing)
            elif held[ticket]:
                entry.end(WorkerLost(f"its lease of limit {group!r} had lapsed: nothing was heard of it for too long"))
            elif not entry.settled.done():  # whoever decides now has not heard of it yet
                self._spawn(self._ask_for(group, entry))

    async def _returned(self, group: str, request: GiveBack) -> None:
        while True:
            try:
                await self._ask(group, request, Standing)
            except LogUnavailable as error:
                _log.warning("limit %s: %s", group, error)
                await asyncio.sleep(self._settings.limit_lease / 4)
            else:
                return

    def _forget_return(self, group: str, ticket: str, done: "asyncio.Task[None]") -> None:
        if self._returning.get((group, ticket)) is done:
            del self._returning[group, ticket]

    async def _ask(self, group: str, request: Request, kind: type[Answer]) -> Answer:
        """Return the answer of whoever decides about a limit; where nobody does, do it here.

        Raises LogUnavailable where there is no answer for as long as the log may take for one.
        """
        data, deadline = msgspec.json.encode(request), time.monotonic() + self._settings.log_timeout
        while True:
            silent = False
            try:
                answer = await self._nats.request(subject_of(group), data, timeout=_ANSWER_SECONDS)
                if answer.data != ASK_AGAIN:
                    return msgspec.json.decode(answer.data, type=kind)
            except (NoRespondersError, NatsTimeout) as error:
                silent = isinstance(error, NatsTimeout)
                if time.monotonic() > deadline:
                    raise LogUnavailable(f"limit {group!r} does not answer") from None
            except (NatsError, OSError) as error:
                raise LogUnavailable(f"limit {group!r} does not answer: {error or type(error).__name__}") from error
            else:
                continue
            if not await self._opened(group, silent=silent):
                await asyncio.sleep(_TRY_AGAIN)

    async def _opened(self, group: str, *, silent: bool) -> bool:
        """Decide about a limit in this process, unless it does already, or another one does after all."""
        async with self._opening.setdefault(group, asyncio.Lock()):
            ours = self._ours.get(group)
            if ours is not None and not ours.closed:
                return False  # it is ours, and slow
            if silent and await self._is_decided(group):
                return False
            await self._logs.open()
            limiter = Limiter(
                self._connection, self._logs, group, self._has_ended, ageing=self._settings.priority_ageing,
                ttl=self._settings.limit_lease,
            )  # fmt: skip
            try:
                await limiter.open()
            except VersionConflict:
                return False
            self._ours[group] = limiter
            return True

    async def _is_decided(self, group: str) -> bool:
        """Say whether one answers after all: of thousands that ask at once, one looks."""
        if time.monotonic() - self._answered.get(group, float("-inf")) > _ANSWER_SECONDS:
            if not await answers(self._nats, group, self._holder, _ANSWER_SECONDS):
                return False
            self._answered[group] = time.monotonic()
        return True

    async def _has_ended(self, ticket: Ticket) -> bool:
        folded, _ = await load(self._connection.log, self._connection.snapshots, ticket.execution)
        state = folded.state
        return not isinstance(state, Started) or (
            state.outcome is not None or ticket_of(ticket.execution, state) != ticket.id
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

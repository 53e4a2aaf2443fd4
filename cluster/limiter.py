"""A limiter: one limit at work in one process, which decides in turns and appends before it answers."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import uuid4

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from perdure.actors.inputs import AdmitExecution, CancelExecution
from perdure.actors.limit_facts import Fact, Granted, LimitEntry, Opened, Superseded, Ticket, Told
from perdure.actors.limit_state import apply, parts_of
from perdure.actors.limiting import Ask, Beat, GiveBack, Pushed, Report, Request, Standing
from perdure.actors.scheduling import Scheduler
from perdure.cluster.connection import Connection
from perdure.cluster.limit_log import LimitLogs
from perdure.cluster.limit_report import report
from perdure.cluster.tasks import stop
from perdure.errors import LogUnavailable, PerdureError, VersionConflict
from perdure.events.subjects import token_of

_log = logging.getLogger("perdure.limits")
_TICK = 0.5  # seconds
_FRESH = 1.0  # seconds for which it may answer without a word of the log that it is the one
_SETTLE = 1.5  # seconds, in parts of a lease, in which who waits asks a new limiter again
_MOST = 256  # requests in one turn
_COMPACT = 300  # entries
SWEEP = 30.0  # seconds
ASK_AGAIN = b""
"""The answer of who does not decide any more."""
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)

Ended = Callable[[Ticket], Awaitable[bool]]
"""Says whether the execution of a ticket has ended, or asks under another name now."""


class Limiter:
    """Who decides about one limit, until another one does. Whatever it answers is in its log before."""

    def __init__(
        self, connection: Connection, logs: LimitLogs, group: str, ended: Ended, *, ageing: float, ttl: float
    ) -> None:
        self.group = group
        self.closed = False
        self._connection = connection
        self._logs = logs
        self._ended = ended
        self._ageing = ageing
        self._ttl = ttl
        self._asked: asyncio.Queue[tuple[Msg | None, Request]] = asyncio.Queue()
        self._told: list[Fact] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._answering: list[tuple[Msg | None, Request]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._listening: Subscription | None = None

    async def open(self) -> None:
        """Take over: from here on the log refuses whoever decided before. Raises VersionConflict or LogUnavailable."""
        self._listening = await self._connection.nats.subscribe(subject_of(self.group), cb=self._take)
        try:
            await self._take_over()
        except BaseException:
            await self._leave()
            raise
        self._tasks = [asyncio.create_task(self._run(), name=f"perdure-limit-{self.group}")]

    async def _take_over(self) -> None:
        state, self._position, self._entries, before = await self._logs.load(self.group)
        now = self._at = max(time.time(), before)
        await self._append([Opened(uuid4().hex)])
        opens = now + self._ttl / 4 * _SETTLE if any(keyed.held for keyed in state.keys.values()) else 0.0
        self._scheduler = Scheduler(state, now, ageing=self._ageing, ttl=self._ttl, opens=opens)
        self._swept = self._ticked = now
        for keyed in state.keys.values():
            self._deliver(
                [*keyed.untold.values()],
                [ticket for ticket in (*keyed.held.values(), *keyed.out.values()) if ticket.id in keyed.superseded],
            )

    async def close(self) -> None:
        """Decide nothing more; another one opens when it is asked for."""
        await stop(*self._tasks, *self._sending)
        await self._leave()

    async def _take(self, message: Msg) -> None:
        try:
            self._asked.put_nowait((message, _decoder.decode(message.data)))
        except msgspec.DecodeError as error:
            _log.error("limit %s: a request cannot be read: %s", self.group, error)

    async def _run(self) -> None:
        try:
            while True:
                await self._turn(await self._next())
        except VersionConflict:
            _log.warning("limit %s: another limiter has taken over", self.group)
        except LogUnavailable as error:
            _log.warning("limit %s: %s; whoever asks next opens it again", self.group, error)
        except Exception:
            _log.exception("limit %s: its limiter broke; whoever asks next opens it again", self.group)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        """Decide nothing more, and have whoever asked here ask again: another one decides, or is to."""
        self.closed = True
        listening, self._listening = self._listening, None
        if listening is None or self._connection.nats.is_closed:
            return
        with contextlib.suppress(NatsError, OSError):
            await listening.unsubscribe()
            while not self._asked.empty():
                self._answering.append(self._asked.get_nowait())
            for message, _ in self._answering:
                if message is not None:
                    await message.respond(ASK_AGAIN)

    async def _next(self) -> list[tuple[Msg | None, Request]]:
        """Return what is asked next; nothing where it is time to look by itself."""
        due = self._scheduler.next_due(self._now())
        seconds = _TICK if due is None else min(_TICK, max(0.001, due - self._now()))
        taken: list[tuple[Msg | None, Request]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                taken.append(await self._asked.get())
        while taken and len(taken) < _MOST and not self._asked.empty():
            taken.append(self._asked.get_nowait())
        return taken

    async def _turn(self, asked: list[tuple[Msg | None, Request]]) -> None:
        """Decide what is asked, record all of it at once, and only then say it."""
        now, self._answering = self._now(), asked
        facts, self._told = self._told, []
        for fact in facts:
            apply(self._scheduler.group, fact, now)
        for _, request in asked:
            facts += self._decide(request, now)
        if not asked or now - self._ticked >= _TICK / 2:
            self._ticked = now
            facts += self._scheduler.tick(now)
        if facts:
            await self._append(facts)
        elif asked and time.monotonic() - self._seen > _FRESH:
            await self._look()
        directly = {request.ticket.id for message, request in asked if message and isinstance(request, Ask)}
        for message, request in asked:
            if message is not None:
                await message.respond(self._answer(request))
        self._answering = []
        await self._follow(facts, directly)
        if self._entries > _COMPACT:
            await self._compact()
        if now - self._swept > SWEEP:
            self._swept = now
            self._spawn(self._sweep())

    def _decide(self, request: Request, now: float) -> list[Fact]:
        match request:
            case Ask(ticket, rule):
                return self._scheduler.ask(ticket, rule, now)
            case GiveBack(ticket, holder, cost):
                return self._scheduler.give_back(ticket, holder, cost, now)
            case Beat(holder):
                self._scheduler.hear(holder, now)
        return []

    def _answer(self, request: Request) -> bytes:
        match request:
            case Ask(ticket):
                return msgspec.json.encode(self._standing(ticket.id))
            case GiveBack(ticket):
                return msgspec.json.encode(self._standing(ticket))
            case Beat(_, tickets):
                return msgspec.json.encode({ticket: self._standing(ticket) for ticket in tickets})
            case Report():
                waiting = {key: self._scheduler.waiting(key) for key in self._scheduler.group.keys}
                return msgspec.json.encode(report(self.group, self._scheduler.group, waiting, self._now()))

    def _standing(self, ticket: str) -> Standing:
        return Standing(*self._scheduler.standing(ticket))

    async def _follow(self, facts: Iterable[Fact], directly: set[str]) -> None:
        """Tell those whom it concerns and who did not just ask; `directly`: those who did."""
        admitted, superseded = list[Ticket](), list[Ticket]()
        for fact in facts:
            if not isinstance(fact, Granted | Superseded) or (isinstance(fact, Granted) and fact.ticket.id in directly):
                continue
            ticket = fact.ticket
            if ticket.holder:
                pushed = Pushed(self.group, ticket.id, self._standing(ticket.id))
                await self._connection.nats.publish(lease_subject(ticket.holder), msgspec.json.encode(pushed))
            else:
                (admitted if isinstance(fact, Granted) else superseded).append(ticket)
        self._deliver(admitted, superseded)

    def _deliver(self, admitted: list[Ticket], superseded: list[Ticket]) -> None:
        """Send executions their commands, again and again until the inbox has them."""
        for ticket in admitted:
            command = AdmitExecution(f"{ticket.id}/{self.group}/admitted", ticket.execution, self.group, ticket.id)
            self._spawn(self._send(ticket, command))
        for ticket in superseded:
            by = self._scheduler.group.keyed(ticket.key).superseded.get(ticket.id, "another one")
            why = f"{by} came after it, and limit {self.group!r} cancels the older one"
            cancel = CancelExecution(f"{ticket.id}/{self.group}/superseded", ticket.execution, why, "limit")
            if not ticket.holder:
                self._spawn(self._send(ticket, cancel))

    async def _send(self, ticket: Ticket, command: AdmitExecution | CancelExecution) -> None:
        while True:
            try:
                await self._connection.inbox.send(command, ticket.lane)
                break
            except LogUnavailable as error:
                _log.warning("limit %s: execution %s is not told: %s", self.group, ticket.execution, error)
                await asyncio.sleep(_TICK)
        if isinstance(command, AdmitExecution):
            self._told.append(Told(ticket.key, ticket.id))

    async def _append(self, facts: list[Fact]) -> None:
        self._position = await self._logs.append(self.group, LimitEntry(self._at, facts), self._position)
        self._entries += 1
        self._seen = time.monotonic()

    async def _look(self) -> None:
        """See whether this is still the one who decides; raise VersionConflict where it is not."""
        last = await self._logs.last(self.group)
        if last != self._position:
            raise VersionConflict(f"limit {self.group}", self._position, last)
        self._seen = time.monotonic()

    async def _compact(self) -> None:
        """Write all that is known as a new beginning, and remove what was before."""
        self._scheduler.compact(self._at)
        first = 0
        for part in parts_of(self._scheduler.group):
            await self._append([part])
            first = first or self._position
        await self._logs.forget_before(self.group, first)
        self._entries = 0

    async def _sweep(self) -> None:
        """Take back what executions hold that have ended, and did not say so."""
        held = [
            each
            for keyed in self._scheduler.group.keys.values()
            for each in (*keyed.held.values(), *keyed.out.values())
        ]
        for ticket in held:
            try:
                if not ticket.holder and self._at - ticket.since > SWEEP and await self._ended(ticket):
                    _log.warning("limit %s: execution %s has ended and still held it", self.group, ticket.execution)
                    self._asked.put_nowait((None, GiveBack(ticket.id)))
            except PerdureError as error:
                _log.warning("limit %s: execution %s cannot be looked at: %s", self.group, ticket.execution, error)

    def _now(self) -> float:
        """Return the time (UTC), which never goes back: whoever decided before may have had another clock."""
        self._at = max(self._at, time.time())
        return self._at

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def subject_of(group: str) -> str:
    """Return the subject on which a limit is asked."""
    return f"perdure.limit.{token_of(group)}"


def lease_subject(holder: str) -> str:
    """Return the subject on which a process hears of its tickets."""
    return f"perdure.lease.{holder}"


async def answers(nats: Nats, group: str, holder: str, timeout: float) -> bool:
    """Say whether somebody decides about a limit: who got no answer may have been too busy itself to hear it."""
    try:
        request: Request = Beat(holder)
        answer = await nats.request(subject_of(group), msgspec.json.encode(request), timeout=timeout)
    except (NoRespondersError, NatsTimeout):
        return False
    except (NatsError, OSError) as error:
        raise LogUnavailable(f"limit {group!r} does not answer: {error or type(error).__name__}") from error
    return answer.data != ASK_AGAIN

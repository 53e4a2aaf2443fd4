"""Who owns which lanes: a record for each host, changed by compare-and-set, and a fence before every effect."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerInfo

from perdure.cluster.consumer import LanesTaken, delete_consumer, overlap
from perdure.cluster.inbox import STREAM, Lanes, is_solo, lane_in
from perdure.cluster.registry import Changed, Registry
from perdure.errors import Deposed, LogUnavailable

FRESH = 2.0  # seconds for which an owner that was seen to be the owner may act without looking again
_ANSWER_SECONDS = 2.0
_TRY_AGAIN = 0.2  # seconds
_DELIVERED = "delivered"


class Owned(msgspec.Struct, frozen=True):
    """The record of a host. owner: who serves it, "" for nobody. lanes: those that are its alone under this epoch."""

    owner: str
    epoch: int
    lanes: tuple[str, ...] = ()


class Ownership:
    """What one owner of a host has; everything raises LogUnavailable where the server does not answer.

    delivered: of each lane, the stream sequence up to which its starts were delivered to some owner: those were active.
    """

    def __init__(self, nats: Nats, registry: Registry, host: str) -> None:
        self.host = host
        self.owner = uuid4().hex
        self.epoch = 0
        self.lanes = Lanes()
        self.delivered: dict[str, int] = {}
        self._nats = nats
        self._registry = registry
        self._revision: int | None = None

    async def move(self, wanted: Lanes) -> None:
        """Begin a new epoch, with those of the wanted lanes that no other host has; earlier epochs are over after it.

        The lanes of hosts that are gone are free. Raises LanesTaken when another owner of this host was faster to open,
        and Deposed when one has come since.
        """
        consumers = await self._consumers()
        lanes = wanted.without(await self._elsewhere(wanted, consumers))
        epoch = await self._registry.new_epoch()
        await self._record(Owned(self.owner, epoch, lanes.names))
        await self._end([info for info in consumers if _host(info) == self.host and _epoch(info) < epoch])
        self.epoch, self.lanes = epoch, lanes
        data, _ = await self._registry.read(_DELIVERED)
        self.delivered = _marks(data)

    async def free(self, wanted: Lanes) -> Lanes:
        """Return those of the lanes that no other host has."""
        return wanted.without(await self._elsewhere(wanted, await self._consumers()))

    async def verify(self) -> None:
        """Raise Deposed unless the record still names this owner."""
        await verify(self._registry, self.host, self.owner)

    async def rest(self) -> None:
        """Give up the lanes in good order, so that the next owner knows what was active."""
        mine = [info for info in await self._consumers() if _host(info) == self.host and _epoch(info) <= self.epoch]
        await self._end(mine)

    async def _record(self, record: Owned) -> None:
        first = self._revision is None
        if self._revision is None:
            _, self._revision = await self._registry.read(_key(self.host))
        try:
            self._revision = await self._registry.swap(_key(self.host), msgspec.json.encode(record), self._revision)
        except Changed:
            found, revision = await owned(self._registry, self.host)
            if found is not None and found.owner == self.owner:  # it was recorded, and the answer got lost
                self._revision = revision
                return await self._record(record)
            if first:
                raise LanesTaken(f"another owner of {self.host} was faster") from None
            raise Deposed(f"the host {self.host} has a newer owner") from None

    async def _elsewhere(self, wanted: Lanes, consumers: list[ConsumerInfo]) -> set[str]:
        """Return those of the lanes that hosts have who answer; depose the others."""
        taken: set[str] = set()
        alive: dict[str, bool] = {}
        for info in consumers:
            theirs, host = _subjects(info), _host(info)
            both = {lane for lane in wanted.names if _meets(wanted.only([lane]), theirs)}
            if host == self.host or not both:
                continue
            if host not in alive:
                alive[host] = await is_alive(self._nats, host)
                if not alive[host]:
                    await self._depose(host)
            if alive[host]:
                taken |= both
            else:
                await self._end([info])
        return taken

    async def _depose(self, host: str) -> None:
        """Record that a host which is gone has no owner: should it only have slept, it finds that when it wakes."""
        found, revision = await owned(self._registry, host)
        if found is None or not found.owner:
            return
        try:
            nobody = Owned("", await self._registry.new_epoch())
            await self._registry.swap(_key(host), msgspec.json.encode(nobody), revision)
        except Changed:
            raise LanesTaken(f"the host {host} has just got a new owner") from None

    async def _end(self, consumers: list[ConsumerInfo]) -> None:
        """Delete consumers of earlier epochs, once it is recorded up to where they had got."""
        marks: dict[str, int] = {}
        for info in consumers:
            reached = info.delivered.stream_seq if info.delivered else 0
            starts = [lane_in(subject) for subject in _subjects(info) if subject.startswith("perdure.start.")]
            marks |= {lane: max(reached, marks.get(lane, 0)) for lane in starts if not is_solo(lane)}
        await self._mark(marks)
        await asyncio.gather(*(delete_consumer(self._nats, str(info.name)) for info in consumers))

    async def _mark(self, marks: dict[str, int]) -> None:
        while True:
            data, revision = await self._registry.read(_DELIVERED)
            before = _marks(data)
            after = {**before, **{lane: mark for lane, mark in marks.items() if mark > before.get(lane, 0)}}
            if after == before:
                return
            try:
                await self._registry.swap(_DELIVERED, msgspec.json.encode(after), revision)
            except Changed:
                continue
            return

    async def _consumers(self) -> list[ConsumerInfo]:
        js, found = self._nats.jetstream(), list[ConsumerInfo]()
        try:
            while page := await js.consumers_info(STREAM, len(found)):
                found += page
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the inbox did not answer: {error or type(error).__name__}") from error
        return found


class Fence:
    """Awaited before every effect: passes at once while this is known to be the owner, else looks first.

    A process that was stopped, or whose loop was blocked, finds here that it was replaced meanwhile. Whoever replaces
    an owner that is silent, and not gone, waits for longer than FRESH.
    """

    def __init__(self, verify: Callable[[], Awaitable[None]]) -> None:
        self._verify = verify
        self._seen = time.monotonic()
        self._looking = asyncio.Lock()

    async def __call__(self) -> None:
        """Return once this is known to be the owner; raise Deposed when it is not any more."""
        while time.monotonic() - self._seen > FRESH:
            async with self._looking:
                if time.monotonic() - self._seen <= FRESH:
                    return
                try:
                    await self.look()
                    continue
                except LogUnavailable:
                    pass  # nothing may be done before the server is back and has said who owns what
            await asyncio.sleep(_TRY_AGAIN)

    async def look(self) -> None:
        """Look now; raise Deposed, or LogUnavailable."""
        now = time.monotonic()
        await self._verify()
        self._seen = now


async def owned(registry: Registry, host: str) -> tuple[Owned | None, int]:
    """Return a host's record and its revision; None where there is none, or none of this release."""
    data, revision = await registry.read(_key(host))
    try:
        return (msgspec.json.decode(data, type=Owned) if data else None), revision
    except msgspec.DecodeError:
        return None, revision


async def verify(registry: Registry, host: str, owner: str) -> None:
    """Raise Deposed unless the host's record names this owner."""
    found, _ = await owned(registry, host)
    if found is None or found.owner != owner:
        raise Deposed(f"the host {host} has a newer owner")


async def is_alive(nats: Nats, host: str) -> bool:
    """Say whether there is a host of this name, here or anywhere else on this server; a slow one counts."""
    try:
        await nats.request(f"perdure.host.{host}", b"", timeout=_ANSWER_SECONDS)
    except NoRespondersError:
        return False
    except NatsTimeout:
        return True
    except (NatsError, ConnectionError) as error:
        raise LogUnavailable(f"the server did not answer: {error or type(error).__name__}") from error
    return True


def _key(host: str) -> str:
    return f"hosts.{host}"


def _marks(data: bytes | None) -> dict[str, int]:
    return msgspec.json.decode(data, type=dict[str, int]) if data else {}


def _host(info: ConsumerInfo) -> str:
    return str(info.name).rsplit("-", 2)[0]


def _epoch(info: ConsumerInfo) -> int:
    number = str(info.name).rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _subjects(info: ConsumerInfo) -> list[str]:
    return info.config.filter_subjects or [str(info.config.filter_subject)]


def _meets(lanes: Lanes, subjects: list[str]) -> bool:
    return any(overlap(mine, theirs) for mine in (*lanes.starts, *lanes.commands) for theirs in subjects)

"""The start lanes of a host, a consumer for each priority: higher ones come first where room is short."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from perdure.cluster.consumer import HEARTBEAT, PULL_EXPIRES, Consumer, check_status, next_request, position_of
from perdure.cluster.inbox import Lanes
from perdure.cluster.leases import sequence
from perdure.errors import PerdureError

PRIORITIES = tuple("9876543210")
_SILENT = HEARTBEAT * 2.5
_FETCH = 64  # starts in one request, so that one of higher priority waits behind no more than these
_WAITING = {"expires": int(PULL_EXPIRES * 1e9), "idle_heartbeat": int(HEARTBEAT * 1e9)}


class _Lane:
    """The starts of one priority. asked: how many more the server owes us. came: those that wait for room here."""

    def __init__(self, consumer: Consumer, priority: int) -> None:
        self.consumer = consumer
        self.priority = priority
        self.asked = 0
        self.heard = 0.0
        self.came: deque[Msg] = deque()
        self.read = 0


class Starts:
    """Takes starts as there is room for them. `begin` makes one active; `began` says which had been so before.

    ageing: seconds of waiting that are worth one step of priority.
    """

    def __init__(
        self, nats: Nats, host: str, epoch: int, lanes: Lanes,
        begin: Callable[[Msg], Awaitable[None]], began: Callable[[list[Msg]], Awaitable[Collection[int]]],
        ageing: float = 60.0,
    ) -> None:  # fmt: skip
        self._nats = nats
        self._begin = begin
        self._began = began
        self._ageing = ageing
        groups = PRIORITIES if lanes.of == "*" and not lanes.solo else ("*",)
        self._lanes = [
            _Lane(Consumer(nats, f"{host}-starts{number}-{epoch}", lanes.starts_of(priority), begin), 9 - number)
            for number, priority in enumerate(groups)
        ]
        self._by_name = {lane.consumer.name: lane for lane in self._lanes}
        self._inbox = nats.new_inbox()
        self._changed = asyncio.Event()
        self._failed: PerdureError | None = None

    @property
    def held(self) -> list[Msg]:
        """The starts that were delivered and wait for room; few, as a rule none."""
        return [message for lane in self._lanes for message in lane.came]

    async def create(self) -> None:
        """Create the consumers; see Consumer.create."""
        await asyncio.gather(*(lane.consumer.create() for lane in self._lanes))

    async def pull(self, credit: Callable[[], int], changed: asyncio.Event, recover: int = 0) -> None:
        """Take as many starts as `credit()` allows, for ever; first those up to the stream sequence `recover`.

        Of these the ones that had begun go on whatever the credit. changed: set it when the credit has grown. Raises
        as Consumer.pull does.
        """
        self._changed = changed
        replies = await self._nats.subscribe(f"{self._inbox}.*", cb=self._heard)
        try:
            for lane in self._lanes:
                await self._recover(lane, recover)
            while True:
                await self._fill(credit)
                await self._something()
        finally:
            if not self._nats.is_closed:
                with contextlib.suppress(NatsError, OSError):
                    await replies.unsubscribe()

    async def _recover(self, lane: _Lane, recover: int) -> None:
        """Begin those that had begun, many at a time: each that waits for another's answer is later by that."""
        while lane.read < recover:
            before, read = len(lane.came), lane.read
            await self._fetch(lane, min(_FETCH, recover - lane.read))
            if lane.read == read:
                return
            fetched = [lane.came.pop() for _ in range(len(lane.came) - before)][::-1]
            began = await self._began(fetched)
            lane.came.extend(message for message in fetched if sequence(message) not in began)
            for message in fetched:
                if sequence(message) in began:
                    await self._begin(message)

    async def _fill(self, credit: Callable[[], int]) -> None:
        """Begin what came, and ask for more where more may be, as long as there is room."""
        while credit() > 0:
            lane = next((each for each in self._lanes if not each.came and not each.asked), None)
            if lane is not None:
                await self._look(lane, credit())
            elif (first := self._first()) is not None:
                await self._begin(first.came.popleft())
            else:
                return

    async def _look(self, lane: _Lane, room: int) -> None:
        """See what is there of a lane, or be told of it when it comes."""
        share = room // len(self._lanes)
        if share <= 1:  # room is short: know what is there of each before any gets some
            await self._fetch(lane, min(room, _FETCH))
        if not lane.came:
            await self._ask(lane, min(max(share, 1), _FETCH), _WAITING)

    def _first(self) -> _Lane | None:
        """Return the lane whose turn it is: by priority, but one step of it is worth no more than so much waiting."""
        came = [lane for lane in self._lanes if lane.came]
        if len(came) < 2:
            return came[0] if came else None
        return min(came, key=lambda lane: lane.came[0].metadata.timestamp.timestamp() - lane.priority * self._ageing)

    async def _fetch(self, lane: _Lane, batch: int) -> None:
        """Take up to so many starts that are there now."""
        await self._ask(lane, batch, {"no_wait": True})
        while lane.asked:
            await self._something()

    async def _ask(self, lane: _Lane, batch: int, how: Mapping[str, int | bool]) -> None:
        lane.asked, lane.heard = batch, time.monotonic()
        await self._nats.publish(
            next_request(lane.consumer.name), json.dumps({"batch": batch, **how}).encode(),
            reply=f"{self._inbox}.{lane.consumer.name}",
        )  # fmt: skip

    async def _something(self) -> None:
        """Return when something came, or there is more room, or the server has been silent for too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SILENT):
                await self._changed.wait()
        self._changed.clear()
        if self._failed is not None:
            raise self._failed
        silent = time.monotonic() - _SILENT
        for lane in self._lanes:
            if lane.heard < silent:
                lane.asked = 0  # the server was away and has forgotten the request: ask again

    async def _heard(self, message: Msg) -> None:
        try:
            self._sort(message)
        except PerdureError as error:
            self._failed = error
        self._changed.set()

    def _sort(self, message: Msg) -> None:
        if (message.headers or {}).get("Status") and not message.data:
            lane = self._by_name[message.subject.rpartition(".")[2]]
            lane.heard = time.monotonic()
            if not check_status(message, lane.consumer.name):
                lane.asked = 0
            return
        lane = self._by_name[message.metadata.consumer]
        lane.read = max(lane.read, position_of(message, lane.consumer))
        lane.asked, lane.heard = max(0, lane.asked - 1), time.monotonic()
        lane.came.append(message)

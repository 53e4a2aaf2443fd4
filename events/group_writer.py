"""The group writer: appends that queue while a write is under way leave together as one atomic batch (NATS ADR-50).

The server syncs every single message on its own, but an atomic batch of any size with three syncs. So a lone append
is published singly, and many at once as a batch, each member with its own expected last subject sequence, if any.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from perdure.errors import LogUnavailable
from perdure.events.direct_get import DirectGet
from perdure.events.ids import new_id

# Chosen by measurement (benchmarks/log.py): a batch costs about three syncs, and pays from some 16 members on; beyond
# a thousand members the server refuses it, and one in flight while the next one gathers keeps the disk busy.
BATCH_FROM = 16
BATCH_COUNT = 500
BATCH_BYTES = 4_000_000
BATCHES_IN_FLIGHT = 2
SINGLES_IN_FLIGHT = 16

_WRONG_LAST_SEQUENCE = (10071, 10164)
_BATCH_INCOMPLETE = 10176  # the server dropped the batch: its leader changed, or a member came late
_BATCH_TOO_LARGE = 10199
_BATCH_DUPLICATE_ID = 10201
_TOO_MANY_BATCHES = 10210
_PAUSE = 0.01  # seconds before another try, where the server has too many batches open


class StaleWrite(Exception):
    """The subject's last sequence is not the expected one."""


class UnknownWrite(Exception):
    """No answer came: whether the message was stored, the log must tell."""


class RefusedWrite(Exception):
    """The server refused the message for a reason that another try would not mend."""


class _Write(msgspec.Struct, eq=False):
    subject: str
    data: bytes
    headers: dict[str, str]
    expected: int | None
    done: "asyncio.Future[int]"
    due: float


class _Ack(msgspec.Struct):
    """The server's answer to a published message or batch."""

    seq: int = 0
    error: dict[str, Any] | None = None


_acks = msgspec.json.Decoder(_Ack)


class GroupWriter:
    """The one writer of a process for a stream; `timeout` is for each answer of the server, in seconds."""

    def __init__(self, nats: Nats, stream: str, timeout: float) -> None:
        self._nats = nats
        self._gets = DirectGet(nats, stream, timeout)
        self._timeout = timeout
        self._queue: deque[_Write] = deque()
        self._busy: set[str] = set()
        self._batch_count = BATCH_COUNT
        self._singles = 0
        self._batches = 0
        self._pumping = False
        self._sending: set[asyncio.Task[list[_Write]]] = set()

    async def write(self, subject: str, data: bytes, headers: dict[str, str], expected: int | None) -> int:
        """Store a message behind the sequence `expected` of its subject, or None: any, and return its sequence.

        A caller that is cancelled changes nothing for the message or the others. Raises StaleWrite, UnknownWrite or
        RefusedWrite.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        self._queue.append(_Write(subject, data, headers, expected, done, loop.time() + self._timeout))
        if self._sending:
            self._pump_soon()
        else:
            self._pump()  # nobody to wait for
        return await done

    def disconnected(self) -> None:
        """Answer every write under way with UnknownWrite: a request does not fail with its connection, it times out."""
        for task in self._sending:
            task.cancel()

    def _pump_soon(self) -> None:
        # After the current round of the loop, so that all whom the last answer woke are in the queue by then.
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._queue:
            if len(self._queue) >= BATCH_FROM and self._batches < BATCHES_IN_FLIGHT:
                writes = self._take(self._batch_count)
            elif self._batches == 0 and self._singles < SINGLES_IN_FLIGHT:
                writes = self._take(1)
            else:
                return
            if not writes:
                return  # all that queue wait for an earlier write to their subject
            self._send(writes)

    def _take(self, count: int) -> list[_Write]:
        """Take writes from the queue, at most one for a subject where the second needs the sequence of the first."""
        taken: list[_Write] = []
        left: list[_Write] = []
        ours: set[str] = set()
        size = 0
        while self._queue and len(taken) < count and size < BATCH_BYTES:
            write = self._queue.popleft()
            if write.subject in self._busy and (write.expected is not None or write.subject not in ours):
                left.append(write)
            else:
                self._busy.add(write.subject)
                ours.add(write.subject)
                taken.append(write)
                size += len(write.data)
        self._queue.extendleft(reversed(left))
        return taken

    def _send(self, writes: list[_Write]) -> None:
        single = len(writes) == 1
        self._singles += single
        self._batches += not single
        task = asyncio.create_task(self._publish_all(writes))
        self._sending.add(task)
        task.add_done_callback(partial(self._sent, writes))

    async def _publish_all(self, writes: list[_Write]) -> list[_Write]:
        """Publish; return the writes that must go again."""
        try:
            return await (self._single(writes[0]) if len(writes) == 1 else self._batch(writes))
        except (NatsError, ConnectionError, TimeoutError, LogUnavailable) as error:
            _fail(writes, UnknownWrite(str(error) or type(error).__name__))
            return []

    def _sent(self, writes: list[_Write], task: "asyncio.Task[list[_Write]]") -> None:
        """See to it that every write is answered or back in the queue, whatever happened to the task.

        This is no `finally` of the task: one that is cancelled before it began never gets there.
        """
        again: list[_Write] = []
        reason = "the connection was lost"
        if not task.cancelled():
            error = task.exception()
            again, reason = ([], repr(error)) if error else (task.result(), "the writer was stopped")
        self._sending.discard(task)
        if len(writes) == 1:
            self._singles -= 1
        else:
            self._batches -= 1
        self._busy.difference_update(write.subject for write in writes)
        self._queue.extendleft(reversed(again))
        kept = {id(write) for write in again}
        _fail((write for write in writes if id(write) not in kept), UnknownWrite(reason))
        self._pump_soon()

    async def _single(self, write: _Write) -> list[_Write]:
        ack = await self._publish(write, {})
        self._busy.discard(write.subject)  # already: who is answered may write on at once
        if ack.error is None:
            _answer(write, ack.seq)
        elif ack.error.get("err_code") in _WRONG_LAST_SEQUENCE:
            _fail([write], StaleWrite())
        else:
            _fail([write], RefusedWrite(_said(ack.error)))
        return []

    async def _batch(self, writes: list[_Write]) -> list[_Write]:
        """Publish a batch; return the writes that must go again, now or in smaller company."""
        batch = new_id()
        for number, write in enumerate(writes[:-1], 1):
            await self._nats.publish(write.subject, write.data, headers=_headers(write, batch, number))
        ack = await self._publish(writes[-1], {**_headers(writes[-1], batch, len(writes)), "Nats-Batch-Commit": "1"})
        if ack.error is None:
            first = ack.seq - len(writes) + 1  # a batch is stored without a gap
            for number, write in enumerate(writes):
                _answer(write, first + number)
            return []
        return await self._sort_out(writes, ack.error)

    async def _sort_out(self, writes: list[_Write], error: dict[str, Any]) -> list[_Write]:
        """Of a refused batch, of which nothing was stored, fail what can never be stored and keep the rest."""
        code = error.get("err_code")
        if code in _WRONG_LAST_SEQUENCE:
            return await self._without_stale(writes)
        if code == _BATCH_TOO_LARGE:
            self._batch_count = max(BATCH_FROM, len(writes) // 2)
            return writes
        if code in (_TOO_MANY_BATCHES, _BATCH_INCOMPLETE):
            await asyncio.sleep(_PAUSE if code == _TOO_MANY_BATCHES else 0)
            now = asyncio.get_running_loop().time()
            _fail((write for write in writes if write.due < now), UnknownWrite(_said(error)))
            return [write for write in writes if not write.done.done()]
        if code == _BATCH_DUPLICATE_ID:
            _fail(writes, RefusedWrite("a message carries a Nats-Msg-Id that the stream has seen; the log sets none"))
            return []
        _fail(writes, RefusedWrite(_said(error)))
        return []

    async def _without_stale(self, writes: list[_Write]) -> list[_Write]:
        """Fail the stale members of a refused batch and return the others."""
        subjects = [write.subject for write in writes]
        last: dict[str, int] = {}
        async for message in self._gets.batch({"multi_last": subjects, "batch": len(subjects)}):
            headers = message.headers or {}
            last[headers["Nats-Subject"]] = int(headers["Nats-Sequence"])
        stale = [write for write in writes if last.get(write.subject, 0) != write.expected]
        _fail(stale, StaleWrite())
        fresh = [write for write in writes if not write.done.done()]
        if stale:
            return fresh
        for write in fresh:  # the read was behind the stream: let the server judge each one
            await self._single(write)
        return []

    async def _publish(self, write: _Write, headers: dict[str, str]) -> _Ack:
        headers = headers or _expecting(write)
        try:
            message = await self._nats.request(write.subject, write.data, timeout=self._timeout, headers=headers)
        except NoRespondersError:
            raise ConnectionError("no stream takes the message: JetStream is off or has no leader") from None
        return _acks.decode(message.data)


def _headers(write: _Write, batch: str, number: int) -> dict[str, str]:
    return {**_expecting(write), "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}


def _expecting(write: _Write) -> dict[str, str]:
    if write.expected is None:
        return write.headers
    return {**write.headers, "Nats-Expected-Last-Subject-Sequence": str(write.expected)}


def _answer(write: _Write, sequence: int) -> None:
    if not write.done.done():
        write.done.set_result(sequence)


def _fail(writes: Iterable[_Write], error: Exception) -> None:
    for write in writes:
        if not write.done.done():
            write.done.set_exception(error)


def _said(error: dict[str, Any]) -> str:
    return f"{error.get('description', 'no reason given')} (error {error.get('err_code')})"

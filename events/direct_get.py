"""Direct gets: batches of stored messages in one request (NATS ADR-31), answered on one subscription for all."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from perdure.errors import LogUnavailable

_MAX_BYTES = 8_000_000  # of one answer, so that what waits to be read stays small
_READ_BATCH = 10_000
_TRY_AGAIN = 0.05  # seconds
_MULTI = 1000  # subjects in one question; the server answers 1,024 at most
_NO_RESPONDERS, _TOO_MANY = "503", "413"


class DirectGet:
    """Reads from one stream; `timeout` is for each message of an answer, in seconds."""

    def __init__(self, nats: Nats, stream: str, timeout: float) -> None:
        self._nats = nats
        self._subject = f"$JS.API.DIRECT.GET.{stream}"
        self._stream = stream
        self._timeout = timeout
        self._inbox = nats.new_inbox()
        self._subscribed: asyncio.Task[Subscription] | None = None
        self._numbers = count()
        self._waiting: dict[str, _Answers] = {}

    async def batch(self, query: dict[str, Any]) -> AsyncIterator[Msg]:
        """Yield the messages of one answer, up to the server's end-of-batch status; nothing where there are none.

        query: as in ADR-31, such as `{"seq": 1, "next_by_subj": "a.b", "batch": 100}`. Raises LogUnavailable.
        """
        if self._subscribed is None:
            self._subscribed = asyncio.create_task(self._nats.subscribe(f"{self._inbox}.*", cb=self._route))
        token = str(next(self._numbers))
        answers = self._waiting[token] = _Answers()
        try:
            await self._subscribed
            question = json.dumps({"max_bytes": _MAX_BYTES, **query}).encode()
            await self._nats.publish(self._subject, question, reply=f"{self._inbox}.{token}")
            while True:
                message = answers.messages.popleft() if answers.messages else await self._next(answers)
                if message is None:
                    raise LogUnavailable("the log did not answer: the connection was lost")
                status = (message.headers or {}).get("Status")
                if status is None:
                    yield message
                elif status == _NO_RESPONDERS:
                    raise LogUnavailable(f"the stream {self._stream} does not exist or has no leader")
                elif status == _TOO_MANY:
                    raise LogUnavailable(f"the stream {self._stream} refused a read: {message.headers}")
                else:
                    return
        except (NatsError, ConnectionError, TimeoutError) as error:
            raise LogUnavailable(f"the log did not answer: {error or type(error).__name__}") from error
        finally:
            del self._waiting[token]

    def disconnected(self) -> None:
        """End every read under way with LogUnavailable: the rest of its answer will not come."""
        for answers in self._waiting.values():
            answers.put(None)

    async def read(self, subject: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Msg]:
        """Yield the messages of a subject behind a sequence, oldest first, at most `limit`.

        subject: may hold wildcards. What was stored while it reads is read too. Where no answer comes it asks again;
        raises LogUnavailable when none has come for twice the timeout.
        """
        loop = asyncio.get_running_loop()
        left, deadline = limit, loop.time() + 2 * self._timeout
        while left is None or left > 0:
            batch = _READ_BATCH if left is None else min(left, _READ_BATCH)
            pending, began = 0, after
            try:
                async for message in self.batch({"seq": after + 1, "next_by_subj": subject, "batch": batch}):
                    headers = message.headers or {}
                    before = int(headers["Nats-Last-Sequence"])
                    if before and before != after:
                        pending = 1  # one on the way to us was dropped: read again from there
                        break
                    after, pending = int(headers["Nats-Sequence"]), int(headers["Nats-Num-Pending"])
                    left = None if left is None else left - 1
                    yield message
                    deadline = loop.time() + 2 * self._timeout
            except LogUnavailable:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_TRY_AGAIN)
                continue
            if not pending or after == began:
                return

    async def last(self, subject: str) -> Msg | None:
        """Return the last message of a subject, which may hold wildcards; None where there is none."""
        try:
            query = json.dumps({"last_by_subj": subject}).encode()
            message = await self._nats.request(self._subject, query, timeout=self._timeout)
        except NoRespondersError:
            raise LogUnavailable(f"the stream {self._stream} does not exist or has no leader") from None
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the log did not answer: {error or type(error).__name__}") from error
        return None if (message.headers or {}).get("Status") == "404" else message

    async def lasts(self, subjects: Sequence[str]) -> dict[str, Msg]:
        """Return the last message of each subject that has one."""
        found: dict[str, Msg] = {}
        for start in range(0, len(subjects), _MULTI):
            some = list(subjects[start : start + _MULTI])
            while some:
                pending = 0  # so many more there are than an answer may be large
                async for message in self.batch({"multi_last": some, "batch": len(some)}):
                    headers = message.headers or {}
                    found[headers["Nats-Subject"]], pending = message, int(headers["Nats-Num-Pending"])
                some = [subject for subject in some if subject not in found] if pending else []
        return found

    async def _next(self, answers: "_Answers") -> Msg | None:
        answers.some.clear()
        async with asyncio.timeout(self._timeout):
            await answers.some.wait()
        return answers.messages.popleft()

    async def _route(self, message: Msg) -> None:
        answers = self._waiting.get(message.subject.rpartition(".")[2])
        if answers is not None:  # else its reader has left
            answers.put(message)


class _Answers:
    """What has come of one answer and is not read yet. An asyncio.Queue costs three times as much a message."""

    def __init__(self) -> None:
        self.messages: deque[Msg | None] = deque()
        self.some = asyncio.Event()

    def put(self, message: Msg | None) -> None:
        self.messages.append(message)
        self.some.set()

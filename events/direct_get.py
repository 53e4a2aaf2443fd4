"""Direct gets: batches of stored messages in one request (NATS ADR-31), answered on one subscription for all."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from perdure.errors import LogUnavailable

_MAX_BYTES = 8_000_000  # of one answer, so that what waits to be read stays small
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
        self._waiting: dict[str, asyncio.Queue[Msg | None]] = {}

    async def batch(self, query: dict[str, Any]) -> AsyncIterator[Msg]:
        """Yield the messages of one answer, up to the server's end-of-batch status; nothing where there are none.

        query: as in ADR-31, such as `{"seq": 1, "next_by_subj": "a.b", "batch": 100}`. Raises LogUnavailable.
        """
        if self._subscribed is None:
            self._subscribed = asyncio.create_task(self._nats.subscribe(f"{self._inbox}.*", cb=self._route))
        token = str(next(self._numbers))
        answers: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._waiting[token] = answers
        try:
            await self._subscribed
            question = json.dumps({"max_bytes": _MAX_BYTES, **query}).encode()
            await self._nats.publish(self._subject, question, reply=f"{self._inbox}.{token}")
            while True:
                message = answers.get_nowait() if not answers.empty() else await self._next(answers)
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
            answers.put_nowait(None)

    async def _next(self, answers: "asyncio.Queue[Msg | None]") -> Msg | None:
        async with asyncio.timeout(self._timeout):
            return await answers.get()

    async def _route(self, message: Msg) -> None:
        answers = self._waiting.get(message.subject.rpartition(".")[2])
        if answers is not None:  # else its reader has left
            answers.put_nowait(message)

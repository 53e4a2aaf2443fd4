"""The fenced writer: messages on several subjects stored together or not at all, each subject behind what was read.

The server compares the expected last sequence of a subject with what is stored before the batch, and takes the header
on the first member of each subject only. So every subject is fenced once, and trying again can never store twice.
"""

import asyncio
import json
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple
from uuid import uuid4

from eventsourcing.persistence import DataError, IntegrityError, OperationalError
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from perdure.errors import LogUnavailable
from perdure.events.direct_get import DirectGet
from perdure.events.link import Link
from perdure.events.stored_events import sequence_of

_WRITE_ID = "Es-Write-Id"
_FENCE = "Nats-Expected-Last-Subject-Sequence"
_BATCH_TOO_LARGE = 10199
_NOT_NOW = frozenset({10071, 10164, 10176, 10210})  # stale, stale within a batch, incomplete, too many open batches
_NO_MESSAGE = 10037
_PAUSE = 0.01  # seconds before another look
_BATCHES_IN_FLIGHT = 4
_MAX_SUBJECT = 1000
_HEADER_ROOM = 4096  # bytes of a message's largest size that are left to its headers

Tails = Mapping[str, Msg]
"""The last message of each subject that has one."""


class Message(NamedTuple):
    """What is to be stored."""

    subject: str
    data: bytes
    headers: dict[str, str]


class _NotStored(Exception):
    """The server refused for now: look again."""


class _Unknown(Exception):
    """No answer came: whether the messages were stored, the stream must tell."""


class FencedWriter:
    """Writes to one stream; `timeout` is for a whole write, in seconds."""

    def __init__(self, link: Link, gets: DirectGet, stream: str, timeout: float) -> None:
        self._nats = link.nats
        self._loss = link.loss
        self._gets = gets
        self._stream = stream
        self._timeout = timeout
        self._numbers = count()
        self._batches = asyncio.Semaphore(_BATCHES_IN_FLIGHT)

    async def write(self, subjects: Sequence[str], decide: Callable[[Tails], Awaitable[list[Message]]]) -> range:
        """Store what `decide` makes of the subjects' last messages, and return its sequences.

        subjects: of the messages, in the order of their first appearance. decide: may be asked again, and raises
        IntegrityError on a conflict. Raises OperationalError when the stream does not answer in time, and DataError
        when it can never take the messages.
        """
        write, unsure, size = uuid4().hex, None, 0
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            tails: Tails = {}
            try:
                tails = await self._gets.lasts(subjects)
                messages, conflict = await _decided(decide, tails)
                # Found only after the conflict was seen: what another reader saw of our write, the leader has by now.
                if unsure is not None and (first := await self._find(write, subjects[0], unsure)):
                    return range(first, first + size)
                if conflict:
                    raise conflict
                size = len(messages)
                return await self._store(messages, tails, write)
            except (_NotStored, LogUnavailable) as error:
                cause: Exception = error
            except _Unknown as error:
                cause = error
                unsure = sequence_of(tails.get(subjects[0])) if unsure is None else unsure
            if asyncio.get_running_loop().time() > deadline:
                outcome = "the write was not stored" if unsure is None else "whether the write was stored is unknown"
                raise OperationalError(
                    f"the stream {self._stream} did not take a write within {self._timeout:g} s ({cause}); {outcome}"
                ) from cause
            await asyncio.sleep(_PAUSE)

    async def _store(self, messages: list[Message], tails: Tails, write: str) -> range:
        for message in messages:
            self._check_size(message)
        fences = {message.subject: {_FENCE: str(sequence_of(tails.get(message.subject)))} for message in messages}
        headers = [{**message.headers, **fences.pop(message.subject, {})} for message in messages]
        try:
            if len(messages) == 1:
                last = await self._request(messages[0], {**headers[0], _WRITE_ID: write})
            else:
                async with self._batches:
                    last = await self._batch(messages, headers, write)
        except NoRespondersError:
            raise _NotStored("no stream takes the message: JetStream is off or has no leader") from None
        except (NatsError, ConnectionError, TimeoutError) as error:
            raise _Unknown(str(error) or type(error).__name__) from error
        return range(last - len(messages) + 1, last + 1)

    async def _batch(self, messages: list[Message], headers: list[dict[str, str]], write: str) -> int:
        """Publish an atomic batch and return the sequence of its last message; a batch is stored without a gap."""
        batch = f"{write}-{next(self._numbers)}"  # an earlier try may still be open under its own id
        for number, extra in enumerate(headers, 1):
            extra |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        for message, extra in zip(messages[:-1], headers, strict=False):
            await self._nats.publish(message.subject, message.data, headers=extra)
        return await self._request(messages[-1], {**headers[-1], "Nats-Batch-Commit": "1"})

    async def _request(self, message: Message, headers: dict[str, str]) -> int:
        """Publish a message that the server answers and return its sequence."""
        request = self._nats.request(message.subject, message.data, timeout=self._timeout / 2, headers=headers)
        answer: dict[str, Any] = json.loads((await self._loss.guard(request)).data)
        error = answer.get("error")
        if error is None:
            return int(answer["seq"])
        said = f"{error.get('description', 'no reason given')} (error {error.get('err_code')})"
        if error.get("err_code") in _NOT_NOW:
            raise _NotStored(said)
        if error.get("err_code") == _BATCH_TOO_LARGE:
            raise DataError(
                f"too many messages to be stored at once in the stream {self._stream}: {said}; "
                "save fewer events at once, or raise the server's limit"
            )
        raise OperationalError(f"the stream {self._stream} refused a message: {said}")

    def _check_size(self, message: Message) -> None:
        most = self._nats.max_payload - _HEADER_ROOM
        if len(message.data) > most or len(message.subject) > _MAX_SUBJECT:
            raise DataError(
                f"a message for {message.subject[:100]} has {len(message.data)} bytes and a subject of "
                f"{len(message.subject)} characters; the stream {self._stream} takes {most} and {_MAX_SUBJECT}"
            )

    async def _find(self, write: str, subject: str, after: int) -> int | None:
        """Return the sequence of a write's first message, asking the leader: another replica may be behind."""
        while True:
            query = json.dumps({"seq": after + 1, "next_by_subj": subject}).encode()
            try:
                message = await self._nats.request(
                    f"$JS.API.STREAM.MSG.GET.{self._stream}", query, timeout=self._timeout / 2
                )
            except (NatsError, ConnectionError) as error:
                raise LogUnavailable(f"the stream did not answer: {error or type(error).__name__}") from error
            answer = json.loads(message.data)
            if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
                return None
            if "error" in answer:
                raise LogUnavailable(f"the stream did not answer: {answer['error'].get('description')}")
            after = answer["message"]["seq"]
            if write.encode() in b64decode(answer["message"].get("hdrs", "")):
                return int(after)


async def _decided(
    decide: Callable[[Tails], Awaitable[list[Message]]], tails: Tails
) -> tuple[list[Message], IntegrityError | None]:
    try:
        return await decide(tails), None
    except IntegrityError as error:
        return [], error

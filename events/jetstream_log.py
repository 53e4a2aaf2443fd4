"""The log on NATS JetStream: one subject per execution, the expected last sequence as the fence."""

import json
from collections.abc import AsyncIterator

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import RePublish, StorageType, StreamConfig
from nats.js.errors import APIError

from perdure.errors import LogUnavailable, VersionConflict
from perdure.events.entry import Entry, Recorded, encode
from perdure.events.subjects import EVENTS, LIVE, events_subject, execution_of

STREAM = "PERDURE_EVENTS"
_WRONG_LAST_SEQUENCE = 10071
_READ_BATCH = 1000
_LOOK_AGAIN = 5.0  # seconds; a follower that heard nothing looks once, in case a live copy was lost


def stream_config(replicas: int = 1) -> StreamConfig:
    """Return the stream that the log needs.

    Stored entries are republished under `perdure.live`, so that following costs no consumer: a live copy carries
    its sequence and the one before it on its subject, which shows every gap.
    """
    return StreamConfig(
        name=STREAM,
        subjects=[f"{EVENTS}.>"],
        storage=StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        allow_atomic=True,
        republish=RePublish(src=f"{EVENTS}.>", dest=f"{LIVE}.>"),
    )


class JetStreamLog:
    """Keeps entries in the stream PERDURE_EVENTS; positions are its sequences. `timeout` is in seconds."""

    def __init__(self, nats: Nats, timeout: float = 10.0) -> None:
        self._nats = nats
        self._js = nats.jetstream(timeout=timeout)
        self._timeout = timeout

    async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
        """Append one entry; see Log.append.

        After a conflict or a lost answer the tail is searched for the entry id first: the server checks the
        expected sequence before anything else, so the retry of an applied append looks like a conflict.
        """
        data = encode(entry)
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "ce-specversion": "1.0",
            "ce-type": "perdure.entry",
            "ce-source": "perdure",
            "ce-id": entry.id,
        }
        try:
            ack = await self._js.publish(events_subject(execution), data, headers=headers)
        except APIError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise LogUnavailable(
                    f"execution {execution!r}: the log refused an entry: {error.description}"
                ) from error
        except (NatsTimeout, NoRespondersError, ConnectionClosedError, ConnectionError) as error:
            tail = [recorded async for recorded in self.read(execution, expected)]
            if (found := _find(entry.id, tail)) is not None:
                return found
            raise LogUnavailable(
                f"execution {execution!r}: the log did not answer: {error or type(error).__name__}"
            ) from error
        else:
            return Recorded(execution, ack.seq, data)
        tail = [recorded async for recorded in self.read(execution, expected)]
        if (found := _find(entry.id, tail)) is not None:
            return found
        raise VersionConflict(execution, expected, tail[-1].position if tail else await self.last(execution))

    async def read(self, execution: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of one execution; see Log.read."""
        async for recorded in self._read(events_subject(execution), after, limit):
            yield recorded

    async def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of all executions; see Log.read_all."""
        async for recorded in self._read(f"{EVENTS}.>", after, limit):
            yield recorded

    async def follow(self, execution: str | None = None, after: int = 0) -> AsyncIterator[Recorded]:
        """Yield entries as they come; see Log.follow."""
        live = await self._nats.subscribe(events_subject(execution, LIVE) if execution else f"{LIVE}.>")
        try:
            behind = True
            while True:
                if behind:
                    async for recorded in self.read(execution, after) if execution else self.read_all(after):
                        after = recorded.position
                        yield recorded
                try:
                    message = await live.next_msg(timeout=_LOOK_AGAIN)
                except NatsTimeout:
                    behind = True
                    continue
                headers = message.headers or {}
                position = int(headers["Nats-Sequence"])
                before = int(headers["Nats-Last-Sequence"]) if execution else position - 1
                behind = position > after != before
                if position > after and not behind:
                    after = position
                    yield _recorded(headers["Nats-Subject"], position, message.data)
        finally:
            if not self._nats.is_closed:
                await live.unsubscribe()

    async def last(self, execution: str | None = None) -> int:
        """Return the last position; see Log.last."""
        subject = events_subject(execution) if execution else f"{EVENTS}.>"
        message = await self._request({"last_by_subj": subject})
        return int((message.headers or {})["Nats-Sequence"]) if message else 0

    async def _request(self, query: dict[str, object]) -> Msg | None:
        try:
            message = await self._nats.request(
                f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(query).encode(), timeout=self._timeout
            )
        except (NatsTimeout, NoRespondersError, ConnectionClosedError, ConnectionError) as error:
            raise LogUnavailable(f"the log did not answer: {error or type(error).__name__}") from error
        return None if (message.headers or {}).get("Status") == "404" else message

    async def _read(self, subject: str, after: int, limit: int | None) -> AsyncIterator[Recorded]:
        """Read with direct batch gets (NATS ADR-31): each ends in a message with the status 204, or 404 for none."""
        left = limit
        while left is None or left > 0:
            batch = _READ_BATCH if left is None else min(left, _READ_BATCH)
            pending = 0
            async for message in self._direct_get({"seq": after + 1, "next_by_subj": subject, "batch": batch}):
                headers = message.headers or {}
                after, pending = int(headers["Nats-Sequence"]), int(headers["Nats-Num-Pending"])
                yield _recorded(headers["Nats-Subject"], after, message.data)
            if not pending:
                return
            left = None if left is None else left - batch

    async def _direct_get(self, query: dict[str, object]) -> AsyncIterator[Msg]:
        inbox = self._nats.new_inbox()
        replies = await self._nats.subscribe(inbox)
        try:
            await self._nats.publish(f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(query).encode(), reply=inbox)
            while True:
                message = await replies.next_msg(timeout=self._timeout)
                status = (message.headers or {}).get("Status")
                if status == "503":
                    raise LogUnavailable(f"the stream {STREAM} does not exist or has no leader")
                if status:
                    return
                yield message
        except (NatsTimeout, ConnectionClosedError, ConnectionError) as error:
            raise LogUnavailable(f"the log did not answer: {error or type(error).__name__}") from error
        finally:
            if not self._nats.is_closed:
                await replies.unsubscribe()


def _recorded(subject: str, position: int, data: bytes) -> Recorded:
    return Recorded(execution_of(subject.rpartition(".")[2]), position, data)


def _find(entry_id: str, tail: list[Recorded]) -> Recorded | None:
    return next((recorded for recorded in tail if recorded.entry.id == entry_id), None)

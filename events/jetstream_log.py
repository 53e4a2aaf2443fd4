"""The log on NATS JetStream: one subject per execution, the expected last sequence as the fence."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import RePublish, RetentionPolicy, StorageType, StreamConfig

from perdure.errors import LogUnavailable, VersionConflict
from perdure.events.blobs import Blobs, JetStreamBlobs, names_blobs, spill, unspill, with_events
from perdure.events.direct_get import DirectGet
from perdure.events.entry import Entry, Recorded, encode
from perdure.events.group_writer import GroupWriter, RefusedWrite, StaleWrite, UnknownWrite
from perdure.events.subjects import EVENTS, LIVE, events_subject, execution_of

STREAM = "PERDURE_EVENTS"
IMPORTED = "Perdure-Imported"
"""The header of entries that happened before, elsewhere."""
_T = TypeVar("_T")
_NO_MESSAGE = 10037
_TRY_AGAIN = 0.05  # seconds
_COPIES = 1000  # that wait for a follower
_LOOK_AGAIN = 5.0  # seconds after which a follower looks, in case a live copy was lost


def stream_config(replicas: int = 1) -> StreamConfig:
    """Return the stream that the log needs.

    Stored entries are republished under `perdure.live`, so that following costs no consumer: a live copy carries
    its sequence and the one before it on its subject, which shows every gap.
    """
    return StreamConfig(
        name=STREAM,
        subjects=[f"{EVENTS}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        allow_atomic=True,
        republish=RePublish(src=f"{EVENTS}.>", dest=f"{LIVE}.>"),
    )


class JetStreamLog:
    """Keeps entries in the stream PERDURE_EVENTS; positions are its sequences. `timeout` is in seconds."""

    def __init__(self, nats: Nats, timeout: float = 10.0, replicas: int = 1) -> None:
        self.blobs: Blobs = JetStreamBlobs(nats, replicas)
        self._nats = nats
        self._timeout = timeout
        self._followers: set[asyncio.Queue[Msg | None]] = set()
        self._asking: set[asyncio.Task[Msg]] = set()
        self._gets = DirectGet(nats, STREAM, timeout / 2)
        self._writer = GroupWriter(nats, STREAM, timeout / 2)  # so that there is time to look and to try again

    async def open(self) -> None:
        """Hear of the stream's new leaders: what was asked of the one before, nobody may answer any more."""
        await self._nats.subscribe(f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{STREAM}", cb=self._led_anew)

    async def _led_anew(self, _advisory: Msg) -> None:
        self.disconnected()
        self.reconnected()

    async def append(self, execution: str, entry: Entry, expected: int) -> Recorded:
        """Append one entry; see Log.append.

        After a conflict or a lost answer what is behind it is looked at before anything else is decided: the
        server checks the expected sequence first, so the retry of an applied append looks like a conflict. As the
        expected sequence fences every copy, trying again until the deadline can never store an entry twice.
        """
        slim, values = spill(execution, entry, data := encode(entry))
        if values:
            for blob, content in values.items():  # first: an entry never names what is not there
                await self.blobs.put(blob, content)
            data = encode(slim)
        recorded = await self.append_stored(execution, entry.id, data, expected)
        return msgspec.structs.replace(recorded, values=values) if values else recorded

    async def append_stored(
        self, execution: str, entry_id: str, data: bytes, expected: int, headers: dict[str, str] | None = None
    ) -> Recorded:
        """Append an entry in its stored form, byte by byte as it is; otherwise as `append`."""
        headers = {
            "ce-specversion": "1.0",
            "ce-type": "perdure.entry",
            "ce-source": "perdure",
            "ce-id": entry_id,
            **(headers or {}),
        }
        subject = events_subject(execution)
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            try:
                position = await self._writer.write(subject, data, headers, expected)
                return Recorded(execution, position, data)
            except StaleWrite:
                found = await self._by(deadline, partial(self._next, subject, expected))
                if found is not None and found.slim.id == entry_id:
                    return found
                raise VersionConflict(execution, expected, await self.last(execution)) from None
            except RefusedWrite as error:
                raise LogUnavailable(f"execution {execution!r}: the log refused an entry: {error}") from None
            except UnknownWrite as error:
                found = await self._by(deadline, partial(self._next, subject, expected), error)
                if found is not None and found.slim.id == entry_id:
                    return found

    async def purge(self, execution: str) -> None:
        """Remove all entries of an execution but its last."""
        await self._nats.jetstream().purge_stream(STREAM, subject=events_subject(execution), keep=1)

    async def counts(self) -> dict[str, int]:
        """Return how many entries each execution has."""
        info = await self._nats.jetstream().stream_info(STREAM, subjects_filter=f"{EVENTS}.>")
        return {execution_of(name.rpartition(".")[2]): count for name, count in (info.state.subjects or {}).items()}

    def disconnected(self) -> None:
        """Stop waiting for answers that a lost connection will not bring: whoever waits asks again."""
        self._writer.disconnected()
        self._gets.disconnected()
        for asking in self._asking:
            asking.cancel()

    def reconnected(self) -> None:
        """Let every follower look for what it missed."""
        for copies in self._followers:
            copies.put_nowait(None)

    async def read(self, execution: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of one execution; see Log.read."""
        async for recorded in self.read_stored(execution, after, limit):
            yield await unspill(recorded, self.blobs) if names_blobs(recorded) else recorded

    async def read_stored(self, execution: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of one execution as they are stored, their large values left in blobs."""
        async for message in self._gets.read(events_subject(execution), after, limit):
            headers = message.headers or {}
            yield Recorded(execution, int(headers["Nats-Sequence"]), message.data, imported=IMPORTED in headers)

    async def read_all(self, after: int = 0, limit: int | None = None) -> AsyncIterator[Recorded]:
        """Yield the entries of all executions; see Log.read_all."""
        async for message in self._gets.read(f"{EVENTS}.>", after, limit):
            headers = message.headers or {}
            yield _recorded(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, headers)

    async def follow(
        self,
        execution: str | None = None,
        after: int = 0,
        *,
        look: bool = False,
        listening: Callable[[], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[Recorded]:
        """Yield entries as they come; see Log.follow.

        look: read once before it listens: what is wanted is likely there. listening: awaited as soon as it listens; it
        says whether what is wanted may be there already, and need be read.
        """
        if look:
            async for recorded in self.read(execution, after) if execution else self.read_all(after):
                after = recorded.position
                yield recorded
        copies: asyncio.Queue[Msg | None] = asyncio.Queue()
        after_a_while = partial(asyncio.get_running_loop().call_later, _LOOK_AGAIN, copies.put_nowait, None)
        subject = events_subject(execution, LIVE) if execution else f"{LIVE}.>"
        live = await self._nats.subscribe(subject, cb=partial(_keep, copies))
        self._followers.add(copies)
        look_anyway = after_a_while()  # one timer, and none for each copy: these are many
        try:
            behind = listening is None or await listening()
            while True:
                if behind:
                    async for recorded in self.read(execution, after) if execution else self.read_all(after):
                        after = recorded.position
                        yield recorded
                copy = await copies.get()
                if copy is None:
                    behind = True
                    look_anyway.cancel()
                    look_anyway = after_a_while()
                    continue
                headers = copy.headers or {}
                position = int(headers["Nats-Sequence"])
                before = int(headers["Nats-Last-Sequence"]) if execution else position - 1
                behind = position > after != before
                if position > after and not behind:
                    after = position
                    recorded = _recorded(headers["Nats-Subject"], position, copy.data, headers)
                    yield await unspill(recorded, self.blobs) if execution else recorded
        finally:
            look_anyway.cancel()
            self._followers.discard(copies)
            if not self._nats.is_closed:
                await live.unsubscribe()

    async def with_events(self, recorded: Recorded) -> Recorded:
        """Return an entry with the events that it left in a blob; see Log.with_events."""
        return await with_events(recorded, self.blobs)

    async def with_values(self, recorded: Recorded) -> Recorded:
        """Return an entry with the values that it left in blobs; see Log.with_values."""
        return await unspill(recorded, self.blobs)

    async def identity(self) -> str:
        """Return when the stream was created; see Log.identity."""
        return str((await self._info())["created"])

    async def last(self, execution: str | None = None) -> int:
        """Return the last position; see Log.last."""
        if execution is None:
            # Not by a direct get: it keeps the server from letting go of the last block, of up to 8 MB. The last
            # message is always there, for of each subject one is kept.
            return int((await self._info())["state"]["last_seq"])
        query = json.dumps({"last_by_subj": events_subject(execution)}).encode()
        ask = partial(self._request, f"$JS.API.DIRECT.GET.{STREAM}", query)
        headers = (await self._by(asyncio.get_running_loop().time() + self._timeout, ask)).headers or {}
        return 0 if headers.get("Status") == "404" else int(headers["Nats-Sequence"])

    async def _info(self) -> dict[str, Any]:
        return await self._by(asyncio.get_running_loop().time() + self._timeout, self._look)

    async def _look(self) -> dict[str, Any]:
        answer = json.loads((await self._request(f"$JS.API.STREAM.INFO.{STREAM}", b"")).data)
        if "error" in answer:  # a stream without a leader says so, and has one soon
            raise LogUnavailable(f"the log did not answer: {answer['error'].get('description')}")
        return cast("dict[str, Any]", answer)

    async def recorded(self, executions: Iterable[str]) -> set[str]:
        """Return those of the executions that have entries."""
        subjects = {events_subject(execution): execution for execution in executions}
        ask = partial(self._gets.lasts, list(subjects))
        found = await self._by(asyncio.get_running_loop().time() + self._timeout, ask)
        return {subjects[subject] for subject in found}

    async def _by(self, deadline: float, ask: Callable[[], Awaitable[_T]], cause: object = "") -> _T:
        """Ask until there is an answer; raise LogUnavailable when there is none by the deadline."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline:
            try:
                return await ask()
            except LogUnavailable as error:
                cause = cause or error
                await asyncio.sleep(_TRY_AGAIN)
        raise LogUnavailable(f"the log did not answer within {self._timeout:g} s: {cause}")

    async def _next(self, subject: str, after: int) -> Recorded | None:
        """Read the first behind a position from the stream's leader: a direct get may be answered by a stale replica.

        An entry that was stored behind what it expected is that first one: there may be thousands behind it.
        """
        query = json.dumps({"seq": after + 1, "next_by_subj": subject}).encode()
        answer = json.loads((await self._request(f"$JS.API.STREAM.MSG.GET.{STREAM}", query)).data)
        if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
            return None
        if "error" in answer:
            raise LogUnavailable(f"the log did not answer: {answer['error'].get('description')}")
        message = answer["message"]
        return _recorded(subject, message["seq"], b64decode(message.get("data", "")))

    async def _request(self, subject: str, query: bytes) -> Msg:
        asking = asyncio.create_task(self._nats.request(subject, query, timeout=self._timeout / 2))
        self._asking.add(asking)
        try:
            await asyncio.wait({asking})
        finally:
            self._asking.discard(asking)
            asking.cancel()
        if asking.cancelled():
            raise LogUnavailable("the log did not answer: the connection was lost")
        try:
            return asking.result()
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the log did not answer: {error or type(error).__name__}") from error


async def _keep(copies: "asyncio.Queue[Msg | None]", copy: Msg) -> None:
    """Keep a live copy for a follower; one that is slow reads the stream instead, which holds them for it."""
    if copies.qsize() >= _COPIES:
        while not copies.empty():
            copies.get_nowait()
        copies.put_nowait(None)
    else:
        copies.put_nowait(copy)


def _recorded(subject: str, position: int, data: bytes, headers: Collection[str] = ()) -> Recorded:
    return Recorded(execution_of(subject.rpartition(".")[2]), position, data, imported=IMPORTED in headers)

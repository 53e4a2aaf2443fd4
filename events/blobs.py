"""Blobs: values too large for an entry, kept beside the log under `<execution>/<digest>` (the claim check pattern)."""

import hashlib
import io
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Protocol

import msgspec
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import ObjectMeta, ObjectStoreConfig, StorageType
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from perdure.errors import CorruptBlob, LogUnavailable
from perdure.events.entry import Blob, Entry, Recorded, encode
from perdure.events.subjects import execution_of, token_of
from perdure.events.vocabulary import NodeWaiting

VALUE_LIMIT = 128 * 1024
"""Bytes of one value's JSON above which it leaves the entry."""
ENTRY_LIMIT = 512 * 1024
"""Bytes of a whole entry above which its events leave it: half of the server's default largest message."""

_BUCKET = "PERDURE_BLOBS"
_FIELDS = ("input", "output")
_PAST = "past"  # of a fork: whatever its size, subscribers have had it
_ALL_EVENTS = "/events"


class Blobs(Protocol):
    """Keeps bytes by name. A blob is put before the entry that names it, and never changes."""

    async def put(self, name: str, data: bytes) -> None:
        """Store a blob; one that is there already is left as it is."""
        ...

    async def read(self, blob: Blob, into: BinaryIO) -> None:
        """Write a blob's bytes into a file, chunk by chunk; raise CorruptBlob when it is missing or altered."""
        ...

    async def delete(self, names: Iterable[str]) -> None:
        """Remove blobs; one that is not there is no error."""
        ...

    async def sweep(self, named: Callable[[str], Awaitable[set[str]]]) -> None:
        """Remove old blobs that no entry names, where `named` gives those that an execution's entries do."""
        ...


class JetStreamBlobs:
    """Blobs in a JetStream object store, opened (and created) when the first one is needed."""

    def __init__(self, nats: Nats, replicas: int = 1, bucket: str = _BUCKET) -> None:
        self._js = nats.jetstream(timeout=30)
        self._replicas = replicas
        self._bucket = bucket
        self._opened: ObjectStore | None = None

    async def put(self, name: str, data: bytes) -> None:
        """Store a blob; see Blobs.put."""
        store = await self._store()
        try:
            if (await store.get_info(name)).size == len(data):
                return
        except NotFoundError:
            pass
        try:
            # The library does not give back when an object was put, and sweeping must know: so it is said here.
            await store.put(name, io.BytesIO(data), ObjectMeta(name, description=datetime.now(UTC).isoformat()))
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the blob {name} was not stored: {error or type(error).__name__}") from error

    async def read(self, blob: Blob, into: BinaryIO) -> None:
        """Write a blob's bytes into a file; see Blobs.read."""
        checked = _Checking(into)
        try:
            await (await self._store()).get(blob.name, writeinto=checked)  # type: ignore[arg-type]
        except NotFoundError:
            raise CorruptBlob(f"the blob {blob.name} ({blob.size} bytes) is missing from the store") from None
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the blob {blob.name} was not read: {error or type(error).__name__}") from error
        if checked.digest.hexdigest() != blob.digest:
            raise CorruptBlob(f"the blob {blob.name} was altered: its bytes do not have the digest {blob.digest}")

    async def delete(self, names: Iterable[str]) -> None:
        """Remove blobs; see Blobs.delete."""
        store = await self._store()
        for name in names:
            try:
                await store.delete(name)
            except NotFoundError:
                continue

    async def sweep(self, named: Callable[[str], Awaitable[set[str]]]) -> None:
        """Remove blobs older than a day that no entry names: of appends that never came to be.

        named: gives the names of the blobs that the entries of an execution hold.
        """
        store = await self._store()
        day_ago = datetime.now(UTC) - timedelta(days=1)
        try:
            infos = await store.list(ignore_deletes=True)
        except NotFoundError:
            return  # it is empty
        kept: dict[str, set[str]] = {}
        for info in infos:
            if not info.name or not info.description or datetime.fromisoformat(info.description) > day_ago:
                continue
            execution = execution_of(info.name.partition("/")[0])
            if execution not in kept:
                kept[execution] = await named(execution)
            if info.name not in kept[execution]:
                await store.delete(info.name)

    async def _store(self) -> ObjectStore:
        if self._opened is None:
            try:
                self._opened = await self._js.object_store(self._bucket)
            except NotFoundError:
                config = ObjectStoreConfig(self._bucket, storage=StorageType.FILE, replicas=self._replicas)
                self._opened = await self._js.create_object_store(self._bucket, config)
        return self._opened


class _Checking:
    """A file that hashes what is written through it."""

    def __init__(self, into: BinaryIO) -> None:
        self._into = into
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._into.write(data)


def spill(execution: str, entry: Entry, data: bytes) -> tuple[Entry, dict[str, bytes]]:
    """Return the entry without its large values, and those values as JSON by blob name.

    data: the entry as encoded. Values of events that are over VALUE_LIMIT leave it, and the past of a fork does; where
    it is still over ENTRY_LIMIT, so do all its events.
    """
    if len(data) <= VALUE_LIMIT and b'"past":' not in data:
        return entry, {}
    blobs: list[Blob] = []
    values: dict[str, bytes] = {}

    def take(at: str, value: Any) -> None:
        content = msgspec.json.encode(value)
        digest = hashlib.sha256(content).hexdigest()
        name = f"{token_of(execution)}/{digest}"
        blobs.append(Blob(at, name, len(content), digest))
        values[name] = content

    events = list(entry.events)
    for number, event in enumerate(events):
        for field in (*_FIELDS, _PAST):
            value = getattr(event, field, None)
            if value is not None and (field == _PAST or len(msgspec.json.encode(value)) > VALUE_LIMIT):
                take(f"/events/{number}/{field}", value)
                event = msgspec.structs.replace(event, **{field: None})
        events[number] = event
    slim = msgspec.structs.replace(entry, events=events, blobs=blobs)
    if len(encode(slim)) > ENTRY_LIMIT:
        blobs, values = [], {}
        take(_ALL_EVENTS, entry.events)
        slim = msgspec.structs.replace(entry, events=[], blobs=blobs)
    return slim, values


def names_blobs(recorded: Recorded) -> bool:
    """Say whether an entry may have left values in blobs, without decoding it."""
    return b'"blobs":[' in recorded.data


def tells_of_execution(recorded: Recorded) -> bool:
    """Say whether an entry may hold an event of the execution as a whole, such as its end, without decoding it."""
    return b'"type":"Execution' in recorded.data or names_blobs(recorded)


async def unspill(recorded: Recorded, blobs: Blobs) -> Recorded:
    """Return the recorded entry with the values that it left in blobs; raise CorruptBlob where one cannot be had."""
    if not names_blobs(recorded):
        return recorded
    values: dict[str, bytes] = {}
    for blob in recorded.slim.blobs:
        content = io.BytesIO()
        await blobs.read(blob, content)
        values[blob.name] = content.getvalue()
    return msgspec.structs.replace(recorded, values=values)


async def with_events(recorded: Recorded, blobs: Blobs) -> Recorded:
    """Return the recorded entry with all of its events and what its nodes wait for, should these be in blobs.

    Other values stay where they are. Raises CorruptBlob where a blob cannot be had, CorruptEntry.
    """
    if not names_blobs(recorded):
        return recorded
    entry = recorded.slim
    waiting = {f"/events/{number}/input" for number, event in enumerate(entry.events) if isinstance(event, NodeWaiting)}
    wanted = {_ALL_EVENTS, *waiting}
    return await unspill(recorded, blobs) if any(blob.at in wanted for blob in entry.blobs) else recorded

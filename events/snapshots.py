"""Snapshots: the last saved state of each execution, in a stream of its own; a cache that may be lost at any time."""

import asyncio
import zlib
from typing import Protocol
from uuid import uuid4

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from perdure.errors import LogUnavailable
from perdure.events.direct_get import DirectGet
from perdure.events.subjects import token_of

STREAM = "PERDURE_SNAPSHOTS"
_ROOT = "perdure.snap"
_CHUNK = 512 * 1024


class Snapshots(Protocol):
    """Keeps the last snapshot of each execution, as bytes that only whoever saved them understands."""

    async def save(self, execution: str, data: bytes) -> None:
        """Replace the snapshot of an execution. Failing to is no error: it is a cache."""
        ...

    async def load(self, execution: str) -> bytes | None:
        """Return the last snapshot that is there whole, or None."""
        ...

    async def delete(self, execution: str) -> None:
        """Remove the snapshot of an execution; none is no error."""
        ...


def stream_config(replicas: int = 1) -> StreamConfig:
    """Return the stream that snapshots need: the last message of each chunk's subject is kept."""
    return StreamConfig(
        name=STREAM,
        subjects=[f"{_ROOT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        allow_direct=True,
    )


class JetStreamSnapshots:
    """Snapshots as compressed chunks under `perdure.snap.<execution>.<chunk>`.

    The chunks of one save carry its id and their number. They are not written atomically: a load takes them only when
    they are all of one save and as many as it says.
    """

    def __init__(self, nats: Nats, timeout: float = 10.0) -> None:
        self._nats = nats
        self._js = nats.jetstream(timeout=timeout)
        self._gets = DirectGet(nats, STREAM, timeout)

    async def save(self, execution: str, data: bytes) -> None:
        """Replace the snapshot; see Snapshots.save. Raises LogUnavailable, which callers may ignore."""
        packed = await asyncio.to_thread(zlib.compress, data, 1)
        chunks = [packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK)]
        headers = {"Perdure-Save": uuid4().hex, "Perdure-Chunks": str(len(chunks))}
        try:
            for number, chunk in enumerate(chunks):
                await self._js.publish(f"{_ROOT}.{token_of(execution)}.{number}", chunk, headers=headers)
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the snapshot of {execution!r} was not saved: {error}") from error

    async def load(self, execution: str) -> bytes | None:
        """Return the last snapshot; see Snapshots.load."""
        chunks: dict[int, Msg] = {}
        async for message in self._gets.batch({"multi_last": [f"{_ROOT}.{token_of(execution)}.*"], "batch": 1000}):
            chunks[int((message.headers or {})["Nats-Subject"].rpartition(".")[2])] = message
        if 0 not in chunks:
            return None
        newest = chunks[0].headers or {}  # a larger one from before may have left chunks behind it
        whole = [
            chunks[number].data
            for number in range(int(newest["Perdure-Chunks"]))
            if number in chunks and (chunks[number].headers or {})["Perdure-Save"] == newest["Perdure-Save"]
        ]
        if len(whole) != int(newest["Perdure-Chunks"]):
            return None
        try:
            return zlib.decompress(b"".join(whole))
        except zlib.error:
            return None

    async def delete(self, execution: str) -> None:
        """Remove the snapshot; see Snapshots.delete."""
        try:
            await self._js.purge_stream(STREAM, subject=f"{_ROOT}.{token_of(execution)}.*")
        except NotFoundError:
            return

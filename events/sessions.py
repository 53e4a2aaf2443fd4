"""What agents remember, by session: records in a stream of their own, one subject a session; kept until deleted.

A record that is too large for a message is a blob beside the stream, and its message names that.
"""

import hashlib
import io

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from perdure.errors import LogUnavailable
from perdure.events.blobs import ENTRY_LIMIT, JetStreamBlobs
from perdure.events.direct_get import DirectGet
from perdure.events.entry import Blob
from perdure.events.server_checks import ensure_stream
from perdure.events.subjects import execution_of, token_of

STREAM = "PERDURE_SESSIONS"
_ROOT = "perdure.session"
_BUCKET = "PERDURE_SESSION_BLOBS"
_BLOB = "Perdure-Blob"  # the header that names the blob of a record


def stream_config(replicas: int = 1) -> StreamConfig:
    """Return the stream that sessions need."""
    return StreamConfig(
        name=STREAM,
        subjects=[f"{_ROOT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
    )


class JetStreamSessions:
    """The records of sessions under `perdure.session.<session>`; the stream is made when the first one is needed."""

    def __init__(self, nats: Nats, timeout: float = 10.0, replicas: int = 1) -> None:
        self._nats = nats
        self._js = nats.jetstream(timeout=timeout)
        self._gets = DirectGet(nats, STREAM, timeout)
        self._blobs = JetStreamBlobs(nats, replicas, _BUCKET)
        self._replicas = replicas
        self._opened = False

    async def read(self, session: str, upto: int | None = None) -> list[tuple[int, bytes]]:
        """Return the records of a session with their numbers, oldest first, up to a number.

        Raises LogUnavailable, or CorruptBlob where a large one is not there or altered.
        """
        found: list[tuple[int, bytes]] = []
        for number, data, blob in await self._messages(session):
            if upto is not None and number > upto:
                break
            found.append((number, await self._large(blob) if blob else data))
        return found

    async def append(self, session: str, record: bytes, key: str) -> None:
        """Add a record; one of the same key within the last minutes is added once. Raises LogUnavailable."""
        await self._open()
        subject, headers = f"{_ROOT}.{token_of(session)}", {"Nats-Msg-Id": f"{session}/{key}"}
        if len(record) > ENTRY_LIMIT:
            headers[_BLOB] = f"{token_of(session)}/{hashlib.sha256(record).hexdigest()}"
            await self._blobs.put(headers[_BLOB], record)
            record = b""
        try:
            await self._js.publish(subject, record, headers=headers)
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"session {session!r} was not added to: {error}") from error

    async def delete(self, session: str) -> None:
        """Forget a session; none is no error. Raises LogUnavailable."""
        blobs = [blob for _, _, blob in await self._messages(session) if blob]
        if blobs:
            await self._blobs.delete(blobs)  # first: while their messages are there they are found again
        try:
            await self._js.purge_stream(STREAM, subject=f"{_ROOT}.{token_of(session)}")
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"session {session!r} was not deleted: {error}") from error

    async def _messages(self, session: str) -> list[tuple[int, bytes, str]]:
        """Return each record's number, its data, and the name of its blob, "" where it needs none."""
        await self._open()
        found = self._gets.read(f"{_ROOT}.{token_of(session)}")
        headed = [(message.headers or {}, message.data) async for message in found]
        return [(int(headers["Nats-Sequence"]), data, headers.get(_BLOB, "")) for headers, data in headed]

    async def _large(self, name: str) -> bytes:
        into = io.BytesIO()
        await self._blobs.read(Blob("", name, 0, name.rpartition("/")[2]), into)
        return into.getvalue()

    async def list(self) -> dict[str, int]:
        """Return the sessions with the number of their records. Raises LogUnavailable."""
        await self._open()
        try:
            info = await self._js.stream_info(STREAM, subjects_filter=f"{_ROOT}.>")
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"the sessions cannot be listed: {error}") from error
        subjects = info.state.subjects or {}
        return {execution_of(name.removeprefix(f"{_ROOT}.")): count for name, count in sorted(subjects.items())}

    async def _open(self) -> None:
        if not self._opened:
            await ensure_stream(self._nats, stream_config(self._replicas))
            self._opened = True

"""What agents remember, by session: records in a stream of their own, one subject a session; kept until deleted."""

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from perdure.errors import LogUnavailable
from perdure.events.direct_get import DirectGet
from perdure.events.server_checks import ensure_stream
from perdure.events.subjects import execution_of, token_of

STREAM = "PERDURE_SESSIONS"
_ROOT = "perdure.session"


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
        self._replicas = replicas
        self._opened = False

    async def read(self, session: str, upto: int | None = None) -> list[tuple[int, bytes]]:
        """Return the records of a session with their numbers, oldest first, up to a number. Raises LogUnavailable."""
        await self._open()
        found: list[tuple[int, bytes]] = []
        async for message in self._gets.read(f"{_ROOT}.{token_of(session)}"):
            number = int((message.headers or {})["Nats-Sequence"])
            if upto is not None and number > upto:
                break
            found.append((number, message.data))
        return found

    async def append(self, session: str, record: bytes, key: str) -> None:
        """Add a record; one of the same key within the last minutes is added once. Raises LogUnavailable."""
        await self._open()
        try:
            subject = f"{_ROOT}.{token_of(session)}"
            await self._js.publish(subject, record, headers={"Nats-Msg-Id": f"{session}/{key}"})
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"session {session!r} was not added to: {error}") from error

    async def delete(self, session: str) -> None:
        """Forget a session; none is no error. Raises LogUnavailable."""
        try:
            await self._js.purge_stream(STREAM, subject=f"{_ROOT}.{token_of(session)}")
        except NotFoundError:
            return
        except (NatsError, ConnectionError) as error:
            raise LogUnavailable(f"session {session!r} was not deleted: {error}") from error

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

"""The logs of limits: one subject each in a stream of their own, the expected sequence as the fence."""

import zlib
from uuid import uuid4

import msgspec
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from perdure.actors.limit_facts import LimitEntry
from perdure.actors.limit_state import Group, apply
from perdure.errors import LogUnavailable, VersionConflict
from perdure.events.direct_get import DirectGet
from perdure.events.server_checks import ensure_stream
from perdure.events.subjects import execution_of, token_of

STREAM = "PERDURE_LIMITS"
_ROOT = "perdure.limits"
_STALE = 10071
_LARGE = 32 * 1024  # bytes from which an entry is compressed
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LimitEntry)


def stream_config(replicas: int = 1) -> StreamConfig:
    """Return the stream that limits need."""
    return StreamConfig(
        name=STREAM,
        subjects=[f"{_ROOT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
    )


class LimitLogs:
    """The logs of all limits; the stream is created when the first one is opened. `timeout` is in seconds."""

    def __init__(self, nats: Nats, timeout: float, replicas: int) -> None:
        self._nats = nats
        self._js = nats.jetstream(timeout=timeout)
        self._gets = DirectGet(nats, STREAM, timeout)
        self._replicas = replicas
        self._is_there = False

    async def open(self) -> None:
        """Create the stream where it is not there."""
        if not self._is_there:
            await ensure_stream(self._nats, stream_config(self._replicas))
            self._is_there = True

    async def load(self, group: str) -> tuple[Group, int, int, float]:
        """Return the state of a limit, the position of its last entry, how many there are, and when the last one was.

        Raises LogUnavailable.
        """
        state, position, entries, at = Group(), 0, 0, 0.0
        async for message in self._gets.read(_subject(group), 0, None):
            entry = _decode(message.data)
            for fact in entry.facts:
                apply(state, fact, entry.at)
            position, entries, at = int((message.headers or {})["Nats-Sequence"]), entries + 1, entry.at
        return state, position, entries, at

    async def append(self, group: str, entry: LimitEntry, expected: int) -> int:
        """Append an entry behind the position of the last one, and return its own.

        Raises VersionConflict where another limiter was there, and LogUnavailable, after which it is unknown whether it
        was stored.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected), "Perdure-Entry": uuid4().hex}
        try:
            return (await self._js.publish(_subject(group), _encode(entry), headers=headers)).seq
        except APIError as error:
            if error.err_code == _STALE:
                raise VersionConflict(f"limit {group}", expected, 0) from None
            raise LogUnavailable(f"limit {group!r}: its log refused an entry: {error.description}") from error
        except (NatsError, OSError) as error:
            raise LogUnavailable(f"limit {group!r}: its log did not answer: {error or type(error).__name__}") from error

    async def last(self, group: str) -> int:
        """Return the position of the last entry, as the leader has it; 0 where there is none."""
        try:
            return int((await self._js.get_last_msg(STREAM, _subject(group))).seq or 0)
        except NotFoundError:
            return 0
        except (NatsError, OSError) as error:
            raise LogUnavailable(f"limit {group!r}: its log did not answer: {error or type(error).__name__}") from error

    async def forget_before(self, group: str, position: int) -> None:
        """Remove the entries before a position; who comes to them later needs them no more."""
        try:
            await self._js.purge_stream(STREAM, subject=_subject(group), seq=position)
        except (NatsError, OSError) as error:
            raise LogUnavailable(f"limit {group!r}: its log did not answer: {error or type(error).__name__}") from error

    async def groups(self) -> list[str]:
        """Return the names of all limits that were ever asked for."""
        try:
            info = await self._js.stream_info(STREAM, subjects_filter=f"{_ROOT}.>")
        except NotFoundError:
            return []
        except (NatsError, OSError) as error:
            raise LogUnavailable(f"the limits did not answer: {error or type(error).__name__}") from error
        return sorted(execution_of(subject.removeprefix(f"{_ROOT}.")) for subject in info.state.subjects or {})


def _subject(group: str) -> str:
    return f"{_ROOT}.{token_of(group)}"


def _encode(entry: LimitEntry) -> bytes:
    data = _encoder.encode(entry)
    return zlib.compress(data, 1) if len(data) > _LARGE else data


def _decode(data: bytes) -> LimitEntry:
    return _decoder.decode(data if data.startswith(b"{") else zlib.decompress(data))

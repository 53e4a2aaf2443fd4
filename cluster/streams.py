"""What models say, and their calls, told as they come to who listens and to nobody else; nothing of it is in the log.

Each node has a subject of its own, `perdure.stream.<execution>.<node>`, with messages of JSON, a Piece each.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal
from uuid import uuid4

import msgspec
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from perdure.actors.secret_values import Secrets
from perdure.events.subjects import token_of

_EVERY = 0.05  # seconds between the pieces of one reply
_MOST = 100_000  # characters of a piece: the server takes no message of more than 1 MB


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of what a model says: `text` behind the first `at` characters of the reply `reply` of a node.

    kind: or else the `data` is what a tool is called with (`call`), or what that gave (`result`). cut: they are too
    large for a message, and only in the log.
    """

    node: str
    attempt: int
    reply: str
    at: int = 0
    text: str = ""
    kind: Literal["text", "call", "result"] = "text"
    data: Any = None
    cut: bool = False


def stream_subject(execution: str, node: str | None = None) -> str:
    """Return the subject on which an execution's node is heard; with a wildcard for all of its nodes."""
    return f"perdure.stream.{token_of(execution)}.{'*' if node is None else token_of(node)}"


def join_subject(execution: str) -> str:
    """Return the subject on which who joins late asks for what was said so far."""
    return f"perdure.join.{token_of(execution)}"


class Streams:
    """The replies that are under way in this process, told on the subjects of their executions."""

    def __init__(self, nats: Nats, secrets: Secrets) -> None:
        self._nats = nats
        self._secrets = secrets
        self._open: dict[str, list[_Stream]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def begin(self, execution: str, node: str, attempt: int) -> "_Stream":
        """Begin to tell a reply; whoever begins one closes it."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        stream = _Stream(
            Piece(node, attempt, uuid4().hex[:12]), self._secrets, lambda piece: self._tell(execution, piece)
        )
        self._open.setdefault(execution, []).append(stream)
        stream.closed = lambda: self._forget(execution, stream)
        return stream

    def _forget(self, execution: str, stream: "_Stream") -> None:
        left = self._open.get(execution, [])
        if stream in left:
            left.remove(stream)
        if not left:
            self._open.pop(execution, None)

    async def _listen(self) -> None:
        """Answer who joins late with what was said so far."""

        async def joined(message: Msg) -> None:
            token = message.subject.rpartition(".")[2]
            for execution in [each for each in self._open if token_of(each) == token]:
                self._say_again(execution)

        try:
            await self._nats.subscribe("perdure.join.*", cb=joined)
            for execution in list(self._open):  # somebody may have asked before
                self._say_again(execution)
        except (NatsError, OSError):
            self._listening = None  # the next reply tries again

    def _say_again(self, execution: str) -> None:
        for stream in self._open.get(execution, ()):
            stream.say_again()

    def _tell(self, execution: str, piece: Piece) -> None:
        task = asyncio.create_task(self._publish(execution, piece))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _publish(self, execution: str, piece: Piece) -> None:
        try:
            await self._nats.publish(stream_subject(execution, piece.node), msgspec.json.encode(piece))
        except (NatsError, OSError):
            return  # nobody is owed it


class _Stream:
    """One reply as it comes: told a few times a second, without secrets."""

    def __init__(self, about: Piece, secrets: Secrets, tell: Callable[[Piece], None]) -> None:
        self._about = about
        self._secrets = secrets
        self._tell = tell
        self._said: list[str] = []
        self._told = ""
        self._timer: asyncio.TimerHandle | None = None
        self._call: Piece | None = None
        self.closed: Callable[[], None] = lambda: None

    def hear(self, piece: str) -> None:
        """Take a piece of the reply."""
        self._said.append(piece)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._flush)

    def tell(self, kind: Literal["call", "result"], data: Any) -> None:
        """Tell what a tool is called with, or what that gave."""
        data = self._secrets.redact(data)
        cut = len(msgspec.json.encode(data)) > _MOST
        piece = msgspec.structs.replace(self._about, kind=kind, data=None if cut else data, cut=cut)
        self._call = piece if kind == "call" else None
        self._tell(piece)

    def close(self) -> None:
        """Tell the rest, and no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._tell_up_to(self._secrets.redact("".join(self._said)))
        self.closed()

    def say_again(self) -> None:
        """Tell all that was told so far."""
        if self._call is not None:
            self._tell(self._call)
            return
        self._say(0, self._told)

    def _flush(self) -> None:
        self._timer = None
        text = "".join(self._said)
        self._said = [text]
        self._tell_up_to(self._secrets.redact_begun(text))

    def _tell_up_to(self, text: str) -> None:
        if len(text) > len(self._told):
            self._say(len(self._told), text[len(self._told) :])
            self._told = text

    def _say(self, at: int, text: str) -> None:
        for begin in range(0, len(text) or 1, _MOST):
            piece = text[begin : begin + _MOST]
            self._tell(msgspec.structs.replace(self._about, at=at + begin, text=piece))

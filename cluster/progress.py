"""Progress of tools, told to who listens and to nobody else: the last of each node, a few times a second."""

import asyncio
from typing import Any

import msgspec
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from perdure.events.subjects import token_of

_EVERY = 0.25  # seconds


class NodeProgress(msgspec.Struct, frozen=True):
    """How far an attempt at a node is: what its tool gave to `heartbeat`."""

    node: str
    attempt: int
    progress: Any


def progress_subject(execution: str, node: str | None = None) -> str:
    """Return the subject on which a node's progress is told; with a wildcard for all nodes of an execution."""
    return f"perdure.progress.{token_of(execution)}.{'*' if node is None else token_of(node)}"


class Progress:
    """Tells progress on a node's subject, as the JSON of NodeProgress."""

    def __init__(self, nats: Nats) -> None:
        self._nats = nats
        self._loop = asyncio.get_running_loop()
        self._last: dict[tuple[str, str], tuple[int, Any]] = {}
        self._telling: asyncio.Task[None] | None = None

    def tell(self, execution: str, node: str, attempt: int, progress: Any) -> None:
        """Tell how far an attempt is; from any thread."""
        waits = bool(self._last)
        self._last[execution, node] = (attempt, progress)
        if not waits:
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._telling = asyncio.create_task(self._tell_all())

    async def _tell_all(self) -> None:
        await asyncio.sleep(_EVERY)
        last, self._last = self._last, {}
        for (execution, node), (attempt, progress) in last.items():
            told = msgspec.json.encode(NodeProgress(node, attempt, progress))
            try:
                await self._nats.publish(progress_subject(execution, node), told)
            except (NatsError, OSError):
                continue  # nobody is owed it

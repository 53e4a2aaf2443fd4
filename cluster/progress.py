"""Progress of tools, told to who listens and to nobody else: the last of each node, a few times a second."""

import asyncio
import json
from typing import Any

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from perdure.events.subjects import token_of

SUBJECT = "perdure.progress"
_EVERY = 0.25  # seconds


class Progress:
    """Tells progress on `perdure.progress.<execution>` as JSON: `node`, `attempt`, `progress`."""

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
            told = {"node": node, "attempt": attempt, "progress": progress}
            try:
                await self._nats.publish(f"{SUBJECT}.{token_of(execution)}", json.dumps(told).encode())
            except (NatsError, OSError):
                return  # nobody is owed it

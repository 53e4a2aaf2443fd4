"""The projection runner of a cluster: folds what comes, as it comes, in a process of its own."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from perdure.cluster.connection import Connection
from perdure.cluster.settings import Settings
from perdure.errors import BadInput, LogUnavailable, PerdureError
from perdure.events.subjects import LIVE

if TYPE_CHECKING:
    from perdure.projections.runner import Projections

NAME = "projections"
"""What it answers to, as a host does to its name."""
_SHORTEST_REST = 0.1  # seconds between two looks
_LONGEST_REST = 1.0
_LOOK_ANYWAY = 10.0  # seconds: live copies are hints, which may be lost
_AGAIN_SECONDS = 2.0
_log = logging.getLogger("perdure.projections")


async def keep_projecting(connection: Connection, settings: Settings) -> None:
    """Fold new entries into all projections, until cancelled; what keeps them from it is said once, and tried again.

    Others may fold at the same time: a position is moved by one of them only.
    """
    since = time.time()

    async def answer(message: Msg) -> None:
        await message.respond(json.dumps({"since": since, "pid": os.getpid(), "node": socket.gethostname()}).encode())

    await connection.nats.subscribe(f"perdure.host.{NAME}", cb=answer)
    said, news = "", _News(connection)
    while True:
        try:
            projections = _opened(settings)
            try:
                while True:
                    began = time.monotonic()
                    await news.listen()
                    await projections.catch_up(connection.log)
                    said = ""
                    # As long as that took: half the time at most, so that much at once is folded in few transactions.
                    await asyncio.sleep(min(max(_SHORTEST_REST, time.monotonic() - began), _LONGEST_REST))
                    await news.within(_LOOK_ANYWAY)
            finally:
                projections.close()
        except PerdureError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("the read models stand still, and are tried again every %g s: %s", _AGAIN_SECONDS, error)
            await asyncio.sleep(_AGAIN_SECONDS)


class _News:
    """Tells of the next entry, and of no more, however many come: a busy log costs its listener nothing."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._come = asyncio.Event()
        self._come.set()
        connection.reconnected.add(self._come.set)

    async def listen(self) -> None:
        """Listen for one, from now on. Raises LogUnavailable."""
        if not self._come.is_set():
            return
        self._come.clear()
        try:
            heard = await self._nats.subscribe(f"{LIVE}.>", cb=self._hear)
            await heard.unsubscribe(limit=1)
        except (NatsError, OSError) as error:
            self._come.set()
            raise LogUnavailable(f"the server did not answer: {error or type(error).__name__}") from error

    async def within(self, seconds: float) -> None:
        """Return when there was one, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._come.wait()

    async def _hear(self, _copy: Msg) -> None:
        self._come.set()


def _opened(settings: Settings) -> "Projections":
    from perdure.projections.loading import own_projections
    from perdure.projections.runner import BATCH_OF_ONE_THAT_STAYS, Projections

    try:
        own = own_projections(settings.projections)
    except BadInput as error:
        _log.error("perdure's own read models are kept, and no others: %s; mend it, and restart the cluster", error)
        own = []
    return Projections(settings.projections_at, own, BATCH_OF_ONE_THAT_STAYS)

"""The projection runner of a cluster: folds what comes, as it comes, in a process of its own."""

import asyncio
import json
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from nats.aio.msg import Msg

from perdure.cluster.connection import Connection
from perdure.cluster.settings import Settings
from perdure.errors import BadInput, PerdureError

if TYPE_CHECKING:
    from perdure.projections.runner import Projections

NAME = "projections"
"""What it answers to, as a host does to its name."""
_LOOK_SECONDS = 0.1
_LONGEST_REST = 1.0
_BATCH = 200  # entries at once: this process stays, and with it the memory that it once needed
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
    said = ""
    while True:
        try:
            projections = _opened(settings)
            try:
                while True:
                    began = time.monotonic()
                    await projections.catch_up(connection.log)
                    said = ""
                    # As long as that took: half the time at most, so that much at once is folded in few transactions.
                    await asyncio.sleep(min(max(_LOOK_SECONDS, time.monotonic() - began), _LONGEST_REST))
            finally:
                projections.close()
        except PerdureError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("the read models stand still, and are tried again every %g s: %s", _AGAIN_SECONDS, error)
            await asyncio.sleep(_AGAIN_SECONDS)


def _opened(settings: Settings) -> "Projections":
    from perdure.projections.loading import own_projections
    from perdure.projections.runner import Projections

    try:
        own = own_projections(settings.projections)
    except BadInput as error:
        _log.error("perdure's own read models are kept, and no others: %s; mend it, and restart the cluster", error)
        own = []
    return Projections(settings.projections_at, own, _BATCH)

"""The connection: NATS opened and checked, the streams and the bucket there, the log, inbox and registry on them."""

import asyncio
from dataclasses import dataclass

from nats.aio.client import Client as Nats

from perdure.cluster import inbox
from perdure.cluster.inbox import Inbox
from perdure.cluster.registry import Registry
from perdure.events import jetstream_log
from perdure.events.jetstream_log import JetStreamLog
from perdure.events.nats_connection import connect, ensure_stream


@dataclass
class Connection:
    """An open connection to the store's server."""

    nats: Nats
    log: JetStreamLog
    inbox: Inbox
    registry: Registry

    async def close(self) -> None:
        """Close the connection; whatever was acknowledged is stored already."""
        await self.nats.close()


async def open_connection(url: str, token: str | None, timeout: float = 10.0) -> Connection:
    """Connect, check the server, and create what is missing. `timeout` is the log's, in seconds.

    url: one server's, or several separated by commas. Raises EnvironmentProblem naming what is wrong with the server
    and how to mend it.
    """
    client = Nats()
    log = JetStreamLog(client, timeout)

    async def disconnected() -> None:
        log.disconnected()

    async def reconnected() -> None:
        log.reconnected()

    await connect(client, url, token, disconnected, reconnected)
    try:
        _, _, registry = await asyncio.gather(
            ensure_stream(client, jetstream_log.stream_config()),
            ensure_stream(client, inbox.stream_config()),
            Registry.open(client),
        )
    except BaseException:
        await client.close()
        raise
    return Connection(client, log, Inbox(client, timeout), registry)

"""The connection: NATS opened and checked, the streams and the bucket there, the log, inbox and registry on them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from perdure.cluster import inbox
from perdure.cluster.inbox import Inbox
from perdure.cluster.registry import BUCKET, Registry
from perdure.events import jetstream_log, snapshots
from perdure.events.jetstream_log import JetStreamLog
from perdure.events.nats_connection import Client, connect
from perdure.events.server_checks import check_sync, ensure_stream, opened
from perdure.events.snapshots import JetStreamSnapshots


@dataclass
class Connection:
    """An open connection to the store's server.

    reconnected: called when it is back after it was lost. closing: awaited before it is closed.
    """

    nats: Nats
    log: JetStreamLog
    snapshots: JetStreamSnapshots
    inbox: Inbox
    registry: Registry
    reconnected: set[Callable[[], None]] = field(default_factory=set)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def close(self) -> None:
        """Close the connection; whatever was acknowledged is stored already."""
        for close in self.closing:
            await close()
        with contextlib.suppress(NatsError, OSError):  # it may be gone already
            await self.nats.close()


async def open_connection(
    url: str, token: str | None, timeout: float = 10.0, replicas: int = 1, *, synced: bool = True
) -> Connection:
    """Connect, check the server, and create what is missing. `timeout` is the log's, in seconds.

    url: one server's, or several separated by commas. replicas: of every stream that is created. synced: false
    warns unless the server is seen to sync every write to disk. Raises EnvironmentProblem naming what is wrong with
    the server and how to mend it.
    """
    client = Client()
    log, commands = JetStreamLog(client, timeout, replicas), Inbox(client, timeout)
    heard: set[Callable[[], None]] = set()

    async def disconnected() -> None:
        log.disconnected()
        commands.disconnected()

    async def reconnected() -> None:
        log.reconnected()
        for tell in list(heard):
            tell()

    await connect(client, url, token, disconnected, reconnected)
    try:
        _, _, _, _, _, registry = await asyncio.gather(
            log.open(),
            commands.open(),
            ensure_stream(client, jetstream_log.stream_config(replicas)),
            ensure_stream(client, snapshots.stream_config(replicas)),
            ensure_stream(client, inbox.stream_config(replicas)),
            opened(client, BUCKET, Registry.open(client, replicas)),
        )
        if not synced:
            await check_sync(client, url)
    except BaseException:
        await client.close()
        raise
    return Connection(client, log, JetStreamSnapshots(client, timeout), commands, registry, heard)

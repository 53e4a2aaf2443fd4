"""The connection: NATS opened and checked, the streams and the bucket there, the log, inbox and registry on them."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError

from perdure.cluster import inbox
from perdure.cluster.inbox import Inbox
from perdure.cluster.registry import BUCKET, Registry
from perdure.cluster.server_checks import check_sync, check_version, ensure_stream, masked, opened
from perdure.errors import EnvironmentProblem
from perdure.events import jetstream_log, snapshots
from perdure.events.jetstream_log import JetStreamLog
from perdure.events.snapshots import JetStreamSnapshots

_CONNECT_SECONDS = 10.0
_log = logging.getLogger("perdure.nats")


@dataclass
class Connection:
    """An open connection to the store's server."""

    nats: Nats
    log: JetStreamLog
    snapshots: JetStreamSnapshots
    inbox: Inbox
    registry: Registry

    async def close(self) -> None:
        """Close the connection; whatever was acknowledged is stored already."""
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
    client = Nats()
    log = JetStreamLog(client, timeout, replicas)
    await _connect(client, log, url, token)
    try:
        check_version(client, url)
        _, _, _, _, registry = await asyncio.gather(
            log.open(),
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
    return Connection(client, log, JetStreamSnapshots(client, timeout), Inbox(client, timeout), registry)


async def _connect(client: Nats, log: JetStreamLog, url: str, token: str | None) -> None:
    """Connect for the first time: fail as soon as every server has failed, for the client alone would try for ever."""
    servers, connected = url.split(","), False
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    errors: list[Exception] = []

    async def report(error: Exception) -> None:
        if connected:
            _log.warning("NATS: %s", error or type(error).__name__)
            return
        errors.append(error)
        if len(errors) >= len(servers) and not failed.done():
            failed.set_result(None)

    async def disconnected() -> None:
        log.disconnected()

    async def reconnected() -> None:
        log.reconnected()

    opening = asyncio.create_task(
        client.connect(
            servers, token=token, name="perdure", error_cb=report, connect_timeout=5,
            disconnected_cb=disconnected, reconnected_cb=reconnected,
            max_reconnect_attempts=-1, reconnect_time_wait=0.2,  # type: ignore[arg-type]
        )
    )  # fmt: skip
    await asyncio.wait({opening, failed}, timeout=_CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if opening.done() and not opening.exception():
        connected = True
        return
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await client.close()
    reason = "; ".join(dict.fromkeys(str(error) or type(error).__name__ for error in errors)) or "no answer"
    raise EnvironmentProblem(
        f"cannot connect to NATS at {masked(url)}: {reason}; check PERDURE_NATS_URL and the token file"
    )

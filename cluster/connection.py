"""The connection: NATS opened and checked, the streams and the bucket there, the log, inbox and registry on them."""

import asyncio
import logging
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from nats.aio.client import Client as Nats
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from perdure.cluster import inbox
from perdure.cluster.inbox import Inbox
from perdure.cluster.registry import BUCKET, Registry
from perdure.errors import EnvironmentProblem
from perdure.events import jetstream_log
from perdure.events.jetstream_log import JetStreamLog

MIN_VERSION = (2, 14)
_CONNECT_SECONDS = 10.0
_T = TypeVar("_T")
_log = logging.getLogger("perdure.nats")


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


async def open_connection(url: str, token: str | None, timeout: float = 10.0, replicas: int = 1) -> Connection:
    """Connect, check the server, and create what is missing. `timeout` is the log's, in seconds.

    url: one server's, or several separated by commas. replicas: copies of each stream. Raises EnvironmentProblem
    naming what is wrong with the server and how to mend it.
    """
    client = Nats()
    log = JetStreamLog(client, timeout)
    await _connect(client, log, url, token)
    try:
        _check_version(client, url)
        _, _, _, registry = await asyncio.gather(
            log.open(),
            _opened(jetstream_log.STREAM, _ensure(client, jetstream_log.stream_config(replicas))),
            _opened(inbox.STREAM, _ensure(client, inbox.stream_config(replicas))),
            _opened(BUCKET, Registry.open(client, replicas)),
        )
    except BaseException:
        await client.close()
        raise
    return Connection(client, log, Inbox(client, timeout), registry)


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
    raise EnvironmentProblem(f"cannot connect to NATS at {url}: {reason}; check PERDURE_NATS_URL and the token file")


def _check_version(client: Nats, url: str) -> None:
    version = str(client.connected_server_version)
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        raise EnvironmentProblem(f"the NATS server at {url} is {version}; perdure needs {wanted} or newer")


async def _ensure(client: Nats, config: StreamConfig) -> None:
    """Create a stream where it is not there yet; one that is there is used as it is."""
    js = client.jetstream()
    try:
        await js.stream_info(str(config.name))
    except NotFoundError:
        await js.add_stream(config)


async def _opened(name: str, opening: Coroutine[Any, Any, _T]) -> _T:
    """Wait for a stream or bucket; say what is wrong with the server when it cannot be had."""
    try:
        return await opening
    except ServiceUnavailableError as error:
        if error.err_code is None:  # nobody answered at all
            raise EnvironmentProblem("the NATS server runs without JetStream; start it with -js") from error
        raise EnvironmentProblem(f"{name} cannot be used for now: {error.description}") from error
    except TimeoutError as error:
        raise EnvironmentProblem(f"{name} cannot be used for now: no answer; has the NATS cluster a leader?") from error
    except APIError as error:
        raise EnvironmentProblem(f"{name} cannot be used: {error.description}; see PERDURE_REPLICAS") from error

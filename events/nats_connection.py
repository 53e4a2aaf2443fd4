"""NATS opened, checked and given its streams: fail soon and clearly at first, then reconnect for ever."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

from nats.aio.client import Client as Nats
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from perdure.errors import EnvironmentProblem

MIN_VERSION = (2, 14)
_CONNECT_SECONDS = 10.0
_log = logging.getLogger("perdure.nats")


async def connect(
    client: Nats,
    url: str,
    token: str | None,
    disconnected: Callable[[], Awaitable[None]],
    reconnected: Callable[[], Awaitable[None]],
) -> None:
    """Connect and check the server's version; the client is closed where that fails.

    url: one server's, or several separated by commas. Raises EnvironmentProblem naming what is wrong with the server
    and how to mend it.
    """
    await _connect(client, url, token, disconnected, reconnected)
    try:
        _check_version(client, url)
    except BaseException:
        await client.close()
        raise


async def ensure_stream(client: Nats, config: StreamConfig) -> None:
    """Create a stream where it is not there yet; one that is there is used as it is."""
    js = client.jetstream()
    try:
        try:
            await js.stream_info(str(config.name))
        except NotFoundError:
            await js.add_stream(config)
    except ServiceUnavailableError as error:
        raise EnvironmentProblem("the NATS server runs without JetStream; start it with -js") from error
    except APIError as error:
        raise EnvironmentProblem(f"the stream {config.name} cannot be used: {error.description}") from error


async def _connect(
    client: Nats,
    url: str,
    token: str | None,
    disconnected: Callable[[], Awaitable[None]],
    reconnected: Callable[[], Awaitable[None]],
) -> None:
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

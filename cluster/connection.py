"""The connection: NATS opened and checked, the streams and the bucket there, the log, inbox and registry on them."""

import asyncio
import logging
import re
from dataclasses import dataclass

import nats
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from perdure.cluster import inbox
from perdure.cluster.inbox import Inbox
from perdure.cluster.registry import Registry
from perdure.errors import EnvironmentProblem
from perdure.events import jetstream_log
from perdure.events.jetstream_log import JetStreamLog

MIN_VERSION = (2, 14)
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


async def open_connection(url: str, token: str | None, timeout: float = 10.0) -> Connection:
    """Connect, check the server, and create what is missing. `timeout` is the log's, in seconds.

    Raises EnvironmentProblem naming what is wrong with the server and how to mend it.
    """
    try:
        client = await nats.connect(
            url, token=token, name="perdure", max_reconnect_attempts=-1, reconnect_time_wait=0.2, connect_timeout=5,
            allow_reconnect=True, error_cb=_report,
        )  # fmt: skip
    except (TimeoutError, NatsError, OSError) as error:
        raise EnvironmentProblem(f"cannot connect to NATS at {url}: {error or type(error).__name__}") from error
    try:
        _check_version(client, url)
        _, _, registry = await asyncio.gather(
            _ensure(client, jetstream_log.stream_config()),
            _ensure(client, inbox.stream_config()),
            Registry.open(client),
        )
    except BaseException:
        await client.close()
        raise
    return Connection(client, JetStreamLog(client, timeout), Inbox(client, timeout), registry)


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
    except ServiceUnavailableError as error:
        raise EnvironmentProblem("the NATS server runs without JetStream; start it with -js") from error
    except APIError as error:
        raise EnvironmentProblem(f"the stream {config.name} cannot be used: {error.description}") from error


async def _report(error: Exception) -> None:
    _log.warning("NATS: %s", error or type(error).__name__)

"""Logs by URL: `memory://`, `nats://host:port`, and whatever else a package registers for its scheme."""

from importlib.metadata import entry_points
from urllib.parse import urlparse

from perdure.errors import BadInput
from perdure.events.jetstream_log import JetStreamLog, stream_config
from perdure.events.log import Log
from perdure.events.memory_log import MemoryLog
from perdure.events.nats_connection import Client, connect
from perdure.events.server_checks import ensure_stream

GROUP = "perdure.logs"
"""The entry point group: its name is a URL scheme, its value an `async` function from the URL to a Log."""


async def open_log(url: str) -> Log:
    """Open the log that a URL names; raise BadInput for a scheme that nobody serves."""
    scheme = urlparse(url).scheme
    known = {"memory": _open_memory, "nats": _open_nats}
    if scheme in known:
        return await known[scheme](url)
    for entry_point in entry_points(group=GROUP, name=scheme):
        log: Log = await entry_point.load()(url)
        return log
    schemes = ", ".join(sorted({*known, *(entry_point.name for entry_point in entry_points(group=GROUP))}))
    raise BadInput(f"no log is known for {url!r}: its scheme is one of {schemes}, or comes with a package")


async def _open_memory(_url: str) -> Log:
    return MemoryLog()


async def _open_nats(url: str) -> Log:
    client = Client()
    log = JetStreamLog(client)

    async def disconnected() -> None:
        log.disconnected()

    async def reconnected() -> None:
        log.reconnected()

    await connect(client, url, None, disconnected, reconnected)
    await ensure_stream(client, stream_config())
    await log.open()
    return log

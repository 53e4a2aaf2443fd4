"""NATS opened and checked: fail soon and clearly at first, then reconnect for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from nats.aio.client import Client as Nats

from perdure.errors import EnvironmentProblem
from perdure.events.server_checks import check_version, masked

_CONNECT_SECONDS = 10.0
_log = logging.getLogger("perdure.nats")


class Client(Nats):
    """nats-py's client with a quicker reading and writing of headers, which survives a flush that was given up.

    Its own looks at every character of every name: half the time of reading a long history (11 headers stand before
    each entry), and a third of that of sending a crowd of appends (7 headers each). The methods are private to
    nats-py, so its minor version is pinned; where a later one calls them no more, nothing breaks.
    """

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # nobody waits any more: to answer would end the reading for good
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, str] | None
    ) -> None:
        # Joined, not formatted: nats-py's own names are members of an Enum, whose format is not their value.
        lines = [part for header in (headers or {}).items() for part in (header[0], ": ", header[1], "\r\n")]
        block = "".join(lines)
        if not headers or block.count("\n") != len(headers) or block.count("\r") != len(headers):
            return await super()._send_publish(subject, reply, payload, payload_size, headers)
        head = f"NATS/1.0\r\n{block}\r\n".encode()
        command = f"HPUB {subject} {reply} {len(head)} {len(head) + payload_size}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(b"".join((command, head, payload, b"\r\n")))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()
        return None

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        try:
            return dict([line.split(": ", 1) for line in raw.decode("utf-8", "replace").split("\r\n") if line])
        except ValueError:  # not as servers and our own clients write them
            headers: dict[str, str] = Nats._parse_header_lines(raw)
            return headers


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
        check_version(client, url)
    except BaseException:
        await client.close()
        raise


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
    raise EnvironmentProblem(
        f"cannot connect to NATS at {masked(url)}: {reason}; check PERDURE_NATS_URL and the token file"
    )

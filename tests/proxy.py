"""A proxy between a NATS client and its server that knows enough of the protocol to lose things on purpose."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlparse

Rule = Callable[[str, bytes], str | None]
"""Says of one message (subject, headers and payload) what becomes of it: None (it passes), `drop` or `cut`."""


class Proxy:
    """Forwards between clients and one server. `requests` judges what clients publish, `answers` what they get."""

    def __init__(self, url: str) -> None:
        self.target = urlparse(url)
        self.requests: Rule = lambda _subject, _data: None
        self.answers: Rule = lambda _subject, _data: None
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[Self]:
        proxy = cls(url)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            await server.wait_closed()

    url = ""

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream_reader, upstream_writer = await asyncio.open_connection(self.target.hostname, self.target.port)
        self._open |= {writer, upstream_writer}
        await asyncio.gather(
            self._forward(reader, upstream_writer, b"PUB", b"HPUB", lambda *message: self.requests(*message)),
            self._forward(upstream_reader, writer, b"MSG", b"HMSG", lambda *message: self.answers(*message)),
        )
        for each in (writer, upstream_writer):
            each.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plain: bytes, headed: bytes, rule: Rule
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                words = line.split()
                payload, fate = b"", None
                if words and words[0] in (plain, headed):
                    payload = await reader.readexactly(int(words[-1]) + 2)
                    fate = rule(words[1].decode(), payload)
                if fate == "cut":
                    self.cut()
                    return
                if fate != "drop":
                    writer.write(line + payload)
                    await writer.drain()
        writer.close()

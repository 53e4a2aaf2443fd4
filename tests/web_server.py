"""A web server of a few lines for tests, which answers as each test says, and remembers what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebServer:
    """Where it listens, what it answers by path, and what it was asked."""

    port: int = 0
    answers: dict[str, Answer | Callable[[Asked], Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def web_server(host: str = "127.0.0.1", tls: SSLContext | None = None) -> AsyncIterator[WebServer]:
    made = WebServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, path, headers, body)
            made.asked.append(asked)
            path = path.partition("?")[0]
            if path in made.silent:
                await reader.read()  # until the client goes
                return
            answer = made.answers[path]
            status, more, content = answer(asked) if callable(answer) else answer
            lines = [f"HTTP/1.1 {status} x", *(f"{key}: {value}" for key, value in more.items())]
            lines += [f"content-length: {len(content)}", "connection: close", "", ""]
            writer.write("\r\n".join(lines).encode() + content)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has heard enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made

"""The MCP connections of a process: opened when first called, shared by all calls, opened again when they broke."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from perdure.actors.mcp_stderr import Stderr
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside
from perdure.actors.tool_schema import ToolSchema
from perdure.definitions.data_words import UNCHECKED, misfits
from perdure.definitions.hints import did_you_mean
from perdure.definitions.json_values import to_json_value
from perdure.definitions.mcp_servers import McpServer
from perdure.errors import BadInput, EnvironmentProblem, PerdureError, ToolNotFound

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client import Transport
    from mcp_types import CallToolResult

MOST = 32
"""Connections that a process holds at once."""
_PROBED_AFTER = 2.0  # seconds without a call, after which a connection is tried before it is used
_MOST_TOOLS = 1000


class McpToolFailed(PerdureError):
    """A tool of an MCP server says that it failed; the message is the server's."""


class McpPool:
    """The connections, one for each server and what it is reached with. Use it on one event loop."""

    def __init__(self) -> None:
        self._connections: dict[str, _Connection] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def tools(self, name: str, server: McpServer, outside: Outside) -> dict[str, ToolSchema]:
        """Return the tools of a server by name. Raises Unavailable, EnvironmentProblem or SecretMissing."""
        async with self._used(name, server, outside) as connection:
            return await connection.tools()

    async def call(
        self, name: str, server: McpServer, tool: str, arguments: Mapping[str, Any], outside: Outside, key: str
    ) -> Any:
        """Call a tool and return its JSON result; key: goes along as what names the effect.

        Raises ToolNotFound, BadInput, McpToolFailed, Unavailable, EnvironmentProblem or SecretMissing.
        """
        async with self._used(name, server, outside) as connection:
            return await connection.call(tool, arguments, key)

    async def close(self) -> None:
        """Close all connections, and end the servers that were started for them."""
        for key in list(self._connections):
            self._drop(key)
        await asyncio.gather(*self._ending)

    @contextlib.asynccontextmanager
    async def _used(self, name: str, server: McpServer, outside: Outside) -> AsyncIterator["_Connection"]:
        """Give a connection that is ready, for one call; one that breaks meanwhile is dropped."""
        reached = server.model_copy(update=outside.reveal(server.templates))
        key = msgspec.json.encode([name, reached.model_dump(mode="json")]).decode()
        connection = self._connections.get(key)
        if connection is not None and not await connection.lives():
            self._drop(key, connection)
            connection = None
        connection = connection or self._opened(key, name, reached, outside)
        try:
            async with connection.room:
                await connection.ready()
                yield connection
        except _Broken as error:
            self._drop(key, connection)
            raise Unavailable(f"MCP server {name!r}: {error}{connection.stderr.last()}") from error.__cause__
        finally:
            connection.rest(lambda: self._drop(key, connection))

    def _opened(self, key: str, name: str, server: McpServer, outside: Outside) -> "_Connection":
        if key in self._connections:
            return self._connections[key]  # another call was faster
        if len(self._connections) >= MOST:
            idle = [each for each, connection in self._connections.items() if not connection.users]
            if not idle:
                raise Unavailable(f"MCP server {name!r}: {MOST} other servers are in use here, and no more are reached")
            self._drop(idle[0])
        self._connections[key] = _Connection(name, server, outside)
        return self._connections[key]

    def _drop(self, key: str, only: "_Connection | None" = None) -> None:
        connection = self._connections.get(key)
        if connection is None or (only is not None and connection is not only):
            return
        del self._connections[key]
        task = asyncio.create_task(connection.close(), name="perdure-mcp-close")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Broken(Exception):
    """The connection cannot be used any more."""


class _Connection:
    """One connection, held open by a task of its own: the library's scopes are entered and left by the same task."""

    def __init__(self, name: str, server: McpServer, outside: Outside) -> None:
        self.users = 0
        self.room = _Room(self, server.max_parallel)
        self.stderr = Stderr(name, outside.secrets.redact)
        self._name, self._server = name, server
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._client.add_done_callback(lambda done: done.cancelled() or done.exception())  # it was asked for
        self._closing = asyncio.Event()
        self._tools: dict[str, ToolSchema] | None = None
        self._used_at = asyncio.get_running_loop().time()
        self._idle: asyncio.TimerHandle | None = None
        self._held = asyncio.create_task(self._hold(), name=f"perdure-mcp {name}")

    async def ready(self) -> None:
        """Wait until it is open; raise _Broken where it cannot be, and EnvironmentProblem where it never will."""
        await asyncio.shield(self._client)

    async def lives(self) -> bool:
        """Say whether it can be used; one that was idle is asked, for its server may have gone."""
        if self._held.done():
            return False
        if self.users or asyncio.get_running_loop().time() - self._used_at < _PROBED_AFTER:
            return True
        try:
            async with asyncio.timeout(self._server.connect_timeout):
                await self.ready()
                await self._client.result().list_tools(cache_mode="bypass")
        except Exception:
            return False
        return True

    def rest(self, drop: Any) -> None:
        """Begin to count the time without a call."""
        loop = asyncio.get_running_loop()
        self._used_at = loop.time()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self.users and not self._held.done():
            self._idle = loop.call_later(self._server.idle, drop)

    async def tools(self) -> dict[str, ToolSchema]:
        """Return the server's tools by name."""
        if self._tools is None:
            self._tools = await self._asked(self._listed(), self._server.connect_timeout)
        return self._tools

    async def call(self, name: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Call a tool; see McpPool.call."""
        what = f"tool '{self._name}.{name}'"
        tools = await self.tools()
        if name not in tools:  # it may be new there
            self._tools = None
            tools = await self.tools()
        if name not in tools:
            hint = did_you_mean(name, tools) or f"; it has {', '.join(sorted(tools)) or 'none'}"
            raise ToolNotFound(f"MCP server {self._name!r} has no tool {name!r}{hint}")
        if problems := _misfits(tools[name].parameters, arguments):
            raise BadInput(f"{what} was called with arguments that do not fit: {'; '.join(problems)}")
        client = self._client.result()
        meta: Any = {"perdure.dev/idempotency-key": key}
        result = await self._asked(client.call_tool(name, dict(arguments), meta=meta), self._server.timeout)
        return _result_of(what, result, self._server.max_bytes)

    async def close(self) -> None:
        """Close it; a server that was started for it is ended."""
        self._closing.set()
        if self._idle is not None:
            self._idle.cancel()
        await self._held

    async def _hold(self) -> None:
        """Open it, and hold it open until it is to be closed."""
        try:
            await asyncio.to_thread(import_module, "mcp")  # it takes long
            from mcp import Client

            logging.getLogger("mcp.client.stdio").addFilter(_without_content)
            async with asyncio.timeout(self._server.connect_timeout) as patience, Client(self._transport()) as client:
                patience.reschedule(None)
                self._client.set_result(client)
                await self._closing.wait()
        except ModuleNotFoundError:
            self._failed(
                EnvironmentProblem(f"MCP server {self._name!r} needs the package mcp: pip install 'perdure[mcp]'")
            )
        except FileNotFoundError as error:
            self._failed(EnvironmentProblem(f"MCP server {self._name!r} cannot be started: {error}"))
        except TimeoutError:
            self._failed(_Broken(f"it was not ready within {self._server.connect_timeout:g} s"))
        except Exception as error:
            self._failed(_Broken(f"it cannot be reached: {_said(error)}"))
        except asyncio.CancelledError:
            self._failed(_Broken("it was closed"))
            raise
        finally:
            self.stderr.close()

    def _failed(self, error: Exception) -> None:
        if not self._client.done():
            self._client.set_exception(error)

    def _transport(self) -> "Transport":
        server = self._server
        if server.url is not None:
            return _by_http(server)
        from mcp.client.stdio import StdioServerParameters, stdio_client

        assert server.command is not None  # noqa: S101 (the model says so)
        program = StdioServerParameters(command=server.command, args=server.args, env=server.env, cwd=server.cwd)
        return stdio_client(program, self.stderr.open())

    async def _listed(self) -> dict[str, ToolSchema]:
        found: dict[str, ToolSchema] = {}
        cursor = None
        while len(found) < _MOST_TOOLS:
            page = await self._client.result().list_tools(cursor=cursor)
            for each in page.tools:
                schemas = to_json_value([each.input_schema, each.output_schema])
                found[each.name] = ToolSchema(f"{self._name}.{each.name}", each.description or "", *schemas)
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    async def _asked(self, question: Any, seconds: float) -> Any:
        """Await an answer; raise _Broken where the connection ends instead, Unavailable where it takes too long."""
        import anyio
        import httpx2
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED

        gone = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError, httpx2.HTTPError)
        try:
            async with asyncio.timeout(seconds):
                return await question
        except TimeoutError:
            raise Unavailable(f"MCP server {self._name!r} did not answer within {seconds:g} s") from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED or self._server.url is not None:
                raise _Broken(f"it is gone: {error.message}") from error
            raise McpToolFailed(f"MCP server {self._name!r}: {error.message}") from error
        except gone as error:
            raise _Broken(f"it is gone: {_said(error)}") from error
        except ValidationError as error:
            raise McpToolFailed(f"MCP server {self._name!r} answered what is no MCP: {_said(error)}") from None


class _Room:
    """Lets so many calls in at once, and counts them."""

    def __init__(self, connection: _Connection, many: int) -> None:
        self._connection, self._places = connection, asyncio.Semaphore(many)

    async def __aenter__(self) -> None:
        self._connection.users += 1
        try:
            await self._places.acquire()
        except BaseException:
            self._connection.users -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._connection.users -= 1
        self._places.release()


@contextlib.asynccontextmanager
async def _by_http(server: McpServer) -> AsyncIterator[Any]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    assert server.url is not None  # noqa: S101 (who calls has looked)
    timeout = httpx2.Timeout(server.connect_timeout, read=server.timeout)
    async with (
        httpx2.AsyncClient(headers=server.headers, timeout=timeout, trust_env=False) as client,
        streamable_http_client(server.url, http_client=client) as streams,
    ):
        yield streams


def _misfits(schema: dict[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with arguments; nothing where the schema is none that can be read: the server will say."""
    from jsonschema.exceptions import UnknownType

    try:
        found = misfits(schema, dict(arguments), "its argument")
        return [each for each in found if UNCHECKED not in each]
    except (UnknownType, LookupError, TypeError, AttributeError, re.error):
        return []


def _without_content(record: logging.LogRecord) -> bool:
    """Let a line that cannot be read be told, but nothing of it: a part of it might be of a secret."""
    record.exc_info = None
    return True


def _result_of(what: str, result: "CallToolResult", most: int) -> Any:
    blocks = [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in result.content]
    texts = [each["text"] for each in blocks if each["type"] == "text"]
    if result.is_error:
        raise McpToolFailed(f"{what}: {' '.join(texts) or 'it failed, and does not say why'}")
    value = result.structured_content
    if value is None:
        value = texts[0] if len(blocks) == len(texts) == 1 else blocks
    size = len(json.dumps(value))
    if size > most:
        raise BadInput(f"{what} returned {size} bytes of JSON, more than the {most} of its server's 'max_bytes'")
    return value


def _said(error: BaseException) -> str:
    """Return what an error says; of a group, its first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ValidationError):  # its own words are about its code, and show parts of what came
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

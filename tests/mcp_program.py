"""A real MCP server of the `mcp` package for tests: by stdio, or by HTTP on the port that it is given.

Each start adds its process's id as a line to the file that PROCESSES names.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("desk")
most = now = 0


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def greet(name: str) -> str:
    """Greet somebody."""
    if name == "nobody":
        raise ToolError("nobody is not greeted")
    return f"Hello {name}"


@server.tool()
def order(number: int) -> dict[str, Any]:
    return {"number": number, "total": 10}


@server.tool()
def said(key: str) -> str:
    """Say what the environment holds."""
    os.write(2, f"asked for {os.environ.get(key)}\n".encode())
    return str(os.environ.get(key))


@server.tool()
def long(size: int) -> str:
    return "x" * size


@server.tool()
def die() -> str:
    os._exit(3)


@server.tool()
def pid() -> int:
    return os.getpid()


@server.tool()
async def wait(seconds: float) -> int:
    """Wait, and say how many waited at once at most."""
    global most, now
    now += 1
    most = max(most, now)
    await asyncio.sleep(seconds)
    now -= 1
    return most


@server.tool()
def key(context: Context[Any]) -> str:
    """Say under what key the call came."""
    meta = context.request_context.meta
    return str(dict(meta or {}).get("perdure.dev/idempotency-key"))


if __name__ == "__main__":
    if "PROCESSES" in os.environ:
        with Path(os.environ["PROCESSES"]).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()

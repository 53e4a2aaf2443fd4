"""MCP servers whose tools a workflow may call: how they are reached, and which secrets that takes."""

from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from perdure.definitions.durations import Duration
from perdure.definitions.parts import Part


class McpServer(Part):
    """An MCP server: a program that is started here (stdio), or an address (streamable HTTP)."""

    command: str | None = Field(default=None, description="The program to start; it is spoken to by stdin and stdout.")
    args: list[str] = Field(default=[], description="Its arguments.")
    env: dict[str, str] = Field(default={}, description="Its environment variables, with `${{ secrets.NAME }}`.")
    cwd: str | None = Field(default=None, description="Its working folder; the definition's where absent.")
    url: str | None = Field(default=None, description="The address of a server that speaks streamable HTTP.")
    headers: dict[str, str] = Field(default={}, description="Headers for the server, with `${{ secrets.NAME }}`.")
    connect_timeout: Duration = Field(default=30.0, gt=0, description="Seconds that it may take to be ready.")
    timeout: Duration = Field(default=60.0, gt=0, description="Seconds that one call may take.")
    max_parallel: int = Field(default=8, ge=1, le=1000, description="Calls at once, per process; others wait.")
    max_bytes: int = Field(default=1_000_000, ge=1, le=50_000_000, description="Bytes that a result may have as JSON.")
    idle: Duration = Field(default=300.0, description="Seconds without a call until the connection is closed.")

    @model_validator(mode="after")
    def _is_one(self) -> "McpServer":
        if (self.command is None) == (self.url is None):
            raise PydanticCustomError("mcp", "give 'command' or 'url', one of them")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise PydanticCustomError("mcp", "the url of an MCP server begins with http:// or https://")
        alien = self.headers if self.command is not None else (self.args or self.env or self.cwd)
        if alien:
            kind, keys = ("url", "headers") if self.command is not None else ("command", "args, env and cwd")
            raise PydanticCustomError("mcp", "{keys} belong to a server by {kind}", {"keys": keys, "kind": kind})
        return self

    @property
    def templates(self) -> dict[str, Any]:
        """The texts in which secrets may stand, by key."""
        return {"env": self.env, "headers": self.headers}

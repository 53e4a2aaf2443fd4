"""MCP servers that are odd: typed errors, nothing that waits for ever, and nothing of theirs in the log."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from test_mcp_tools import Desk

from perdure.actors.mcp_pool import McpToolFailed
from perdure.actors.models import Unavailable
from perdure.errors import BadInput

PROGRAM = Path(__file__).parent / "odd_mcp_program.py"


async def call(folder: Path, way: str, *tools: str, **more: Any) -> list[Any]:
    """Call tools one after the other, on one connection; return what they gave."""
    desk = Desk(folder / "processes", command=sys.executable, args=[str(PROGRAM), way], **more)
    try:
        async with asyncio.timeout(20):
            return [await desk.call(tool, x="a" * 50_000 + "!") for tool in tools or ("a",)]
    finally:
        await desk.close()


@pytest.mark.parametrize(
    ("way", "said"),
    [("no schema", r"tools\.0\.inputSchema\.type: Input should be 'object'"), ("no result", "content: Field required")],
)
async def test_an_answer_that_is_no_mcp_is_a_typed_error_that_shows_nothing_of_it(
    way: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(McpToolFailed, match=rf"^MCP server 'desk' answered what is no MCP: {said}$"):
        await call(tmp_path, way)


@pytest.mark.parametrize("way", ["unknown type", "leads nowhere", "leads to itself"])
async def test_arguments_whose_schema_cannot_be_read_are_for_the_server_to_check(way: str, tmp_path: Path) -> None:
    assert await call(tmp_path, way) == ["hi"]


async def test_a_servers_pattern_holds_nobody_up(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"its argument\.x breaks 'pattern' of its schema"):
        await call(tmp_path, "slow pattern")


async def test_a_list_of_tools_without_an_end_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
        await call(tmp_path, "endless list", connect_timeout=0.5)


async def test_a_tool_that_is_new_at_its_server_is_found(tmp_path: Path) -> None:
    assert await call(tmp_path, "grows", "a", "b") == ["hi", "hi"]


async def test_what_a_server_babbles_is_not_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert await call(tmp_path, "babbles", env={"TOKEN": "${{ secrets.KEY }}"}) == ["hi"]
    assert "Failed to parse JSONRPC message" in caplog.text
    assert "value of" not in caplog.text

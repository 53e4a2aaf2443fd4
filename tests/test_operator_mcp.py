"""`perdure mcp` as agents meet it: a real process that a client of the `mcp` package speaks to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import test_cli
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from test_cli import command, perdure

environment = test_cli.environment
pytestmark = pytest.mark.timeout(90)

REFUND = """\
name: refund
description: Gives money back.
input: {type: object, required: [amount], properties: {amount: {type: integer}}}
nodes:
  paid: {wait: {signal: paid}}
  allow: {needs: [paid], approval: {title: "Refund ${{ input.amount }}?"}}
output: {by: "${{ nodes.allow.output.by }}", with: "${{ nodes.paid.output }}"}
"""


@asynccontextmanager
async def operator(environment: dict[str, str], folder: Path, *words: str) -> AsyncIterator[Client]:
    program, *args = command("mcp", *words, "--local")
    with (folder / "stderr").open("w") as errors:
        spoken = stdio_client(StdioServerParameters(command=program, args=args, env=environment), errors)
        async with Client(spoken) as client:
            yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    found = result.structured_content
    return found["result"] if found.keys() == {"result"} else found


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return str(result.content[0].text)  # type: ignore[union-attr]


async def until(client: Client, execution: str, **node: str) -> Any:
    """Return the execution as soon as it is shown so."""
    ((name, status),) = node.items()
    async with asyncio.timeout(30):
        while True:
            shown = await call(client, "show", id=execution)
            if (shown if name == "status" else shown["nodes"].get(name, {})).get("status", None) == status:
                return shown
            await asyncio.sleep(0.02)


async def test_an_agent_starts_looks_at_signals_and_approves_an_execution(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "refund.yaml").write_text(REFUND)
    environment["PERDURE_USER"] = "ann"
    async with operator(environment, tmp_path, str(tmp_path / "refund.yaml")) as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert tools.keys() == {"workflows", "start", "list", "show", "signal", "approve", "reject"}
        assert tools["start"].input_schema["required"] == ["workflow"]
        (about,) = await call(client, "workflows")
        assert (about["name"], about["description"]) == ("refund", "Gives money back.")
        assert about["input"]["required"] == ["amount"]
        assert "input.amount is missing" in await refused(client, "start", workflow="refund", input={})
        assert "did you mean 'refund'" in await refused(client, "start", workflow="refnd")
        assert "ExecutionNotFound" in await refused(client, "show", id="none")
        assert await call(client, "start", workflow="refund", input={"amount": 9}, id="r-1") == {
            "id": "r-1", "workflow": "refund",
        }  # fmt: skip
        shown = await until(client, "r-1", paid="waiting")
        assert shown["nodes"]["paid"]["waits_for"] == {"signal": "paid"}
        assert shown["signals"] == ["paid"]
        assert (await call(client, "signal", id="r-1", name="paid", data={"by": "card"}))["recorded"]
        shown = await until(client, "r-1", allow="waiting")
        assert shown["nodes"]["allow"]["waits_for"]["title"] == "Refund 9?"
        assert (await call(client, "approve", id="r-1", node="allow"))["recorded"]
        shown = await until(client, "r-1", status="succeeded")
        assert shown["outcome"]["output"] == {"by": "ann by MCP", "with": {"by": "card"}}
        await call(client, "start", workflow="refund", input={"amount": 1}, id="r-2")
        await call(client, "signal", id="r-2", name="paid")
        await until(client, "r-2", allow="waiting")
        await call(client, "reject", id="r-2", node="allow", data="no")
        await until(client, "r-2", status="failed")
        rows = await call(client, "list")
        assert {row["id"]: row["status"] for row in rows} == {"r-1": "succeeded", "r-2": "failed"}
        assert [row["id"] for row in await call(client, "list", status="failed")] == ["r-2"]


async def test_registered_workflows_are_offered_and_files_and_code_are_not(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "refund.yaml").write_text(REFUND)
    perdure(environment, "workflows", "register", str(tmp_path / "refund.yaml"))
    async with operator(environment, tmp_path) as client:
        assert [each["name"] for each in await call(client, "workflows")] == ["refund"]
        for attack in (str(tmp_path / "refund.yaml"), "name: x\nnodes: {a: {tool: 'os:system', with: {command: id}}}"):
            assert "only registered ones are started here" in await refused(client, "start", workflow=attack)
        assert (await call(client, "start", workflow="refund@1", input={"amount": 1}, id="r-3"))["id"] == "r-3"


async def test_a_server_that_only_looks_has_no_tool_that_acts(environment: dict[str, str], tmp_path: Path) -> None:
    async with operator(environment, tmp_path, "--read-only") as client:
        tools = (await client.list_tools()).tools
        assert {each.name for each in tools} == {"workflows", "list", "show"}
        assert all(each.annotations and each.annotations.read_only_hint for each in tools)
        assert json.dumps(await call(client, "list")) == "[]"


DOOR = """\
name: door
kind: statechart
events: {knock: {type: object, required: [times]}, go: null}
context: {heard: 0}
initial: shut
states:
  shut: {on: {knock: {target: open, do: [{set: {heard: "${{ event.data.times }}"}}]}}}
  open: {on: {go: away}}
  away: {type: final}
"""


async def test_a_statechart_shows_its_states_and_the_events_that_it_takes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "door.yaml").write_text(DOOR)
    async with operator(environment, tmp_path, str(tmp_path / "door.yaml")) as client:
        (about,) = await call(client, "workflows")
        assert about["signals"] == {"knock": {"type": "object", "required": ["times"]}, "go": None}
        await call(client, "start", workflow="door", id="d-1")
        shown = await call(client, "show", id="d-1")
        assert (shown["states"], shown["signals"], shown["context"]) == (["shut"], ["knock"], {"heard": 0})
        assert "times is missing" in await refused(client, "signal", id="d-1", name="knock", data={})
        await call(client, "signal", id="d-1", name="knock", data={"times": 2})
        shown = await call(client, "show", id="d-1")
        assert (shown["states"], shown["signals"], shown["context"]) == (["open"], ["go"], {"heard": 2})
        await call(client, "signal", id="d-1", name="go")
        assert (await until(client, "d-1", status="succeeded"))["signals"] == []

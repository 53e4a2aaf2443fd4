"""Tools of MCP servers: real servers of the `mcp` package, by stdio and by HTTP, shared, bounded and restarted."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perdure.actors import mcp_tools
from perdure.actors.context import Context
from perdure.actors.mcp_pool import McpPool, McpToolFailed
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside, Reach
from perdure.actors.secret_values import Secrets
from perdure.actors.tool_schema import ToolSchema
from perdure.actors.tools import call_async, find, locate
from perdure.definitions.mcp_servers import McpServer
from perdure.errors import BadInput, EnvironmentProblem, SecretMissing, ToolNotFound

PROGRAM = Path(__file__).parent / "mcp_program.py"


class Desk:
    """The MCP server `desk` as workflows reach it, with a pool of its own."""

    def __init__(self, processes: Path, **more: Any) -> None:
        self.processes = processes
        given = {"command": sys.executable, "args": [str(PROGRAM)], **more}
        if given["command"]:
            given["env"] = {"PROCESSES": str(processes), **more.get("env", {})}
        self.server = McpServer(**given)
        self.secrets = Secrets({"KEY": "value of a secret"}.__getitem__)
        self.outside = Outside(Reach(), self.secrets, mcp=McpPool())

    def place(self, tool: str) -> str:
        name = f"desk.{tool}"
        return locate([name], [], None, shared=True, mcp={"desk": self.server})[name]

    async def call(self, tool: str, **arguments: Any) -> Any:
        context = Context("x", "n", 1, "x/n", outside=self.outside)
        return await call_async(find(self.place(tool)), arguments, context)

    def started(self) -> list[int]:
        return [int(line) for line in self.processes.read_text().split()] if self.processes.exists() else []

    async def close(self) -> None:
        assert self.outside.mcp is not None
        await self.outside.mcp.close()


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """For the tests that only call: one server for them all."""
    made = Desk(tmp_path_factory.mktemp("desk") / "processes")
    yield made
    await made.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path / "processes")
    yield made
    await made.close()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_tools_are_called_by_the_name_of_their_server_on_one_connection(shared: Desk) -> None:
    assert await shared.call("greet", name="Ann") == {"result": "Hello Ann"}
    assert await shared.call("order", number=7) == {"number": 7, "total": 10}
    assert await shared.call("add", a=2, b=3) == {"result": 5}
    assert await shared.call("key") == {"result": "x/n"}
    assert len(shared.started()) == 1


async def test_their_schemas_come_from_the_server(shared: Desk) -> None:
    schema = await mcp_tools.described(shared.place("add"), shared.outside)
    assert isinstance(schema, ToolSchema)
    assert (schema.name, schema.description) == ("desk.add", "Add two numbers.")
    assert schema.parameters["required"] == ["a"]
    assert schema.parameters["properties"]["a"]["type"] == "integer"


async def test_what_does_not_fit_is_told_before_the_server_is_asked(shared: Desk) -> None:
    with pytest.raises(
        BadInput, match=r"'desk\.add' was called with arguments that do not fit: its argument\.a is 'x'"
    ):
        await shared.call("add", a="x")
    with pytest.raises(BadInput, match=r"its argument\.a is missing"):
        await shared.call("add")
    with pytest.raises(ToolNotFound, match=r"has no tool 'ad'; did you mean 'add'\?"):
        await shared.call("ad", a=1)
    with pytest.raises(ToolNotFound, match="has no tool 'ad'; it has add"):
        await mcp_tools.described(shared.place("ad"), shared.outside)


async def test_a_tool_that_fails_says_why_and_the_connection_stays(shared: Desk) -> None:
    with pytest.raises(McpToolFailed, match="nobody is not greeted"):
        await shared.call("greet", name="nobody")
    assert await shared.call("add", a=1) == {"result": 2}
    assert len(shared.started()) == 1


async def test_a_server_that_dies_in_a_call_is_started_again_by_the_next(desk: Desk) -> None:
    first = (await desk.call("pid"))["result"]
    with pytest.raises(Unavailable, match="MCP server 'desk': it is gone"):
        await desk.call("die")
    second = (await desk.call("pid"))["result"]
    assert desk.started() == [first, second]


async def test_a_server_that_died_while_idle_is_not_noticed_by_the_next_call(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.actors.mcp_pool._PROBED_AFTER", 0.0)
    first = (await desk.call("pid"))["result"]
    os.kill(first, signal.SIGKILL)
    assert (await desk.call("pid"))["result"] != first


async def test_calls_at_once_share_a_connection_and_are_bounded(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "processes", max_parallel=2)
    answers = await asyncio.gather(*(desk.call("wait", seconds=0.02) for _ in range(6)))
    await desk.close()
    assert max(answer["result"] for answer in answers) == 2
    assert len(desk.started()) == 1


async def test_a_call_that_takes_too_long_is_given_up_and_the_connection_stays(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "processes", timeout=0.2)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        await desk.call("wait", seconds=30)
    assert await desk.call("add", a=1) == {"result": 2}
    await desk.close()
    assert len(desk.started()) == 1


async def test_a_call_that_is_cancelled_leaves_the_connection_to_others(shared: Desk) -> None:
    await shared.call("add", a=1)
    call = asyncio.create_task(shared.call("wait", seconds=30))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await shared.call("add", a=1) == {"result": 2}


async def test_a_result_that_is_too_large_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "processes", max_bytes=100)
    with pytest.raises(BadInput, match="more than the 100 of its server's 'max_bytes'"):
        await desk.call("long", size=101)
    await desk.close()


async def test_an_idle_connection_is_closed_with_its_server(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "processes", idle=0.05)
    pid = (await desk.call("pid"))["result"]
    async with asyncio.timeout(10):
        while not is_gone(pid):
            await asyncio.sleep(0.02)
    assert (await desk.call("pid"))["result"] != pid
    await desk.close()


async def test_closing_the_pool_ends_the_servers(desk: Desk) -> None:
    pid = (await desk.call("pid"))["result"]
    await desk.close()
    assert is_gone(pid)


async def test_secrets_reach_the_server_and_neither_the_place_nor_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path / "processes", env={"TOKEN": "Bearer ${{ secrets.KEY }}"})
    with caplog.at_level(logging.INFO, logger="perdure.mcp"):
        answer = await desk.call("said", key="TOKEN")
        await desk.close()
    assert answer == {"result": "Bearer value of a secret"}
    assert desk.secrets.redact(answer) == {"result": "Bearer [secret KEY]"}
    assert "value of a secret" not in desk.place("said")
    assert "MCP server desk: asked for Bearer [secret KEY]" in caplog.messages


async def test_the_environment_of_the_host_is_not_the_servers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_SECRET_OTHER", "hidden")
    assert await desk.call("said", key="PERDURE_SECRET_OTHER") == {"result": "None"}


async def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "processes", env={"TOKEN": "${{ secrets.NONE }}"})
    desk.outside.secrets = Secrets()
    with pytest.raises(SecretMissing, match="NONE"):
        await desk.call("pid")


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"command": "no-such-program"}, EnvironmentProblem, "'desk' cannot be started: .*no-such-program"),
        ({"args": ["-c", "raise SystemExit('bad key')"]}, Unavailable, "it said: bad key"),
        (
            {"args": ["-c", "import time; time.sleep(60)"], "connect_timeout": 0.2},
            Unavailable,
            r"not ready within 0\.2 s",
        ),
    ],
)
async def test_a_server_that_cannot_be_started_says_why(
    tmp_path: Path, more: dict[str, Any], error: type[Exception], said: str
) -> None:
    desk = Desk(tmp_path / "processes", **more)
    with pytest.raises(error, match=said):
        await desk.call("pid")
    await desk.close()


async def test_a_server_by_http_is_called_with_its_headers_and_found_again_after_a_restart(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp"
    desk = Desk(tmp_path / "processes", command=None, args=[], url=url, headers={"Authorization": "${{ secrets.KEY }}"})
    with pytest.raises(Unavailable, match="MCP server 'desk'"):
        await desk.call("add", a=1)
    for _ in range(2):
        program = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), str(port), stderr=-3)
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        assert await desk.call("add", a=1) == {"result": 2}
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            assert (await desk.call("pid"))["result"] == program.pid
        finally:
            program.kill()
            await program.wait()
    await desk.close()


def test_a_server_of_the_settings_is_looked_up_where_the_call_is_made() -> None:
    server = McpServer(command="x", env={"TOKEN": "${{ secrets.KEY }}"})
    found = locate(["wiki.search"], [], None, shared=True, reach=Reach(mcp={"wiki": server}))
    assert found == {"wiki.search": 'mcp:["wiki","search"]'}
    with pytest.raises(EnvironmentProblem, match="no MCP server 'wiki' in the setting `mcp`"):
        asyncio.run(
            call_async(find(found["wiki.search"]), {}, Context("x", "n", 1, "x/n", outside=Outside(mcp=McpPool())))
        )


async def test_without_the_package_it_says_what_to_install(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'perdure\[mcp\]'"):
        await desk.call("pid")


def test_a_server_of_the_definition_starts_in_the_folder_of_the_definition(tmp_path: Path) -> None:
    places = locate(["desk.a"], [], str(tmp_path), shared=True, mcp={"desk": McpServer(command="x", cwd="in")})
    assert f'"cwd":"{tmp_path}/in"' in places["desk.a"]

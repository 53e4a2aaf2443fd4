"""Compensation across executions for real: through the inbox, on a host that holds one execution, and after SIGKILL."""

import json
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_cli import command, environment, perdure, wait_for  # noqa: F401
from test_nats_server import wait_until_gone

from perdure.actors.inputs import CompensateExecution, decode_command, encode_command
from perdure.cluster.client import AsyncClient
from perdure.cluster.retention import purge
from perdure.cluster.settings import Settings
from perdure.errors import CommandNotAllowed, ExecutionFailed, ExecutionStopped
from perdure.events.vocabulary import Error, Parent

TOOLS = """\
import asyncio
from pathlib import Path
from perdure import tool

here = Path(__file__).parent

def note(line):
    with (here / "effects").open("a") as file:
        file.write(line + "\\n")

@tool
async def book(what: str) -> str:
    note(f"book {what}")
    return what

@tool
async def unbook(what: str) -> None:
    note(f"unbook {what}")
    (here / "unbooking").touch()
    while (here / "shut").exists():
        await asyncio.sleep(0.01)

@tool
async def refuse(why: str = "") -> None:
    raise RuntimeError("no car")
"""


def booking(what: str, **parts: Any) -> dict[str, Any]:
    undo = {"tool": "unbook", "with": {"what": what}}
    return {"tool": "book", "with": {"what": what}, "compensate": undo, **parts}


LEAF = {"name": "leaf", "nodes": {"room": booking("room"), "table": booking("table", needs="room")}}
MID = {
    "name": "mid",
    "workflows": {"leaf": LEAF},
    "nodes": {"bus": booking("bus"), "hotel": {"workflow": "leaf", "needs": "bus"}},
}
TOP = {
    "name": "top",
    "tools": ["./tools.py"],
    "workflows": {"mid": MID},
    "nodes": {
        "flight": booking("flight"),
        "stay": {"workflow": "mid", "needs": "flight"},
        "car": {"tool": "refuse", "needs": "stay"},
    },
}
UNDONE = ["unbook table", "unbook room", "unbook bus", "unbook flight"]


def written(folder: Path, workflow: dict[str, Any]) -> Path:
    (folder / "tools.py").write_text(TOOLS)
    (folder / "top.json").write_text(json.dumps(workflow))
    return folder / "top.json"


def effects(folder: Path) -> list[str]:
    return (folder / "effects").read_text().splitlines()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client that drives everything in this process, one execution at a time."""
    settings = Settings(store=tmp_path / "store", executions_per_actor=1, hosts=1)
    async with await AsyncClient.open(settings, "local") as client:
        yield client


async def failed(client: AsyncClient, workflow: Any, match: str = "no car") -> None:
    with pytest.raises(ExecutionFailed, match=match):
        await (await client.start(workflow, id="top")).result(timeout=30)


async def test_three_levels_of_children_are_undone_the_last_completed_first(
    client: AsyncClient, tmp_path: Path
) -> None:
    await failed(client, written(tmp_path, TOP))
    assert effects(tmp_path)[4:] == UNDONE
    rows = {row["id"]: row["status"] for row in await client.executions()}
    assert rows == {"top": "failed", "top.stay": "compensated", "top.stay.hotel": "compensated"}
    child = client.get("top.stay")
    with pytest.raises(ExecutionStopped, match="compensated"):
        await child.result(timeout=5)
    with pytest.raises(CommandNotAllowed, match="it is compensated"):
        await child.cancel()


async def test_a_child_whose_past_is_gone_is_told_of_as_not_undone_and_the_rest_goes_on(
    client: AsyncClient, tmp_path: Path
) -> None:
    nodes = {**TOP["nodes"], "ask": {"wait": {"signal": "go"}, "needs": "stay"}}  # type: ignore[dict-item]
    nodes["car"] = {"tool": "refuse", "needs": "ask"}
    run = await client.start(written(tmp_path, {**TOP, "nodes": nodes}), id="top")
    async for happened in run.events():
        if type(happened.event).__name__ == "NodeWaiting":
            break
    await purge(client._connection, "top.stay")
    await run.signal("go")
    with pytest.raises(ExecutionFailed, match="no car"):
        await run.result(timeout=30)
    error = (await run.state()).nodes["stay~undo"].error
    assert error == Error("CompensationFailed", "the past of child 'top.stay' has been removed")
    assert effects(tmp_path)[4:] == ["unbook flight"]


async def test_a_workflow_undoes_what_a_node_did(client: AsyncClient, tmp_path: Path) -> None:
    unbook = {"name": "unbook", "nodes": {"x": {"tool": "unbook", "with": {"what": "${{ input.what }}"}}}}
    nodes = {
        "a": {**booking("a"), "compensate": {"workflow": "unbook", "with": {"what": "${{ nodes.a.output }}"}}},
        "car": {"tool": "refuse", "needs": "a"},
    }
    await failed(client, written(tmp_path, {**TOP, "workflows": {"unbook": unbook}, "nodes": nodes}))
    assert effects(tmp_path) == ["book a", "unbook a"]
    assert await client.get("top.a~undo").status() == "succeeded"


async def test_an_error_that_is_too_large_for_a_message_does_not_keep_a_child_from_being_undone(
    client: AsyncClient, tmp_path: Path
) -> None:
    twice = ["${{ input }}", "${{ input }}"]
    nodes = {"stay": {"workflow": "leaf"}, "end": {"fail": {"message": "no", "data": twice}, "needs": "stay"}}
    workflow = written(tmp_path, {**TOP, "workflows": {"leaf": LEAF}, "nodes": nodes})
    run = await client.start(workflow, "x" * 600_000, id="top")
    with pytest.raises(ExecutionFailed, match="no"):
        await run.result(timeout=30)
    assert effects(tmp_path)[2:] == ["unbook table", "unbook room"]


def test_a_host_that_is_killed_while_a_child_is_undone_goes_on_with_it(
    environment: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    workflow = written(tmp_path, TOP)
    (tmp_path / "shut").touch()
    words = ["run", str(workflow), "--local", "--id", "top"]
    with subprocess.Popen(command(*words), env=environment, stderr=subprocess.DEVNULL) as running:
        wait_for(tmp_path / "unbooking")
        running.send_signal(signal.SIGKILL)
    wait_until_gone(Path(environment["PERDURE_STORE"]))
    (tmp_path / "shut").unlink()
    assert "no car" in perdure(environment, *words, code=1).stderr
    done = effects(tmp_path)
    assert done[4:] == ["unbook table", *UNDONE]  # the call that was under way is made again, and nothing else
    shown = perdure(environment, "show", "top").stderr
    assert "undone: stay, flight" in shown
    assert "compensated" in perdure(environment, "show", "top.stay.hotel").stderr
    assert "undone: table, room" in perdure(environment, "show", "top.stay.hotel").stderr
    rows = json.loads(perdure(environment, "list", "--json", "--status", "compensated").stdout)
    assert {row["id"] for row in rows} == {"top.stay", "top.stay.hotel"}


def test_what_could_not_be_undone_is_shown_with_the_reason(
    environment: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    room = {**booking("room"), "compensate": {"tool": "refuse", "with": {"why": "${{ error.type }}"}}}
    leaf = {**LEAF, "nodes": {**LEAF["nodes"], "room": room}}  # type: ignore[dict-item]
    nodes = {"stay": {"workflow": "leaf"}, "car": {"tool": "refuse", "needs": "stay"}}
    workflow = written(tmp_path, {**TOP, "workflows": {"leaf": leaf}, "nodes": nodes})
    perdure(environment, "run", str(workflow), "--local", "--id", "top", code=1)
    shown = perdure(environment, "show", "top").stderr
    assert "not undone: stay: CompensationFailed: child 'top.stay' could not undo 'room' (RuntimeError)" in shown
    shown = perdure(environment, "show", "top.stay").stderr
    assert "undone: table" in shown
    assert "not undone: room: RuntimeError: no car" in shown


def test_the_command_between_executions_survives_its_way_through_the_inbox() -> None:
    told = CompensateExecution("c", "x", Parent("up", "a~undo", 1, "3"), Error("Boom", "it broke", {"n": 1}))
    assert decode_command(encode_command(told)) == told

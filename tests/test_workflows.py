"""The registry of workflows on the real server: versions by name, starts by name, definitions that stay."""

import asyncio
import getpass
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.persistence import StoredEvent

import perdure
from perdure import Settings, tool
from perdure.cluster.client import AsyncClient
from perdure.cluster.nats_server import NatsServer
from perdure.definitions.plan import digest_of
from perdure.errors import (
    BadInput,
    CorruptEntry,
    DefinitionError,
    EnvironmentProblem,
    ExecutionExists,
    LogUnavailable,
    ToolNotFound,
    WorkflowDeprecated,
    WorkflowNotFound,
)

GATES: dict[str, asyncio.Event] = {}


@tool(name="workflows_test.wait")
async def wait(gate: str) -> str:
    await GATES.setdefault(gate, asyncio.Event()).wait()
    return gate


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await perdure.connect_async(settings, local=True) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"w-{uuid4().hex}"


def giving(name: str, value: Any) -> dict[str, Any]:
    return {"name": name, "nodes": {"a": {"set": value}}, "output": "${{ nodes.a.output }}"}


async def test_a_start_by_name_runs_the_active_version_and_others_by_number_or_digest(
    client: AsyncClient, name: str
) -> None:
    first = await client.workflows.register(giving(name, "one"))
    await client.workflows.register(giving(name, "two"))
    starts = {name: "two", f"{name}@1": "one", f"{name}@{first.version.digest[:15]}": "one", f"{name}@2": "two"}
    for reference, output in starts.items():
        assert await (await client.start(reference)).result(10) == output
    await client.workflows.activate(name, 1)
    assert await (await client.start(name)).result(10) == "one"
    assert [await run.result(10) for run in await client.start_many(name, [None, None])] == ["one", "one"]


async def test_a_registration_tells_version_digest_when_and_by_whom(client: AsyncClient, name: str) -> None:
    done = await client.workflows.register(giving(name, 1))
    assert (done.outcome, done.version.version) == ("registered", 1)
    assert done.version.digest == digest_of(perdure.Workflow.model_validate(giving(name, 1)))
    assert done.version.by == getpass.getuser()
    assert (await client.workflows.register(giving(name, 1))).outcome == "unchanged"
    assert (await client.workflows.show(name)).versions == (done.version,)
    assert name in [each.name for each in await client.workflows.list()]


async def test_registrations_of_one_name_at_once_all_get_a_version_of_their_own(
    settings: Settings, server: NatsServer, name: str
) -> None:
    async with AsyncExitStack() as open_:
        clients = [await open_.enter_async_context(await AsyncClient.open(settings, "none")) for _ in range(3)]
        done = await asyncio.gather(
            *(clients[number % 3].workflows.register(giving(name, number)) for number in range(12)),
            *(each.workflows.register(giving(name, "same")) for each in clients),
        )
    assert sorted({each.version.version for each in done}) == list(range(1, 14))
    assert len({each.version.digest for each in done}) == 13
    assert sorted(each.outcome for each in done[12:]) == ["registered", "unchanged", "unchanged"]


async def test_an_execution_stays_with_its_version_whatever_is_registered_activated_or_deprecated(
    client: AsyncClient, name: str
) -> None:
    waiting = {
        "name": name,
        "nodes": {"a": {"tool": "workflows_test.wait", "with": {"gate": name}}, "b": {"needs": ["a"], "set": "one"}},
        "output": "${{ nodes.b.output }}",
    }
    first = await client.workflows.register(waiting)
    run = await client.start(name, id=f"{name}-1")
    await client.workflows.register(giving(name, "two"))
    await client.workflows.deprecate(name, 1, "too slow")
    again = await client.start(name, id=f"{name}-1")
    assert (await again.state()).started.digest == first.version.digest
    with pytest.raises(ExecutionExists, match="another definition"):
        await client.start(f"{name}@2", id=f"{name}-1")
    with pytest.raises(WorkflowDeprecated, match="too slow"):
        await client.start(f"{name}@1", id=f"{name}-2")
    GATES.setdefault(name, asyncio.Event()).set()
    assert await run.result(10) == "one"


async def test_what_an_execution_ran_can_be_had_by_its_digest(client: AsyncClient, name: str) -> None:
    run = await client.start(giving(name, "never registered"))
    await run.result(10)
    digest = (await run.state()).started.digest
    for which in (digest, digest[:30]):
        assert json.loads(await client.workflows.definition(which)) == giving(name, "never registered")
    await client.workflows.register(giving(name, "three"))
    assert json.loads(await client.workflows.definition(f"{name}@1"))["nodes"] == {"a": {"set": "three"}}
    with pytest.raises(BadInput, match="fits 0 definitions"):
        await client.workflows.definition("sha256:00000000")
    with pytest.raises(BadInput, match="at least its first 8"):
        await client.workflows.definition("sha256:12")
    with pytest.raises(EnvironmentProblem, match="not in the registry"):
        await client.workflows.definition(f"sha256:{'0' * 64}")


async def test_tool_files_are_found_from_the_folder_of_the_registration(
    client: AsyncClient, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = {
        "name": name,
        "tools": ["tools.py"],
        "nodes": {"a": {"tool": "here"}},
        "output": "${{ nodes.a.output }}",
    }
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.json").write_text(json.dumps(definition))
        (tmp_path / folder / "tools.py").write_text(
            f"from perdure import tool\n@tool\nasync def here() -> str:\n    return '{folder}'\n"
        )
    assert (await client.workflows.register(tmp_path / "one" / "w.json")).outcome == "registered"
    assert await (await client.start(name)).result(10) == "one"
    monkeypatch.chdir(tmp_path / "two")
    moved = await client.workflows.register("w.json")
    assert (moved.outcome, moved.version.base) == ("moved", str(tmp_path / "two"))
    monkeypatch.chdir("/")
    assert await (await client.start(name)).result(10) == "two"


async def test_what_cannot_run_is_not_registered(client: AsyncClient, name: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="reads node 'b'"):
        await client.workflows.register(giving(name, "${{ nodes.b.output }}"))
    with pytest.raises(ToolNotFound, match=r"gone\.py does not exist"):
        await client.workflows.register({**giving(name, 1), "tools": [str(tmp_path / "gone.py")]})
    with pytest.raises(WorkflowNotFound):
        await client.workflows.show(name)


async def test_an_unknown_name_is_answered_with_the_one_that_was_meant(client: AsyncClient, name: str) -> None:
    await client.workflows.register(giving(name, 1))
    with pytest.raises(WorkflowNotFound, match=f"no such file, and no workflow '{name}x' .* did you mean '{name}'"):
        await client.start(f"{name}x")
    for change in (client.workflows.activate(f"{name}x", 1), client.workflows.deprecate(f"{name}x", 1, "old")):
        with pytest.raises(WorkflowNotFound, match="did you mean"):
            await change
    with pytest.raises(WorkflowNotFound, match="has no version 2"):
        await client.start(f"{name}@2")
    with pytest.raises(BadInput, match="write NAME, NAME@3"):
        await client.start(f"{name}@latest")
    with pytest.raises(BadInput, match="there is no such file"):
        await client.start(f"{name}.yaml")
    with pytest.raises(BadInput, match="execution id"):
        await client.start(name, id="")


async def test_a_file_comes_before_a_registered_name(
    client: AsyncClient, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.workflows.register(giving(name, "registered"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert await (await client.start(name)).result(10) == "registered"
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text(json.dumps(giving(name, "file")))
    assert await (await client.start(name)).result(10) == "file"


async def test_the_registry_is_stored_alike_whatever_the_process_s_own_applications_are_set_to(
    client: AsyncClient, settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSISTENCE_MODULE", "eventsourcing.popo")
    monkeypatch.setenv("COMPRESSOR_TOPIC", "eventsourcing.compressor:ZlibCompressor")
    monkeypatch.setenv("WORKFLOWS_PERDURE_STREAM_PREFIX", "ELSEWHERE")
    async with await AsyncClient.open(settings, "none") as other:
        done = await other.workflows.register(giving(name, 1))
    assert (await client.workflows.show(name)).versions == (done.version,)


async def test_another_application_of_the_library_can_follow_what_happens(
    client: AsyncClient, server: NatsServer, store: Path, name: str
) -> None:
    class Audit(Application[str]):
        name = "WORKFLOWS"

    await client.workflows.register(giving(name, 1))
    await client.workflows.deprecate(name, 1, "wrong")
    environment = {
        "PERSISTENCE_MODULE": "perdure.events.recorder",
        "PERDURE_NATS_URL": server.url,
        "PERDURE_NATS_TOKEN_FILE": str(store / "token"),
        "PERDURE_STREAM_PREFIX": "PERDURE",
    }

    def read() -> list[str]:
        with Audit(environment) as audit:
            return [type(event).__name__ for event in audit.events.get(name)]

    assert await asyncio.to_thread(read) == ["Registered", "Deprecated"]


async def test_who_registers_can_be_set(
    settings: Settings, server: NatsServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_USER", "ci")
    async with await AsyncClient.open(Settings(store=settings.store), "none") as client:
        assert (await client.workflows.register(giving(name, 1))).version.by == "ci"


async def test_a_process_without_a_user_is_told_how_to_name_one(
    client: AsyncClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(EnvironmentProblem, match="PERDURE_USER"):
        await client.workflows.register(giving(name, 1))


async def test_a_registry_out_of_reach_or_of_a_later_release_is_told(tmp_path: Path, name: str) -> None:
    async with await AsyncClient.open(Settings(store=tmp_path), "none") as client:
        await client.workflows.register(giving(name, 1))
        application = client.workflows._application
        assert application is not None
        application.recorder.insert_events([StoredEvent(name, 2, "perdure.cluster.workflow_versions:Later", b"{}")])
        with pytest.raises(CorruptEntry, match="newer release"):
            await client.workflows.show(name)
        application.factory.close()
        with pytest.raises(LogUnavailable, match="the registry of workflows"):
            await client.workflows.list()


def test_the_synchronous_client_has_the_same_registry(tmp_path: Path, name: str) -> None:
    with perdure.connect(Settings(store=tmp_path), local=True) as client:
        assert client.workflows.register(giving(name, "one")).version.version == 1
        client.workflows.register(giving(name, "two"))
        assert client.workflows.activate(name, 1).active == 1
        assert client.start(name).result(10) == "one"
        assert client.workflows.deprecate(name, 2, "wrong").at(2).deprecated == "wrong"
        assert client.workflows.show(name).active == 1
        assert name in [each.name for each in client.workflows.list()]
        assert json.loads(client.workflows.definition(name))["nodes"] == {"a": {"set": "one"}}


def test_a_client_that_uses_no_registered_name_loads_nothing_of_the_registry() -> None:
    code = """
import asyncio, sys, tempfile
from pathlib import Path
from perdure import Settings, connect
with tempfile.TemporaryDirectory() as folder, connect(Settings(store=Path(folder)), local=True) as client:
    client.start({"name": "x", "nodes": {"a": {"set": 1}}}).result(20)
print([module for module in sys.modules if module.startswith(("eventsourcing", "perdure.cluster.workflow"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

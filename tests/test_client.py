"""The client without Ray: real server, real inbox, hosts in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
from perdure import ExecutionFailed, Settings, tool
from perdure.cluster.client import AsyncClient
from perdure.cluster.inbox import STREAM, Lanes, lane_of
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.ownership import Ownership
from perdure.errors import BadInput, ExecutionExists, ExecutionNotFound, ModelUnavailable, ToolNotFound, WaitTimeout
from perdure.events.vocabulary import ExecutionStarted, ExecutionSucceeded, TimerFired
from perdure.testing import Model, Reply

HELLO: dict[str, Any] = {
    "name": "hello",
    "nodes": {"greet": {"set": "Hello, ${{ input.name }}!"}},
    "output": "${{ nodes.greet.output }}",
}


@tool(name="client_test.append")
def append(path: str, line: str) -> str:
    with Path(path).open("a") as file:
        file.write(line + "\n")
    return line


@tool(name="client_test.flaky")
async def flaky(path: str) -> int:
    """Fail until it was called three times."""
    tries = Path(path).read_text().count("x") + 1 if Path(path).exists() else 1
    Path(path).write_text("x" * tries)
    if tries < 3:
        raise ConnectionError(f"try {tries}")
    return tries


GATES: dict[str, asyncio.Event] = {}


@tool(name="client_test.wait")
async def wait(gate: str) -> str:
    await GATES.setdefault(gate, asyncio.Event()).wait()
    return gate


@pytest.fixture(scope="module")
async def client(settings: Settings, server: NatsServer) -> AsyncIterator[AsyncClient]:
    async with await perdure.connect_async(settings, local=True) as client:
        yield client


async def test_a_workflow_runs_to_its_output(client: AsyncClient) -> None:
    run = await client.start(HELLO, {"name": "Ann"})
    assert await run.result(10) == "Hello, Ann!"
    assert await run.status() == "succeeded"


async def test_the_inbox_is_empty_when_everything_has_ended(client: AsyncClient) -> None:
    runs = await client.start_many(HELLO, [{"name": str(number)} for number in range(20)])
    assert [await run.result(10) for run in runs] == [f"Hello, {number}!" for number in range(20)]
    js = client._connection.nats.jetstream()
    while (await js.stream_info(STREAM)).state.messages:  # the acknowledgement follows the last entry
        await asyncio.sleep(0)


async def test_where_one_of_many_cannot_be_queued_no_more_of_them_are(client: AsyncClient) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(BadInput, match="put what is large into a file"):
        await client.start_many(HELLO, [{"name": "Ann"}, {"name": "x" * 2_000_000}, *[{"name": "Bob"}] * 1000])
    assert not [task for task in asyncio.all_tasks() - before if "start_those_left" in repr(task)]


async def test_the_same_start_twice_attaches(client: AsyncClient) -> None:
    identity = uuid4().hex
    runs = [await client.start(HELLO, {"name": "Ann"}, id=identity) for _ in range(2)]
    assert [await run.result(10) for run in runs] == ["Hello, Ann!"] * 2
    starts = [event async for event in runs[0].events() if isinstance(event.event, ExecutionStarted)]
    assert len(starts) == 1


async def test_many_starts_of_one_id_at_once_are_one_execution(client: AsyncClient) -> None:
    identity = uuid4().hex
    runs = await asyncio.gather(*(client.start(HELLO, {"name": "Ann"}, id=identity) for _ in range(10)))
    assert {await run.result(10) for run in runs} == {"Hello, Ann!"}


@pytest.mark.parametrize(("other", "what"), [({"name": "Bob"}, "input"), (None, "definition")])
async def test_another_start_under_the_same_id_is_refused(client: AsyncClient, other: Any, what: str) -> None:
    identity = uuid4().hex
    await client.start(HELLO, {"name": "Ann"}, id=identity)
    with pytest.raises(ExecutionExists, match=f"another {what}"):
        await client.start(HELLO if other else {**HELLO, "description": "x"}, other or {"name": "Ann"}, id=identity)


async def test_of_two_different_starts_at_once_one_is_refused(client: AsyncClient) -> None:
    identity = uuid4().hex
    outcomes = await asyncio.gather(
        *(client.start(HELLO, {"name": name}, id=identity) for name in ("Ann", "Bob")), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AsyncRun", "ExecutionExists"]


@pytest.mark.parametrize("identity", ["with space", "a.b.c", "*", ">", "ü/ñ", "=41"])
async def test_an_id_may_have_any_printable_characters(client: AsyncClient, identity: str) -> None:
    run = await client.start(HELLO, {"name": "Ann"}, id=identity)
    assert await run.result(10) == "Hello, Ann!"


@pytest.mark.parametrize("identity", ["", "x" * 201, "new\nline"])
async def test_an_id_that_cannot_be_one_is_refused(client: AsyncClient, identity: str) -> None:
    with pytest.raises(BadInput, match="execution id"):
        await client.start(HELLO, {"name": "Ann"}, id=identity)


async def test_tools_run_in_order_and_their_results_travel(client: AsyncClient, tmp_path: Path) -> None:
    effects = str(tmp_path / "effects")
    run = await client.start(
        {
            "name": "tools",
            "nodes": {
                "one": {"tool": "client_test.append", "with": {"path": effects, "line": "${{ input }}"}},
                "two": {"tool": "client_test.append", "with": {"path": effects, "line": "${{ nodes.one.output }}!"}},
            },
        },
        "first",
    )
    assert await run.result(10) == {"two": "first!"}
    assert Path(effects).read_text() == "first\nfirst!\n"


async def test_a_failed_execution_says_which_node_at_which_attempt_and_why(client: AsyncClient, tmp_path: Path) -> None:
    node = {"tool": "client_test.flaky", "with": {"path": str(tmp_path / "f")}, "retry": {"attempts": 2, "delay": 0}}
    run = await client.start({"name": "failing", "nodes": {"bad": node}})
    with pytest.raises(ExecutionFailed, match=r"at node 'bad' \(attempt 2\): ConnectionError: try 2") as caught:
        await run.result(10)
    assert (caught.value.node, caught.value.attempt, caught.value.error["type"]) == ("bad", 2, "ConnectionError")


async def test_arguments_that_do_not_fit_fail_the_node_with_their_names(client: AsyncClient) -> None:
    run = await client.start({"name": "args", "nodes": {"bad": {"tool": "client_test.flaky", "with": {"pth": 1}}}})
    with pytest.raises(ExecutionFailed, match=r"BadInput: tool 'client_test.flaky' was called.*path: Missing"):
        await run.result(10)


async def test_an_attempt_that_takes_too_long_times_out(client: AsyncClient) -> None:
    node = {"tool": "client_test.wait", "with": {"gate": "never"}, "timeout": "10ms"}
    run = await client.start({"name": "slow", "nodes": {"slow": node}})
    with pytest.raises(ExecutionFailed, match=r"Timeout: it took longer than 0\.01 s"):
        await run.result(10)


async def test_a_retry_goes_through_the_durable_inbox_when_it_is_far(
    server: NatsServer, tmp_path: Path, settings: Settings
) -> None:
    far = settings.model_copy(update={"near_timer": 0.0, "store": tmp_path})
    async with await perdure.connect_async(far, local=True) as client:
        retry = {"attempts": 3, "delay": 0.2, "backoff": 1, "jitter": False}
        node = {"tool": "client_test.flaky", "with": {"path": str(tmp_path / "f")}, "retry": retry}
        run = await client.start({"name": "retrying", "nodes": {"a": node}})
        assert await run.result(20) == {"a": 3}
        entries = [recorded.entry for recorded in await run.history()]
        fired = [entry for entry in entries if any(isinstance(event, TimerFired) for event in entry.events)]
        assert len(fired) == 2
        assert all("retry/a/2" in entry.causes[0] for entry in fired)  # the inbox's id: with the time it was due


async def test_waiting_for_a_result_can_time_out_and_the_execution_goes_on(client: AsyncClient) -> None:
    gate = uuid4().hex
    node = {"tool": "client_test.wait", "with": {"gate": gate}}
    run = await client.start({"name": "waits", "nodes": {"w": node}})
    with pytest.raises(WaitTimeout, match="it goes on"):
        await run.result(0.05)
    assert await run.status() == "running"
    GATES.setdefault(gate, asyncio.Event()).set()
    assert await run.result(10) == {"w": gate}


async def test_an_unknown_execution_is_queued_at_best(client: AsyncClient) -> None:
    run = client.get("never-started")
    assert await run.status() == "queued"
    with pytest.raises(ExecutionNotFound, match="never-started"):
        await run.state()


async def test_input_that_breaks_the_schema_is_refused_before_anything_starts(client: AsyncClient) -> None:
    schema = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}}}
    with pytest.raises(BadInput, match=r"input\.name is missing; input\.age is 'x', not a whole number"):
        await client.start({**HELLO, "input": schema}, {"age": "x"})


async def test_an_unknown_tool_is_refused_before_anything_starts(client: AsyncClient) -> None:
    with pytest.raises(ToolNotFound, match=r"did you mean 'client_test\.flaky'"):
        await client.start({"name": "x", "nodes": {"a": {"tool": "client_test.flakey"}}})


async def test_agents_without_an_endpoint_are_refused_with_both_ways_on(client: AsyncClient) -> None:
    agents = {"name": "x", "agents": {"a": {"model": "m", "instructions": "i"}}, "nodes": {"n": {"agent": "a"}}}
    with pytest.raises(ModelUnavailable, match=r"OPENAI_API_KEY.*--replies"):
        await client.start(agents)


async def test_an_agent_node_asks_the_model_once(server: NatsServer, settings: Settings, tmp_path: Path) -> None:
    with Model([Reply("A fine day.", match="weather")]) as model:
        with_model = settings.model_copy(
            update={
                "openai_base_url": model.base_url,
                "nats_url": server.url,
                "nats_token_file": settings.store / "token",
            }
        )
        async with await AsyncClient.open(with_model, "local", drive="agent-1") as client:
            definition = {
                "name": "x",
                "agents": {"a": {"model": "m", "instructions": "i"}},
                "nodes": {"n": {"agent": "a", "with": {"message": "weather"}}},
            }
            run = await client.start(definition, id="agent-1")
            assert await run.result(20) == {"n": "A fine day."}
        assert len(model.requests) == 1


async def test_events_can_be_followed_from_the_start_and_from_any_position(client: AsyncClient) -> None:
    run = await client.start(HELLO, {"name": "Ann"})
    events = [happened async for happened in run.events()]
    assert isinstance(events[0].event, ExecutionStarted)
    assert isinstance(events[-1].event, ExecutionSucceeded)
    gate = uuid4().hex
    waiting = await client.start({"name": "w", "nodes": {"w": {"tool": "client_test.wait", "with": {"gate": gate}}}})
    seen = []
    async for happened in waiting.events():
        seen.append(happened)
        if len(seen) == 2:
            GATES.setdefault(gate, asyncio.Event()).set()
    rest = [happened async for happened in waiting.events(after=seen[1].position)]
    assert rest == seen[2:]


async def test_a_second_client_of_the_store_uses_the_hosts_of_the_first(
    client: AsyncClient, settings: Settings
) -> None:
    async with await perdure.connect_async(settings, local=True) as second:
        run = await second.start(HELLO, {"name": "Ann"})
        assert await run.result(10) == "Hello, Ann!"
        js = second._connection.nats.jetstream()
        hosts = [info.name for info in await js.consumers_info(STREAM)]
        (starts, commands) = (
            {name for name in hosts if f"host0-{kind}" in str(name)} for kind in ("starts", "commands")
        )
        assert (len(starts), len(commands)) == (
            10,
            1,
        )  # one owner's: a consumer for each priority, and one for commands


async def test_what_a_client_left_unfinished_goes_on_in_the_next(tmp_path: Path) -> None:
    settings, gate = Settings(store=tmp_path / "store"), uuid4().hex
    append = {"tool": "client_test.append", "with": {"path": str(tmp_path / "effects"), "line": "once"}}
    waits = {"tool": "client_test.wait", "needs": ["first"], "with": {"gate": gate}}
    async with await perdure.connect_async(settings, local=True) as client:
        run = await client.start({"name": "two", "nodes": {"first": append, "second": waits}}, id="two-1")
        async for happened in run.events():
            if getattr(happened.event, "node", None) == "second":
                break
    GATES.setdefault(gate, asyncio.Event()).set()
    async with await perdure.connect_async(settings, local=True) as client:
        assert await client.get("two-1").result(20) == {"second": gate}
    assert (tmp_path / "effects").read_text() == "once\n"


async def test_a_start_without_any_host_is_kept_until_one_comes(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "store")
    async with await AsyncClient.open(settings, "none") as client:
        run = await client.start(HELLO, {"name": "Ann"}, id="kept-1", confirm=False)
        assert await run.status() == "queued"
    async with await perdure.connect_async(settings, local=True) as client:
        assert await client.get("kept-1").result(20) == "Hello, Ann!"


async def test_a_run_drives_only_its_own_execution(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "store")
    async with await AsyncClient.open(settings, "none") as client:
        await client.start(HELLO, {"name": "other"}, id="other-1", confirm=False)
    async with await AsyncClient.open(settings, "local", drive="own-1") as client:
        run = await client.start(HELLO, {"name": "own"}, id="own-1")
        assert await run.result(10) == "Hello, own!"
        assert await client.get("other-1").status() == "queued"
        async with await perdure.connect_async(settings, local=True) as cluster:  # beside it, on the other lanes
            assert await cluster.get("other-1").result(10) == "Hello, other!"


async def test_a_host_whose_lanes_were_taken_over_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "perdure")
    settings = Settings(store=tmp_path / "store")
    before = asyncio.all_tasks()
    async with await perdure.connect_async(settings, local=True) as client:
        host = next(task for task in asyncio.all_tasks() - before if task.get_name() == "perdure-host0")
        newer = Ownership(client._connection.nats, client._connection.registry, "host0")
        await newer.move(Lanes.of_partitions(range(64)))
        await asyncio.wait_for(asyncio.wait([host]), 10)
    assert "host0 stops" in caplog.text


async def test_executions_are_listed_newest_first_and_by_status(client: AsyncClient, tmp_path: Path) -> None:
    good = await client.start(HELLO, {"name": "Ann"})
    bad = await client.start(HELLO, {})
    await good.result(10)
    with pytest.raises(ExecutionFailed):
        await bad.result(10)
    rows = await client.executions()
    assert [row["id"] for row in rows[:2]] == [bad.id, good.id]
    failed = await client.executions(status="failed", limit=1)
    assert [(row["id"], row["failed_node"], row["error_type"]) for row in failed] == [
        (bad.id, "greet", "ExpressionError")
    ]


def test_every_partition_has_a_lane() -> None:
    assert {lane_of(f"x-{number}") for number in range(2000)} == {str(number) for number in range(64)}


@pytest.fixture
def sync_store(tmp_path: Path) -> Settings:
    return Settings(store=tmp_path / "store")


def test_the_synchronous_client_does_the_same(sync_store: Settings, tmp_path: Path) -> None:
    with perdure.connect(sync_store, local=True) as client:
        run = client.start(HELLO, {"name": "Ann"}, id="sync-1")
        assert run.result(timeout=10) == "Hello, Ann!"
        assert run.status() == "succeeded"
        assert run.state().nodes["greet"].output == "Hello, Ann!"
        assert [type(happened.event).__name__ for happened in run.events()][-1] == "ExecutionSucceeded"
        for happened in run.events():
            assert happened.execution == "sync-1"
            break  # leaving early leaves nothing open
        runs = client.start_many(HELLO, [{"name": "a"}, {"name": "b"}])
        assert [each.result(10) for each in runs] == ["Hello, a!", "Hello, b!"]
        assert {row["id"] for row in client.executions()} == {"sync-1", *(each.id for each in runs)}
        assert client.get("sync-1").result() == "Hello, Ann!"
        with pytest.raises(ExecutionExists):
            client.start(HELLO, {"name": "Bob"}, id="sync-1")

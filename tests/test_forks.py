"""Forks on a real log and real hosts: the support example from every node, forks of forks, purges, exports."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import perdure
from perdure import Settings, tool
from perdure.cluster.client import AsyncClient
from perdure.cluster.retention import purge
from perdure.cluster.run import AsyncRun
from perdure.errors import BadInput, ExecutionExists, ExecutionFailed, ExecutionNotFound, WorkflowNotFound
from perdure.events.vocabulary import ExecutionForked, NodeScheduled, NodeSkipped, NodeSucceeded
from perdure.testing import Model

EXAMPLES = Path(__file__).parent.parent / "examples"
CALLS: list[str] = []
NEEDED: dict[str, set[str]] = {
    "classify": {"classify", "lookup", "search", "draft", "check", "reply"},
    "lookup": {"lookup", "draft", "check", "reply"},
    "search": {"search", "draft", "check", "reply"},
    "draft": {"draft", "check", "reply"},
    "check": {"check", "reply"},
    "reply": {"reply"},
}


@tool(name="forks_test.note")
async def note(line: str) -> str:
    CALLS.append(line[:10])
    return line


@tool(name="forks_test.fragile")
async def fragile(line: str) -> str:
    CALLS.append(line[:10])
    if line == "bad":
        raise ValueError("it broke")
    return line


FLOW: dict[str, Any] = {
    "name": "fork-flow",
    "nodes": {
        "first": {"tool": "forks_test.note", "with": {"line": "${{ input }}"}},
        "second": {"tool": "forks_test.fragile", "with": {"line": "good"}, "needs": ["first"]},
    },
    "output": "${{ [nodes.first.output, nodes.second.output] }}",
}
BAD: dict[str, Any] = {
    **FLOW,
    "nodes": {**FLOW["nodes"], "second": {**FLOW["nodes"]["second"], "with": {"line": "bad"}}},
}


@pytest.fixture(scope="module")
def model() -> Any:
    with Model.from_file(EXAMPLES / "customer_support.replies.yaml") as model:
        yield model


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory, model: Model) -> AsyncIterator[AsyncClient]:
    store = tmp_path_factory.mktemp("forks")
    async with await perdure.connect_async(Settings(store=store, openai_base_url=model.base_url), local=True) as client:
        yield client


@pytest.fixture(scope="module")
async def case(client: AsyncClient) -> AsyncRun:
    """The support example, answered."""
    run = await client.start(EXAMPLES / "customer_support.yaml", {"message": "Where is it?", "order": "A-1001"})
    await run.result(20)
    return run


async def called(run: AsyncRun) -> list[str]:
    """Return the nodes that a run asked models or tools for, or that it decided anew."""
    events = [each.event for recorded in await run.history() for each in recorded.unpack()]
    kinds = NodeScheduled | NodeSucceeded | NodeSkipped
    return sorted({_outermost(each.node) for each in events if isinstance(each, kinds)} - {"escalate"})


def _outermost(path: str) -> str:
    """Return the node of the main body within which a node is: an agent's replies are within it."""
    return path.partition("[")[0]


@pytest.mark.parametrize("node", list(NEEDED))
async def test_a_fork_from_any_node_of_the_support_example_calls_only_what_comes_after(
    case: AsyncRun, model: Model, node: str
) -> None:
    before = len(model.requests)
    forked = await case.fork(from_=node)
    assert await forked.result(20) == await case.result()
    assert await called(forked) == sorted(NEEDED[node])
    agents = {"classify", "draft", "check"}
    assert len(model.requests) - before == len(agents & NEEDED[node])
    state = await forked.state()
    assert {_outermost(path) for path, each in state.nodes.items() if each.reused} == NEEDED["classify"] - NEEDED[node]


async def test_a_fork_from_the_node_that_escalates_opens_another_ticket_and_calls_nothing_else(
    client: AsyncClient, model: Model
) -> None:
    run = await client.start(EXAMPLES / "customer_support.yaml", {"message": "Where is it?", "order": "A-1002"})
    ticket = await run.result(20)
    assert ticket["ticket"]
    before = len(model.requests)
    forked = await run.fork(from_="escalate")
    assert (await forked.result(20)).keys() == ticket.keys()
    events = [each.event for recorded in await forked.history() for each in recorded.unpack()]
    kinds = NodeScheduled | NodeSucceeded | NodeSkipped
    assert {each.node for each in events if isinstance(each, kinds)} == {"escalate"}
    assert len(model.requests) == before
    reused = {_outermost(path) for path, each in (await forked.state()).nodes.items() if each.reused}
    assert reused == NEEDED["classify"] - {"reply"}  # which stays skipped


async def test_a_fork_at_every_entry_comes_to_the_same_end(case: AsyncRun) -> None:
    for recorded in await case.history():
        forked = await case.fork(at=recorded.entry.n)
        assert await forked.result(20) == await case.result()


async def test_a_fork_goes_on_with_another_input_or_model(case: AsyncRun, model: Model) -> None:
    packed = {"message": "Where is it?", "order": "A-1002"}
    forked = await case.fork(from_="lookup", input=packed, model="other-model")
    assert (await forked.result(20))["ticket"]  # its draft is not good: a person has to see to it
    assert {body["model"] for body in model.requests[-2:]} == {"other-model"}
    assert (await forked.state()).started.input == packed


async def test_a_failed_execution_goes_on_under_a_mended_definition_where_it_failed(client: AsyncClient) -> None:
    CALLS.clear()
    run = await client.start(BAD, "x", id="broken")
    with pytest.raises(ExecutionFailed):
        await run.result(20)
    forked = await run.fork(workflow=FLOW, id="mended")
    assert await forked.result(20) == ["x", "good"]
    assert CALLS == ["x", "bad", "good"]
    assert (await client.get("broken").state()).status == "failed"
    await client.workflows.register(FLOW)
    by_name = await client.get("broken").fork(workflow="fork-flow@1")
    assert await by_name.result(20) == ["x", "good"]
    assert (await by_name.state()).started.digest == (await forked.state()).started.digest
    with pytest.raises(WorkflowNotFound, match="missing: there is no such file, and "):
        await client.get("broken").fork(workflow="missing")


async def test_the_same_fork_asked_for_again_is_the_same_and_another_under_its_id_is_refused(
    client: AsyncClient, case: AsyncRun
) -> None:
    forked = await case.fork(at=3, id="twice")
    await forked.result(20)
    assert (await case.fork(at=3, id="twice")).id == "twice"
    assert sum(isinstance(each.event, ExecutionForked) for r in await forked.history() for each in r.unpack()) == 1
    for at, model in ((4, None), (3, "other")):
        with pytest.raises(ExecutionExists, match="'twice' is taken"):
            await case.fork(id="twice", at=at, model=model)
    with pytest.raises(ExecutionExists):
        await case.fork(id=case.id)


async def test_forks_of_forks_reuse_what_any_of_them_did(client: AsyncClient) -> None:
    first = await client.start(FLOW, "y" * 200_000, id="first")
    await first.result(20)
    second = await first.fork(from_="second", id="second")
    await second.result(20)
    CALLS.clear()
    third = await second.fork(from_="second", id="third")
    assert (await third.result(20))[1] == "good"
    assert CALLS == ["good"]
    assert (await third.history().at(1)).nodes["first"].reused
    slim = (await client._connection.log.with_events((await third.history())[0])).slim
    assert [blob.at for blob in slim.blobs] == ["/events/0/input", "/events/1/past"]


async def test_forks_of_forks_are_so_many_deep_at_most(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.cluster.forks._DEEPEST", 3)
    run = await client.start(FLOW, "d", id="deep-0")
    for number in range(1, 3):
        await run.result(20)
        run = await run.fork(from_="second", id=f"deep-{number}")
    assert await run.result(20) == ["d", "good"]
    with pytest.raises(BadInput, match="'deep-2' is a fork of forks, 3 deep; start a new execution instead"):
        await run.fork()


async def test_a_fork_is_exported_and_goes_on_elsewhere(client: AsyncClient, tmp_path: Path) -> None:
    run = await client.start(FLOW, "z", id="source")
    await run.result(20)
    await (await run.fork(from_="second", id="moved")).result(20)
    lines = [line async for line in client.export("moved")]
    async with await AsyncClient.open(Settings(store=tmp_path / "there"), "none") as there:
        assert await there.import_history(lines) == "moved"
        state = await there.get("moved").state()
        assert state.status == "succeeded"
        assert state.nodes["first"].output == "z"
        assert [line async for line in there.export("moved")] == lines
        with pytest.raises(ExecutionNotFound):
            await there.get("source").fork()


async def test_what_cannot_be_forked_says_why(case: AsyncRun, client: AsyncClient) -> None:
    with pytest.raises(BadInput, match="none has the number 99"):
        await case.fork(at=99)
    with pytest.raises(BadInput, match="does not fit the input schema"):
        await case.fork(at=1, input={})
    with pytest.raises(BadInput, match="the model to fork with has no name"):
        await case.fork(model=" ")
    agentless = await client.start(FLOW, "a", id="agentless")
    await agentless.result(20)
    with pytest.raises(BadInput, match="no agents"):
        await agentless.fork(model="x")


async def test_forks_are_listed_with_the_others(client: AsyncClient, case: AsyncRun) -> None:
    forked = await case.fork(from_="reply", id="listed")
    await forked.result(20)
    rows = {row["id"]: row for row in await client.executions(limit=100)}
    assert (rows["listed"]["workflow"], rows["listed"]["status"]) == ("customer-support", "succeeded")
    assert (rows["listed"]["forked_from"], rows[case.id]["forked_from"]) == (case.id, None)
    other = await forked.fork(id="of-listed")
    await other.result(20)
    assert [row["id"] for row in await client.executions(forked_from="listed")] == ["of-listed"]
    assert "listed" in {row["id"] for row in await client.executions(filter=f"forked_from == '{case.id}'")}


async def test_a_past_that_was_removed_is_refused_and_a_fork_of_it_stands_alone(client: AsyncClient) -> None:
    first = await client.start(FLOW, "y", id="one")
    await first.result(20)
    second = await first.fork(from_="second", id="two")
    await second.result(20)
    await purge(client._connection, "one")
    with pytest.raises(BadInput, match="purged"):
        await first.fork()
    CALLS.clear()
    assert await (await second.fork(from_="second")).result(20) == ["y", "good"]
    assert CALLS == ["good"]
    await purge(client._connection, "two")  # with the blob of its past


def test_the_table_of_what_each_node_needs_is_that_of_the_example() -> None:
    nodes = yaml.safe_load((EXAMPLES / "customer_support.yaml").read_text())["nodes"]
    assert set(nodes) - {"escalate"} == set(NEEDED)

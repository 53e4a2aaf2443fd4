"""Children: workflows that a node runs as executions of their own."""

from pathlib import Path
from typing import Any

import pytest
from scenario import BOOM, EXECUTION, Given, due, failure, output, plan_of, running

from perdure.actors.inputs import CancelExecution, Recover, ReportChild, ReportFailure, StartExecution
from perdure.cluster.client import AsyncClient
from perdure.cluster.settings import Settings
from perdure.errors import BadInput, ExecutionFailed, ExecutionStopped
from perdure.events.vocabulary import (
    ChildEnded,
    ChildRequested,
    CommandRefused,
    ExecutionStarted,
    NodeAttemptFailed,
    NodeSucceeded,
    Parent,
)

LEAF = {"name": "leaf", "input": {"type": "object", "required": ["n"]}, "nodes": {"x": {"set": "${{ input.n * 10 }}"}}}


def one(**parts: Any) -> dict[str, Any]:
    return {"a": {"workflow": {"name": "leaf", **parts}, "with": {"n": "${{ input }}"}}}


def asked(**parts: Any) -> Given:
    return running(one(**parts), 1, workflows={"leaf": LEAF})


def report(child: str = "x-1.a", **parts: Any) -> ReportChild:
    return ReportChild(f"{child}/ended", EXECUTION, child, **parts)


# decided purely


def test_a_node_asks_for_its_child_and_waits() -> None:
    given = asked()
    assert given.events[1:] == [ChildRequested("a", 1, "x-1.a", "leaf", {"n": 1})]
    assert given.now.nodes["a"].status == "waiting"


def test_a_childs_output_is_its_nodes() -> None:
    given = asked().when(report(output=7))
    assert given.events[2:4] == [ChildEnded("x-1.a"), NodeSucceeded("a", 1, 7)]
    assert output(given) == {"a": 7}


def test_a_childs_error_is_its_nodes_which_may_try_again_with_another_child() -> None:
    nodes = one()
    nodes["a"]["retry"] = {"attempts": 2, "delay": 1}
    given = running(nodes, 1, workflows={"leaf": LEAF}).when(report(error=BOOM))
    assert isinstance(given.events[-2], NodeAttemptFailed)
    given.when(due(given, "retry/a"))
    assert given.events[-1] == ChildRequested("a", 2, "x-1.a#2", "leaf", {"n": 1})
    assert failure(given.when(report("x-1.a#2", error=BOOM))) == BOOM


def test_a_second_report_and_one_of_a_stranger_change_nothing() -> None:
    given = asked().when(report(output=1))
    before = len(given.events)
    given.when(report(output=2), report("stranger", output=3))
    assert len(given.events) == before


def test_a_detached_child_is_not_waited_for() -> None:
    assert output(asked(detach=True, id="mine-${{ input }}")) == {"a": "mine-1"}


def test_an_input_that_does_not_fit_the_childs_schema_fails_at_once() -> None:
    leaf = {**LEAF, "input": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    given = running(one(), "text", workflows={"leaf": leaf})
    assert failure(given).type == "Invalid"


def test_the_report_of_a_child_whose_parent_ended_is_only_noted() -> None:
    given = running({**one(), "b": {"tool": "t"}}, 1, workflows={"leaf": LEAF}).when(ReportFailure("b", 1, BOOM))
    assert given.when(report(output=1)).events[-1] == ChildEnded("x-1.a")
    assert not given.now.children


def test_a_recovered_parent_still_waits_for_its_child() -> None:
    given = asked().when(Recover())
    assert output(given.when(report(output=7))) == {"a": 7}


def test_a_child_that_is_asked_for_again_is_the_same_whatever_its_name_means_by_now() -> None:
    plan, parent = plan_of({"x": {"tool": "t"}}), Parent("up", "a", 1, "3")
    started = ExecutionStarted("flow", "sha256:old", 1, "0", parent=parent)
    again = StartExecution("s-2", EXECUTION, "flow", "sha256:new", 1, "0", parent=parent)
    Given(plan, started).when(again).then_nothing()
    stranger = StartExecution("s-3", EXECUTION, "flow", "sha256:new", 1, "0", parent=Parent("other", "a", 1, "3"))
    Given(plan, started).when(stranger).then_types(CommandRefused)


def test_a_cancelled_parent_keeps_in_mind_which_children_to_close() -> None:
    given = asked().when(CancelExecution("c-1", EXECUTION))
    assert given.now.status == "cancelled"
    assert set(given.now.children) == {"x-1.a"}


# run for real


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    """A client that drives everything in this process, one execution at a time."""
    async with await AsyncClient.open(Settings(store=tmp_path, executions_per_actor=1, hosts=1), "local") as client:
        yield client


async def test_three_levels_of_children_run_on_a_host_that_holds_one_execution(client: AsyncClient) -> None:
    nodes = one()
    nodes["a"]["with"] = {"n": "${{ input.n + 1 }}"}
    mid = {"name": "mid", "workflows": {"leaf": LEAF}, "nodes": nodes}
    top = {
        "name": "top",
        "workflows": {"mid": mid},
        "nodes": {
            "one": {"workflow": "mid", "with": {"n": 1}},
            "all": {"foreach": {"items": "[1, 2, 3]"}, "workflow": "mid", "with": {"n": "${{ item }}"}},
        },
    }
    run = await client.start(top, id="top")
    result = await run.result(timeout=30)
    leaf = {"a": {"x": 20}}
    assert result == {"one": leaf, "all": [leaf, {"a": {"x": 30}}, {"a": {"x": 40}}]}
    assert await client.get("top.one.a").result(timeout=5) == {"x": 20}


async def test_a_childs_failure_reaches_its_parent_with_its_error(client: AsyncClient) -> None:
    bad = {"name": "bad", "nodes": {"x": {"fail": {"type": "Broken", "message": "no luck"}}}}
    run = await client.start({"name": "top", "workflows": {"bad": bad}, "nodes": {"a": {"workflow": "bad"}}})
    with pytest.raises(ExecutionFailed, match="Broken: no luck"):
        await run.result(timeout=20)


async def test_a_registered_workflow_can_be_a_child_and_an_unknown_one_fails_its_node(client: AsyncClient) -> None:
    await client.workflows.register(LEAF)
    nodes = {
        "known": {"workflow": "leaf@1", "with": {"n": 4}},
        "unknown": {"workflow": "leef", "catch": [{"output": "${{ error.type }}"}]},
        "wrong": {"workflow": "leaf", "with": {}, "catch": [{"output": "${{ error.type }}"}]},
    }
    result = await (await client.start({"name": "top", "nodes": nodes})).result(timeout=20)
    assert result == {"known": {"x": 40}, "unknown": "WorkflowNotFound", "wrong": "BadInput"}


async def test_an_id_that_is_taken_fails_the_node_that_asks_for_it(client: AsyncClient) -> None:
    await (await client.start(LEAF, {"n": 1}, id="taken")).result(timeout=20)
    nodes = {"a": {"workflow": {"name": "leaf", "id": "taken"}, "with": {"n": 1}}}
    run = await client.start({"name": "top", "workflows": {"leaf": LEAF}, "nodes": nodes})
    with pytest.raises(ExecutionFailed, match="ExecutionExists"):
        await run.result(timeout=20)


@pytest.mark.parametrize(("policy", "status"), [("cancel", "cancelled"), ("terminate", "terminated"), ("abandon", "")])
async def test_children_are_closed_with_their_parent_as_it_says(client: AsyncClient, policy: str, status: str) -> None:
    waiting = {"name": "waiting", "nodes": {"w": {"wait": {"signal": "go"}}}}
    nodes = {"a": {"workflow": {"name": "waiting", "id": f"child-{policy}", "on_parent_close": policy}}}
    run = await client.start({"name": "top", "workflows": {"waiting": waiting}, "nodes": nodes})
    child = client.get(f"child-{policy}")
    async for happened in child.events():
        if happened.event.__class__.__name__ == "NodeWaiting":
            break
    await run.cancel("enough")
    with pytest.raises(ExecutionStopped, match="enough"):
        await run.result(timeout=20)
    if status:
        with pytest.raises(ExecutionStopped, match=status):
            await child.result(timeout=20)
    else:
        await child.signal("go", 1)
        assert await child.result(timeout=20) == {"w": 1}


@pytest.mark.parametrize("way", ["output", "error"])
async def test_a_child_that_gives_more_than_a_message_takes_fails_its_node_and_leaves_nobody_waiting(
    client: AsyncClient, way: str
) -> None:
    nodes: dict[str, Any] = {"all": {"set": ["${{ input.half }}", "${{ input.half }}"]}}
    if way == "error":
        nodes["end"] = {"fail": {"message": "no", "data": "${{ nodes.all.output }}"}}
    top = {
        "name": "top",
        "workflows": {"big": {"name": "big", "nodes": nodes}},
        "nodes": {"a": {"workflow": "big", "with": {"half": "${{ input }}"}}},
    }
    run = await client.start(top, "x" * 600_000, id="top")
    with pytest.raises(ExecutionFailed, match=r"BadInput: child 'top\.a' cannot say how it ended: .* the server takes"):
        await run.result(timeout=20)


async def test_a_signal_that_is_too_large_is_refused_as_the_callers_mistake(client: AsyncClient) -> None:
    run = await client.start({"name": "top", "nodes": {"w": {"wait": {"signal": "go"}}}})
    with pytest.raises(BadInput, match="put what is large into a file"):
        await run.signal("go", "x" * 1_100_000)

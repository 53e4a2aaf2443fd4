"""Statecharts and other executions, on the real inbox: children, signals to others, and what becomes of them."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perdure import ExecutionFailed, Settings, connect_async
from perdure.actors.inputs import SignalExecution
from perdure.cluster.client import AsyncClient
from perdure.events.vocabulary import EventIgnored, MacrostepTaken

END = {"type": "final"}
RING = {
    "name": "ring",
    "kind": "statechart",
    "states": {"a": {"on": {"ring": "b"}}, "b": {**END, "output": "${{ event.data }}"}},
}
ADD = {"name": "add", "nodes": {"sum": {"set": "${{ input.a + 1 }}"}}, "output": "${{ nodes.sum.output }}"}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = Settings(store=tmp_path_factory.mktemp("charts"))
    async with await connect_async(settings, local=True) as client:
        yield client


def chart(states: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"name": "flow", "kind": "statechart", "states": states, **parts}


async def test_a_state_invokes_a_dag_whose_output_is_the_event(client: AsyncClient) -> None:
    way = {"target": "b", "do": {"set": {"n": "${{ event.data }}"}}}
    states = {
        "a": {"invoke": {"workflow": "add", "with": {"a": 4}, "on_done": way}},
        "b": {**END, "output": "${{ context.n }}"},
    }
    run = await client.start(chart(states, context={"n": 0}, workflows={"add": ADD}))
    assert await run.result(10) == 5


async def test_a_child_that_a_state_invokes_is_cancelled_when_the_state_is_left(client: AsyncClient) -> None:
    child = f"bell-{uuid4().hex}"
    states = {"a": {"invoke": {"workflow": {"name": "ring", "id": child}}, "on": {"go": "b"}}, "b": END}
    run = await client.start(chart(states, workflows={"ring": RING}))
    await client.get(child).begun(within=10)
    await run.send("go")
    assert await run.result(10) is None
    with pytest.raises(Exception, match="its parent does not wait for it any more"):
        await client.get(child).result(10)


async def test_a_chart_starts_a_workflow_and_sends_it_a_signal(client: AsyncClient) -> None:
    other = f"other-{uuid4().hex}"
    do = [
        {"start": {"name": "ring", "id": other}, "with": {}},
        {"send": {"to": "${{ input.other }}", "event": "ring", "data": {"n": 7}}},
    ]
    states = {"a": {"on": {"go": {"target": "b", "do": do}}}, "b": END}
    run = await client.start(chart(states, workflows={"ring": RING}), {"other": other})
    await run.send("go")
    assert await run.result(15) is None
    assert await client.get(other).result(10) == {"n": 7}


async def test_a_signal_to_an_execution_that_is_not_there_is_an_error_of_the_action(client: AsyncClient) -> None:
    states = {"a": {"entry": {"send": {"to": "nobody", "event": "x"}}, "on": {"y": "b"}}, "b": END}
    run = await client.start(chart(states))
    with pytest.raises(ExecutionFailed, match="there is no execution 'nobody'"):
        await run.result(15)


async def test_a_hundred_signals_at_once_are_taken_in_the_order_in_which_they_were_sent(client: AsyncClient) -> None:
    count = {"do": {"set": {"seen": "${{ context.seen + [event.data] }}"}}}
    states = {"a": {"on": {"n": count, "end": "b"}}, "b": {**END, "output": "${{ context.seen }}"}}
    run = await client.start(chart(states, context={"seen": []}))
    for number in range(100):
        await run.send("n", number)
    await run.send("end")
    assert await run.result(20) == list(range(100))


async def test_a_dag_runs_a_chart_as_a_child(client: AsyncClient) -> None:
    flow = {
        "name": "flow",
        "workflows": {"ring": RING},
        "nodes": {"bell": {"workflow": {"name": "ring", "id": f"bell-{uuid4().hex}"}}},
    }
    run = await client.start(flow)
    child = client.get(flow["nodes"]["bell"]["workflow"]["id"])  # type: ignore[index]
    await child.begun(within=10)
    await child.send("ring", 3)
    assert await run.result(10) == {"bell": 3}


async def test_every_signal_is_a_step_or_recorded_as_ignored(client: AsyncClient) -> None:
    states = {"a": {"on": {"x": "b"}}, "b": {"on": {"y": "a", "end": "c"}}, "c": END}
    run = await client.start(chart(states))
    for event in ("x", "x", "y", "z", "x", "end"):
        await run.send(event)
    await run.result(10)
    told = [happened.event async for happened in run.events()]
    assert [e.event for e in told if isinstance(e, MacrostepTaken)] == ["", "x", "y", "x", "end"]
    assert [e.event for e in told if isinstance(e, EventIgnored)] == ["x", "z"]


async def test_a_flood_of_events_is_taken_whole_and_in_its_order(client: AsyncClient) -> None:
    do = {"set": {"next": "${{ context.next + 1 }}", "kept": "${{ context.kept and event.data == context.next }}"}}
    states = {"a": {"on": {"n": {"do": do}, "end": "b"}}, "b": {**END, "output": "${{ context }}"}}
    run = await client.start(chart(states, context={"next": 0, "kept": True}))
    inbox, lane = client._connection.inbox, (await run.state()).started.lane
    for number in range(1000):
        await inbox.send(SignalExecution(f"{run.id}/{number}", run.id, "n", number), lane)
    await run.send("end")
    assert await run.result(30) == {"next": 1000, "kept": True}


async def test_the_progress_of_a_tool_reaches_the_chart(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "import perdure\n@perdure.tool\ndef copy(ctx: perdure.Context) -> str:\n"
        "    for far in (50, 100):\n        ctx.heartbeat(far)\n    return 'copied'\n"
    )
    far = {"do": {"set": {"far": "${{ context.far + [event.data] }}"}}}
    states = {
        "a": {"invoke": {"tool": "copy", "on_done": "b"}, "on": {"progress.invoke.a": far}},
        "b": {**END, "output": "${{ context.far }}"},
    }
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(chart(states, context={"far": []}, tools=["./tools.py"])))
    assert await (await client.start(path)).result(10) == [50, 100]

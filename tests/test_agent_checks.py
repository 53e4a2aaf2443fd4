"""What is wrong with agents is found before anything runs, at its place, with the mend."""

from typing import Any

import pytest

from perdure import dag
from perdure.definitions.loading import load
from perdure.errors import DefinitionError

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown agent as a tool": ({"tools": [{"agent": "bb"}]}, r"there is no agent 'bb'; did you mean 'b'"),
    "unknown hand-over": ({"handoffs": "nobody"}, r"there is no agent 'nobody'; declare it under 'agents'"),
    "two kinds of tool": ({"tools": [{"tool": "t", "agent": "b"}]}, "give it exactly one of 'tool', 'agent'"),
    "no tool": ({"tools": [{"name": "t"}]}, "give it exactly one of 'tool', 'agent'"),
    "same name": ({"tools": ["x.t", {"tool": "y:t", "name": "x_t"}]}, "there is another tool called 'x_t'"),
    "name of a step": ({"tools": ["model"]}, "cannot be called 'model' towards the model"),
    "name of a hand-over": ({"tools": [{"tool": "t", "name": "hand_off_to_b"}]}, "cannot be called 'hand_off_to_b'"),
    "name with spaces": ({"tools": [{"tool": "t", "name": "a b"}]}, "name"),
    "retry of an agent": ({"tools": [{"agent": "b", "retry": {}}]}, "'retry' is for tools"),
    "node in an approval": ({"tools": [{"tool": "t", "approve": "nodes.n.output"}]}, "unknown name 'nodes'"),
    "no expression": ({"tools": [{"tool": "t", "approve": "args.x >"}]}, "approve"),
    "args in with": ({"tools": [{"tool": "t", "with": {"x": "${{ args.x }}"}}]}, "unknown name 'args'"),
    "secret for a workflow": (
        {"tools": [{"workflow": "w", "with": {"x": "${{ secrets.X }}"}}]}, "unknown name 'secrets'",
    ),
    "computed secret": ({"tools": [{"tool": "t", "with": {"x": "${{ secrets.X + '1' }}"}}]}, "computes with a secret"),
    "summarised with tools": ({"memory": {"summarise": "c"}}, "an agent that summarises is asked once"),
    "itself": ({"tools": [{"agent": "a"}]}, "agents are tools of each other in a circle: a calls a"),
    "unsound schema": ({"tools": [{"tool": "t", "input": {"type": "nothing"}}]}, "input"),
    "other tool after a hand-over": ({"tools": [{"tool": "t", "approve": "always"}], "handoffs": "c"}, "called 't'"),
    "budget": ({"budget": {"turns": 0}}, "turns"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_agent_is_refused_and_says_why(case: str) -> None:
    parts, what = CASES[case]
    with pytest.raises(DefinitionError, match=what):
        load(definition(parts))


def definition(parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    agent = {"model": "m", "instructions": "i"}
    agents = {"a": {**agent, **parts}, "b": agent, "c": {**agent, "tools": ["t"]}}
    return {"name": "w", "agents": agents, "nodes": {"n": {"agent": "a", "with": {"message": "hi"}}}, **more}


def test_what_undoes_a_node_is_no_agent_that_takes_turns() -> None:
    nodes = {"n": {"tool": "t", "compensate": {"agent": "a", "with": {"message": "undo"}}}}
    for parts in ({"tools": ["t"]}, {"output": {"type": "object"}}):
        with pytest.raises(DefinitionError, match="what undoes a node is one call"):
            load(definition(parts) | {"nodes": nodes})
    load(definition({"output": {"type": "object"}, "repairs": 0}) | {"nodes": nodes})


@pytest.mark.parametrize("key", ["k-123", "${{ secrets.KEY }} ", "Bearer ${{ secrets.KEY }}"])
def test_the_key_of_an_endpoint_is_a_secret(key: str) -> None:
    with pytest.raises(DefinitionError, match=r"a key is a secret: write it as '\$\{\{ secrets.NAME \}\}'"):
        load(definition({}, endpoints={"mine": {"key": key}}))
    plan = load(definition({}, endpoints={"mine": {"key": "${{ secrets.KEY }}"}})).plan
    assert plan.secrets == {"KEY"}


def test_a_pydantic_model_stands_for_its_schema_in_python() -> None:
    from pydantic import BaseModel

    class Verdict(BaseModel):
        good: bool

    flow = dag("judged", agents={"judge": {"model": "m", "instructions": "Judge.", "output": Verdict}})
    flow.agent("n", "judge", with_={"message": "hi"})
    output = flow.build().agents["judge"].output
    assert output is not None
    assert output["properties"] == {"good": {"title": "Good", "type": "boolean"}}

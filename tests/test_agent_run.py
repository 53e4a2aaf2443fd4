"""Agents on the real store: tools, approvals, budgets, files, secrets."""

# ruff: noqa: F811 (fixtures that are imported)

import sys
from pathlib import Path
from typing import Any

import pytest
from agent_lab import PAID, PAY, SCRIPT, client, flow, model  # noqa: F401 (fixtures)

from perdure import ExecutionFailed
from perdure.cluster.client import AsyncClient
from perdure.errors import BadInput, CommandNotAllowed, ModelUnavailable
from perdure.events.vocabulary import NodeSucceeded, NodeWaiting
from perdure.testing import Model, Reply


async def test_a_tool_gets_the_secrets_that_the_definition_gives_it_and_the_model_never_sees_them(
    client: AsyncClient, model: Model
) -> None:
    SCRIPT.extend([Reply(match="one please", turn=0, calls=[{"pay": {"amount": 5}}], usage=(100, 20)),
                   Reply("Paid.", match="one please", turn=1, usage=(200, 10))])  # fmt: skip
    PAID.clear()
    run = await client.start(flow("one", tools=[PAY]))
    assert await run.result(20) == {"n": "Paid."}
    assert PAID == [("tok-1234567", 5)]
    offered, told = (each for each in model.requests if "one please" in str(each))
    function = offered["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("pay", "Pay an amount.")
    assert list(function["parameters"]["properties"]) == ["amount"]
    assert function["parameters"]["properties"]["amount"]["description"] == "In cents."
    assert told["messages"][-1]["content"] == "paid 5 with [secret PAY_TOKEN]"
    assert "tok-1234567" not in str(model.requests)
    events = [each.event for recorded in await run.history() for each in recorded.unpack()]
    used = [each.usage for each in events if isinstance(each, NodeSucceeded) and each.usage]
    assert used == [
        {"model": "m", "input": 100, "output": 20, "cost": 0.0003},
        {"model": "m", "input": 200, "output": 10, "cost": 0.0003},
    ]
    said = await run.transcript("n")
    assert [(each.role, each.text) for each in said][-1] == ("assistant", "Paid.")


async def test_a_model_is_offered_tools_of_mcp_servers_and_our_own_as_they_describe_themselves(
    client: AsyncClient, model: Model
) -> None:
    SCRIPT.extend([Reply(match="mcp please", turn=0, calls=[{"desk_add": {"a": 20, "b": 3}}, {"desk_add": {"a": "x"}}]),
                   Reply("Added.", match="mcp please", turn=1)])  # fmt: skip
    desk = {"command": sys.executable, "args": [str(Path(__file__).parent / "mcp_program.py")]}
    fetch = {"tool": "http", "name": "fetch", "with": {"auth": {"bearer": "${{ secrets.PAY_TOKEN }}"}}}
    run = await client.start({**flow("mcp", tools=["desk.add", fetch]), "mcp": {"desk": desk}})
    assert await run.result(30) == {"n": "Added."}
    asked, told = (each for each in model.requests if "mcp please" in str(each))
    add, http = (each["function"] for each in asked["tools"])
    assert (add["name"], add["description"], add["parameters"]["required"]) == ("desk_add", "Add two numbers.", ["a"])
    assert "url" in http["parameters"]["properties"]
    assert "auth" not in http["parameters"]["properties"]
    fits, misfits = (each["content"] for each in told["messages"][-2:])
    assert fits == '{"result": 23}'
    assert "its argument.a is 'x', not a whole number" in misfits


@pytest.mark.parametrize("tools", [[PAY], []])
async def test_an_agent_is_told_the_schema_in_words_where_its_reply_broke_it(
    client: AsyncClient, model: Model, tools: list[Any]
) -> None:
    word, calls = f"mend{len(tools)}", [{"pay": {"amount": 1}}] if tools else []
    SCRIPT.extend(Reply(calls=[each], match=f"{word} please", turn=0) for each in calls)
    SCRIPT.extend([Reply("no JSON", match=f"{word} please", turn=len(calls)), Reply({"ok": 1}, match=f"{word} please")])
    run = await client.start(flow(word, tools=tools, output={"type": "object", "required": ["ok"]}))
    assert await run.result(20) == {"n": {"ok": 1}}
    asked = [each["messages"] for each in model.requests if f"{word} please" in str(each)]
    told = ['"required":["ok"]' in system["content"] for system, *_ in asked]
    assert told == [*(False for _ in calls), False, True]
    replies = [each for path, each in (await run.state()).nodes.items() if path.endswith("/model")]
    assert len(replies) == len(asked), "each reply is recorded, the one that had to be mended too"
    assert all(each.usage for each in replies)


async def test_an_approval_waits_on_the_log_and_says_who_decided(client: AsyncClient) -> None:
    SCRIPT.extend([Reply(match="two please", turn=0, calls=[{"pay": {"amount": 900}}]),
                   Reply("Done.", match="two please", turn=1)])  # fmt: skip
    PAID.clear()
    run = await client.start(flow("two", tools=[{**PAY, "approve": "args.amount > 100"}]))
    async for happened in run.events():
        if isinstance(happened.event, NodeWaiting):
            break
    for slip in ({"arguments": 5}, {"amount": 50}, 50):  # none of them may pay what the model asked for
        with pytest.raises(CommandNotAllowed, match="does not fit the form"):
            await run.approve("n[0]/pay.approve", data=slip)
    for who in (5, "x" * 201, "a\nb"):
        with pytest.raises(BadInput, match="who decides is said in at most 200 printable characters"):
            await run.approve("n[0]/pay.approve", by=who)  # type: ignore[arg-type]
    await run.approve("n[0]/pay.approve", by="ann", data={"arguments": {"amount": 50}})
    assert await run.result(20) == {"n": "Done."}
    assert PAID == [("tok-1234567", 50)]
    decided = (await run.state()).nodes["n[0]/pay.approve"].output
    assert (decided["approved"], decided["by"]) == (True, "ann")


async def test_no_type_that_a_tool_would_convert_passes_by_the_condition_of_an_approval(
    client: AsyncClient, model: Model
) -> None:
    SCRIPT.extend([Reply(match="bypass please", turn=0, calls=[{"pay": {"amount": "900"}}, {"pay": {"amount": 900}}]),
                   Reply("Not paid.", match="bypass please", turn=1)])  # fmt: skip
    PAID.clear()
    run = await client.start(
        flow("bypass", tools=[{**PAY, "approve": "args.amount == 900", "approve_timeout": "10ms"}])
    )
    assert await run.result(20) == {"n": "Not paid."}
    assert PAID == []
    told = [each.text for each in await run.transcript("n") if each.role == "tool"]
    assert "its argument.amount is '900', not a whole number" in told[0]
    assert told[1] == "this call was refused by timeout"


@pytest.mark.parametrize(("budget", "type_"), [({"tokens": 250}, "OutOfTokens"), ({"cost": 0.0005}, "OutOfMoney")])
async def test_a_budget_that_is_used_up_is_a_typed_error_with_the_transcript_kept(
    client: AsyncClient, budget: Any, type_: str
) -> None:
    word = f"{type_} please"
    SCRIPT.append(Reply(match=word, calls=[{"pay": {"amount": 1}}], usage=(100, 20)))
    run = await client.start(flow(type_, tools=[PAY], budget=budget))
    with pytest.raises(ExecutionFailed, match=type_) as caught:
        await run.result(20)
    assert caught.value.error["data"] == {"turns": 3, "tokens": 360, "cost": 0.0009} if "tokens" in budget else {
        "turns": 2, "tokens": 240, "cost": 0.0006,
    }  # fmt: skip
    assert len([each for each in await run.transcript("n") if each.role == "tool"]) >= 1


async def test_a_budget_of_cost_needs_the_price_of_every_model_that_counts_in_it(client: AsyncClient) -> None:
    budget = {"budget": {"cost": 1}}
    for agent in (
        {"model": "dear"},
        {"fallback": ["dear"]},
        {"memory": {"summarise": "b"}},
        {"tools": [{"agent": "b"}]},
    ):
        definition = flow("-", **budget, **agent)
        definition["agents"]["b"] = {"model": "dear", "instructions": "Help."}
        with pytest.raises(BadInput, match=r"what model 'dear' costs is not known; set PERDURE_PRICES='{\"dear\": "):
            await client.start(definition)


async def test_files_are_uploaded_once_and_shown_to_the_model(
    client: AsyncClient, model: Model, tmp_path: Path
) -> None:
    SCRIPT.append(Reply("A dot.", match="what is on it"))
    (tmp_path / "dot.png").write_bytes(b"\x89PNG dot")
    reference = await client.upload(tmp_path / "dot.png")
    assert reference["media_type"] == "image/png"
    definition = flow("-", node={"with": {"message": "what is on it", "files": ["${{ input }}"]}})
    run = await client.start(definition, reference)
    assert await run.result(20) == {"n": "A dot."}
    assert "data:image/png;base64,iVBORyBkb3Q=" in str(model.requests[-1])
    with pytest.raises(BadInput, match="cannot be uploaded"):
        await client.upload(tmp_path / "none.png")


async def test_an_endpoint_that_nobody_declared_is_refused_at_the_start(client: AsyncClient) -> None:
    with pytest.raises(ModelUnavailable, match="no endpoint 'mine'"):
        await client.start(flow("x", endpoint="mine"))

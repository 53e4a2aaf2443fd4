"""What agents remember, on the real store: across nodes and executions, summed up, without secrets."""

# ruff: noqa: F811 (fixtures that are imported)

from uuid import uuid4

from agent_lab import PAID, PAY, SCRIPT, client, flow, model  # noqa: F401 (fixtures)

from perdure.cluster.client import AsyncClient
from perdure.testing import Model, Reply


async def test_a_session_is_remembered_across_executions_until_it_is_forgotten(
    client: AsyncClient, model: Model
) -> None:
    known = Reply("You are Ann.", match=r"(?s)Hello Ann\..*who am I")
    SCRIPT.extend([Reply("Hello Ann.", match="I am Ann", turn=0), known, Reply("I do not know.", match="who am I")])
    name = f"customer {uuid4().hex}"
    node = {"session": "${{ input.customer }}"}
    asks = [flow("-", node={**node, "with": {"message": text}}) for text in ("I am Ann", "who am I")]
    first = await client.start(asks[0], {"customer": name})
    assert await first.result(20) == {"n": "Hello Ann."}
    second = await client.start(asks[1], {"customer": name})
    assert await second.result(20) == {"n": "You are Ann."}
    assert (await client.sessions())[name] == 2
    assert [each.text for each in await client.session(name)] == [
        "I am Ann", "Hello Ann.", "who am I", "You are Ann.",
    ]  # fmt: skip
    await client.forget_session(name)
    assert await client.session(name) == []
    assert name not in await client.sessions()
    third = await client.start(asks[1], {"customer": name})
    assert await third.result(20) == {"n": "I do not know."}


async def test_nodes_of_one_execution_share_a_session(client: AsyncClient) -> None:
    SCRIPT.extend([Reply("Noted.", match="my dog is Rex", turn=0),
                   Reply("Rex.", match=r"(?s)my dog is Rex.*Noted\..*who is my dog")])  # fmt: skip
    asks = {"agent": "a", "session": uuid4().hex}
    definition = flow("-", node={**asks, "with": {"message": "my dog is Rex"}})
    definition["nodes"]["m"] = {**asks, "needs": "n", "with": {"message": "who is my dog"}}
    run = await client.start(definition)
    assert await run.result(20) == {"m": "Rex."}


async def test_a_session_holds_no_secret_that_its_question_had(client: AsyncClient, model: Model) -> None:
    SCRIPT.append(Reply("I will not tell tok-1234567.", match="my token is tok-1234567"))
    name = uuid4().hex
    node = {"session": name, "with": {"message": "my token is ${{ secrets.PAY_TOKEN }}"}}
    run = await client.start(flow("-", node=node))
    assert await run.result(20) == {"n": "I will not tell [secret PAY_TOKEN]."}
    assert [each.text for each in await client.session(name)] == [
        "my token is [secret PAY_TOKEN]", "I will not tell [secret PAY_TOKEN].",
    ]  # fmt: skip


async def test_a_long_session_is_summed_up_by_an_agent_once(client: AsyncClient, model: Model) -> None:
    SCRIPT.extend([Reply("They spoke of oak.", match="Sum it up"), Reply("Oak " * 100, match="tell me of oak"),
                   Reply("Of oak.", match=r"(?s)before: They spoke of oak\..*of what")])  # fmt: skip
    name = uuid4().hex
    definition = flow(
        "-", node={"session": "${{ input.of }}", "with": {"message": "${{ input.ask }}"}},
        memory={"tokens": 60, "summarise": "sum"},
    )  # fmt: skip
    definition["agents"]["sum"] = {"model": "m", "instructions": "Sum it up."}
    for ask, answer in (("tell me of oak", "Oak " * 100), ("of what did we speak?", "Of oak.")):
        run = await client.start(definition, {"of": name, "ask": ask})
        assert await run.result(20) == {"n": answer}
    assert len([each for each in model.requests if "Sum it up" in str(each)]) == 1
    used = {path: node.usage for path, node in (await run.state()).nodes.items() if node.usage}
    assert set(used) == {"n[0]/recall", "n[0]/model"}, "what the summary cost is known"
    summary, *_ = await client.session(name)
    assert summary.text == "Summary of what was said before: They spoke of oak."

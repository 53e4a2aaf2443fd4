"""Agents on the real store: a host in this process, a model behind HTTP, sessions, streams, approvals, secrets."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from nats.aio.msg import Msg

import perdure
from perdure import ExecutionFailed, Settings, tool
from perdure.actors.secret_values import Secrets
from perdure.cluster.client import AsyncClient
from perdure.cluster.listening import Heard
from perdure.cluster.nats_server import NatsServer
from perdure.cluster.streams import Piece, Streams, stream_subject
from perdure.definitions.agent_parts import Price
from perdure.errors import BadInput, CommandNotAllowed, ModelUnavailable
from perdure.events.vocabulary import NodeSucceeded, NodeWaiting
from perdure.testing import Model, Reply

PAID: list[tuple[str, int]] = []
HEARD = asyncio.Event()


@tool(name="agent_test.pay")
async def pay(token: str, amount: int) -> str:
    """Pay an amount.

    Args:
        amount: In cents.
    """
    if amount == 7:
        await HEARD.wait()
    PAID.append((token, amount))
    return f"paid {amount} with {token}"


SCRIPT: list[Reply] = []
"""What the tests of this file add to; each matches by words of its own."""


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(SCRIPT) as model:
        yield model


@pytest.fixture(scope="module")
async def client(
    settings: Settings, server: NatsServer, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "PAY_TOKEN").write_text("tok-1234567")
    with_model = settings.model_copy(
        update={
            "openai_base_url": model.base_url, "secrets_dir": folder, "prices": {"m": Price(input=1, output=10)},
        }
    )  # fmt: skip
    async with await perdure.connect_async(with_model, local=True) as client:
        yield client


def flow(word: str, *, node: dict[str, Any] | None = None, **agent: Any) -> dict[str, Any]:
    asks = {"agent": "a", "with": {"message": f"{word} please"}, **(node or {})}
    return {
        "name": "flow", "nodes": {"n": asks},
        "agents": {"a": {"model": "m", "instructions": "Help.", **agent}},
    }  # fmt: skip


PAY = {"tool": "agent_test.pay", "name": "pay", "with": {"token": "${{ secrets.PAY_TOKEN }}"}}


async def test_a_tool_gets_the_secrets_that_the_definition_gives_it_and_the_model_never_sees_them(
    client: AsyncClient, model: Model
) -> None:
    SCRIPT.extend([Reply(match="one please", turn=0, calls=[{"pay": {"amount": 5}}], usage=(100, 20)),
                   Reply("Paid.", match="one please", turn=1, usage=(200, 10))])  # fmt: skip
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


async def test_what_a_model_says_is_heard_while_it_says_it_and_is_not_in_the_log(client: AsyncClient) -> None:
    text = "A reply that is heard piece by piece."
    SCRIPT.extend([Reply(match="hear please", turn=0, calls=[{"pay": {"amount": 7}}]),
                   Reply(text, match="hear please", turn=1)])  # fmt: skip
    run = await client.start(flow("hear", tools=[PAY]))
    heard: list[Heard] = []
    async for each in run.stream():
        HEARD.set()  # the call that is told first goes on once somebody listens
        heard.append(each)
    said = [each.text for each in heard if each.node == "n[1]/model"]
    assert "".join(said) == text
    assert [(each.kind, each.data) for each in heard if each.node == "n[0]/pay"][-1] == (
        "result", "paid 7 with [secret PAY_TOKEN]",
    )  # fmt: skip


async def test_each_node_is_heard_on_a_subject_of_its_own_that_no_stream_keeps(client: AsyncClient) -> None:
    SCRIPT.extend([Reply("Wait.", match="apart please", turn=0, calls=[{"pay": {"amount": 8}}, {"pay": {"no": 1}}]),
                   Reply("Apart.", match="apart please", turn=1)])  # fmt: skip
    nats, id_ = client._connection.nats, uuid4().hex
    heard: dict[str, list[Piece]] = {}

    async def take(message: Msg) -> None:
        heard.setdefault(message.subject, []).append(msgspec.json.decode(message.data, type=Piece))

    subscription = await nats.subscribe(stream_subject(id_), cb=take)
    run = await client.start(flow("apart", tools=[PAY]), id=id_)
    assert await run.result(20) == {"n": "Apart."}
    await subscription.drain()  # type: ignore[no-untyped-call]
    told: dict[str, Any] = {
        subject: [(each.kind, each.text or each.data) for each in pieces] for subject, pieces in heard.items()
    }
    paid, wrong = stream_subject(id_, "n[0]/pay"), stream_subject(id_, "n[0]/pay~2")
    assert told[stream_subject(id_, "n[1]/model")] == [("text", "Apart.")]
    assert told[paid] == [
        ("call", {"amount": 8, "token": "[secret PAY_TOKEN]"}), ("result", "paid 8 with [secret PAY_TOKEN]"),
    ]  # fmt: skip
    assert told[wrong][-1][1]["error"]["type"] == "BadInput"
    kept = [subject for stream in await nats.jetstream().streams_info() for subject in stream.config.subjects or ()]
    assert not [each for each in kept if each.startswith(("perdure.stream", "perdure.progress", ">", "perdure.>"))]


async def test_a_stream_of_one_node_has_what_is_within_it_and_nothing_else(client: AsyncClient) -> None:
    SCRIPT.append(Reply("Said.", match="only please"))
    definition = flow("only", budget={"turns": 2})
    definition["nodes"]["other"] = {**definition["nodes"]["n"], "needs": "go"}
    definition["nodes"]["go"] = {"wait": {"signal": "go"}}
    definition["nodes"]["n"]["needs"] = "go"
    run = await client.start(definition)
    heard: set[str] = set()

    async def listen() -> None:
        async for each in run.stream("other"):
            heard.add(each.node)

    listening = asyncio.create_task(listen())
    await run.signal("go")
    await run.result(20)
    await listening
    assert heard == {"other[0]/model"}


async def test_who_joins_late_hears_all_that_was_said_so_far_and_no_secret(client: AsyncClient) -> None:
    secrets = Secrets({"KEY": "s3cr3t-value"}.__getitem__)
    secrets.value_of("KEY")
    run = await client.start({"name": "waits", "nodes": {"w": {"wait": {"signal": "go"}}}})
    stream = Streams(client._connection.nats, secrets).begin(run.id, "w", 1)
    stream.hear("The key is s3cr3t")
    stream._flush()
    heard: list[str] = []
    async for each in run.stream():
        heard.append(each.text)
        if len(heard) == 1:
            stream.hear("-value, no more.")
            stream.close()
        if "".join(heard).endswith("more."):
            break
    assert "".join(heard) == "The key is [secret KEY], no more."
    assert "The key is ".startswith(heard[0]), "what may become a secret is held back"
    await run.terminate()


async def test_who_joins_a_very_long_reply_late_hears_all_of_it(client: AsyncClient) -> None:
    run = await client.start({"name": "waits", "nodes": {"w": {"wait": {"signal": "go"}}}})
    stream = Streams(client._connection.nats, Secrets()).begin(run.id, "w", 1)
    text = "ä" * 1_000_000  # more than the server takes in one message
    stream.hear(text)
    stream._flush()
    heard = ""
    async for each in run.stream():
        heard += each.text
        if len(heard) >= len(text):
            break
    assert heard == text
    stream.close()
    await run.terminate()


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

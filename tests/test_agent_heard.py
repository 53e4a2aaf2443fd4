"""What is heard of agents: replies, calls and results, each node on a subject of its own; late joiners, no secrets."""

# ruff: noqa: F811 (fixtures that are imported)

import asyncio
from typing import Any
from uuid import uuid4

import msgspec
from agent_lab import HEARD, PAID, PAY, SCRIPT, client, flow, model  # noqa: F401 (fixtures)
from nats.aio.msg import Msg

from perdure.actors.secret_values import Secrets
from perdure.cluster.client import AsyncClient
from perdure.cluster.listening import Heard
from perdure.cluster.streams import Piece, Streams, stream_subject
from perdure.testing import Reply


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

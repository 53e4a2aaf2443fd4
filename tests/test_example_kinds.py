"""Every example of a node kind runs as it stands, on the real server, and ends as its first lines say."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import perdure
from perdure import ExecutionFailed, Settings
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.definitions.loading import load
from perdure.definitions.nodes import KINDS, kind_of
from perdure.events.vocabulary import Error
from perdure.testing import Model, play, signal

FOLDER = Path(__file__).parent.parent / "examples/kinds"
OUTPUTS: dict[str, Any] = {
    "agent": {"mood": "mixed", "complaints": ["it came late"]},
    "tool": {"tell": "to buyer@example.com: We have 12 boards."},
    "switch": "the manager looks at it",
    "parallel": {"quick": {"carrier": "Quick", "days": 2}, "steady": "Steady, 3 days"},
    "foreach": [{"article": "board", "enough": True}, None, {"article": "bowl", "enough": False}],
    "loop": {"percent": 100, "done": True},
    "aggregate": {"fraud": True, "votes": "2 of 3"},
    "workflow": {"order": "A-1001", "receipts": ["receipt for 20", "receipt for 10.5"]},
    "set": {"total": 109.2, "note": "2 lines for ANN"},
    "catch": {
        "result": "to ann@example.com: Another card, please: the card 4000-12/19 is not valid any more",
        "how": "caught",
    },
}
ERRORS = {
    "fail": ("refuse", {"type": "OverLimit", "message": "1200 is more than 1000", "data": {"over": 200}}),
    "compensate": ("car", {"type": "SoldOut", "message": "there is no car left", "data": None}),
    "compensate_children": ("car", {"type": "SoldOut", "message": "there is no car left", "data": None}),
    "finally": (
        "pay",
        {"type": "CardExpired", "message": "the card 4000-12/19 is not valid any more", "data": None},
    ),
}
TOLD = {"wait", "approval", "statechart"}
"""What somebody has to tell something while it runs."""


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    with Model.from_file(FOLDER / "replies.yaml") as model:
        settings = Settings(store=tmp_path_factory.mktemp("kinds"), openai_base_url=model.base_url)
        async with await perdure.connect_async(settings, local=True) as client:
            yield client


async def started(client: AsyncClient, example: str) -> AsyncRun:
    return await client.start(FOLDER / f"{example}.yaml", id=f"{example}-{uuid4().hex}")


async def waiting(run: AsyncRun, node: str) -> None:
    async for happened in run.events():
        if type(happened.event).__name__ == "NodeWaiting" and getattr(happened.event, "node", "") == node:
            return


@pytest.mark.parametrize("example", OUTPUTS)
async def test_an_example_gives_its_output(client: AsyncClient, example: str) -> None:
    assert await (await started(client, example)).result(20) == OUTPUTS[example]


@pytest.mark.parametrize("example", ERRORS)
async def test_an_example_that_fails_on_purpose_fails_as_it_says(client: AsyncClient, example: str) -> None:
    with pytest.raises(ExecutionFailed) as caught:
        await (await started(client, example)).result(20)
    assert (caught.value.node, caught.value.error) == ERRORS[example]


async def test_the_journey_is_given_back_the_last_part_first(client: AsyncClient) -> None:
    run = await started(client, "compensate")
    with pytest.raises(ExecutionFailed):
        await run.result(20)
    ended = [
        (getattr(happened.event, "node"), getattr(happened.event, "output"))  # noqa: B009
        async for happened in run.events()
        if type(happened.event).__name__ == "NodeSucceeded"
    ]
    assert ended[2:] == [
        ("hotel~undo", "hotel-1 cancelled: there is no car left"),
        ("flight~undo", "flight-1 cancelled: there is no car left"),
    ]


async def test_a_stay_is_given_back_by_the_workflow_that_booked_it_and_a_flight_by_another(client: AsyncClient) -> None:
    run = await started(client, "compensate_children")
    with pytest.raises(ExecutionFailed):
        await run.result(20)
    stay, flight = client.get(f"{run.id}.stay"), client.get(f"{run.id}.flight~undo")
    given_back = {name: node.output for name, node in (await stay.state()).nodes.items() if name.endswith("~undo")}
    assert given_back == {
        "table~undo": "table-1 cancelled: there is no car left",
        "hotel~undo": "hotel-1 cancelled: there is no car left",
    }
    assert (await stay.status(), await flight.status()) == ("compensated", "succeeded")


async def test_the_customer_is_told_and_the_till_is_closed(client: AsyncClient) -> None:
    run = await started(client, "finally")
    with pytest.raises(ExecutionFailed):
        await run.result(20)
    nodes = (await run.state()).nodes
    assert nodes["on_failure/sorry"].output.startswith("to ann@example.com: Not paid: the card")
    assert nodes["finally/close"].output == "till 3 is closed"


async def test_the_customer_who_pays_is_thanked(client: AsyncClient) -> None:
    run = await started(client, "wait")
    await waiting(run, "payment")
    await run.signal("paid", {"amount": 30})
    assert await run.result(20) == "to ann@example.com: Thank you!"


@pytest.mark.parametrize(("yes", "mail"), [(True, "to customer@example.com: You get 120 back: late."), (False, None)])
async def test_a_refund_is_paid_only_if_a_person_says_yes(client: AsyncClient, yes: bool, mail: str | None) -> None:
    run = await started(client, "approval")
    await waiting(run, "ask")
    answer = run.approve if yes else run.reject
    await answer("ask", by="ann", data={"reason": "late"})
    assert await run.result(20) == {"approved": yes, "by": "ann", "mail": mail}


async def test_a_parcel_is_tried_again_until_somebody_is_in(client: AsyncClient) -> None:
    run = await started(client, "statechart")
    await run.wait_for("on_the_way", 10)
    assert await run.accepts() == ["delivered", "nobody_in"]
    await run.send("nobody_in")
    await run.wait_for("on_the_way", 10)
    await run.send("delivered", {"by": "the neighbour"})
    assert await run.result(20) == "to ann@example.com: taken by the neighbour, try 2"


def test_a_parcel_that_cannot_be_delivered_fails_its_node() -> None:
    played = play(
        FOLDER / "statechart.yaml", tools={"stock_of": 1}, tell=[signal("nobody_in", at=n) for n in (1, 3, 5)]
    )
    assert played.error == Error("Undeliverable", "nobody was in 3 times")


def test_every_kind_has_an_example_with_a_node_of_it_and_every_example_has_a_test() -> None:
    files = {file.stem: load(file).workflow for file in FOLDER.glob("*.yaml") if file.stem != "replies"}
    assert files.keys() == OUTPUTS.keys() | ERRORS.keys() | TOLD
    for kind in KINDS.keys() - {"custom"}:  # what that runs is installed: see test_own_kinds
        assert kind in {kind_of(node) for node in files[kind].nodes.values()}


async def ended(run: AsyncRun) -> None:
    with contextlib.suppress(ExecutionFailed):
        await run.result(20)


async def test_every_example_evaluated_as_it_is_ends_as_it_did_and_nothing_is_called(client: AsyncClient) -> None:
    runs = {example: await started(client, example) for example in (*OUTPUTS, *ERRORS, *TOLD)}
    await waiting(runs["approval"], "ask")
    await runs["approval"].approve("ask", by="ann", data={"reason": "late"})
    await waiting(runs["wait"], "payment")
    await runs["wait"].signal("paid", {"amount": 30})
    for told in ("nobody_in", "delivered"):
        await runs["statechart"].wait_for("delivery/chart/on_the_way", 20)
        await runs["statechart"].signal(told, {"by": "ann"} if told == "delivered" else None)
    for run in runs.values():
        await ended(run)
    for example in runs:
        (found,) = [each async for each in client.evaluate(FOLDER / f"{example}.yaml", 1)]
        assert found.execution == runs[example].id
        assert (example, found.same, found.problem, found.ran, found.nodes) == (example, True, "", [], [])
    assert [each.problems async for each in client.verify([run.id for run in runs.values()])] == [[]] * len(runs)

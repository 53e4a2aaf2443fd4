"""The statecharts among the examples: in virtual time, for real, and with their process killed between two signals."""

import json
import signal as signals
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from test_cli import environment, perdure  # noqa: F401 (a fixture)

from perdure import ExecutionFailed, Settings, connect_async
from perdure.cluster.client import AsyncClient
from perdure.errors import BadInput, ExecutionStopped, StateNotReached
from perdure.testing import Model, cancel, fails, play, signal, takes

EXAMPLES = Path(__file__).parent.parent / "examples"
ORDER = EXAMPLES / "order.yaml"
INPUT = {"order": "A-7", "total": 30}
TOOLS: dict[str, Any] = {
    "pack": takes("1h", "P-7"),
    "write_invoice": takes("2h", "I-7"),
    "notify": None,
    "refund": "R-7",
}
PAID = signal("pay", {"amount": 30}, at="5m")


def test_an_order_that_is_paid_is_delivered() -> None:
    played = play(ORDER, INPUT, tools=TOOLS, tell=[PAID, signal("delivered", at="2d")])
    assert played.output == {"parcel": "P-7", "invoice": "I-7"}
    assert played.inputs("notify") == [{"order": "A-7", "text": "parcel P-7 is on its way"}]


def test_an_order_that_is_not_paid_within_half_an_hour_is_given_up() -> None:
    played = play(ORDER, INPUT, tools=TOOLS, tell=[signal("pay", {"amount": 10}, at="29m")])
    assert (played.states, played.output, played.took.seconds) == (("given_up",), {"why": "no payment came"}, 1800)


def test_an_order_on_hold_is_taken_up_where_it_was() -> None:
    told = [PAID, signal("hold", at="80m"), signal("go_on", at="3d"), signal("delivered", at="5d")]
    played = play(ORDER, INPUT, tools=TOOLS, tell=told)
    assert played.status == "succeeded"
    assert len(played.inputs("pack")) == 1
    assert len(played.inputs("write_invoice")) == 2  # it was cancelled by the hold


@pytest.mark.parametrize(
    ("tools", "told", "status", "error"),
    [
        ({}, [signal("cancel", {"why": "too slow"}, at="30m")], "failed", "OrderCancelled: too slow"),
        ({}, [cancel("fraud", at="30m")], "cancelled", None),
        ({"write_invoice": fails("Broken", "no paper")}, [], "failed", "Broken: no paper"),
    ],
)
def test_the_money_goes_back_when_a_paid_order_is_cancelled_or_breaks_down(
    tools: dict[str, Any], told: list[Any], status: str, error: str | None
) -> None:
    played = play(ORDER, INPUT, tools={**TOOLS, **tools}, tell=[PAID, *told])
    assert played.inputs("refund") == [{"order": "A-7", "amount": 30}]
    assert played.status == status
    assert (f"{played.error.type}: {played.error.message}" if played.error else None) == error


def test_an_order_that_is_cancelled_before_it_is_paid_needs_no_refund() -> None:
    played = play(ORDER, INPUT, tools=TOOLS, tell=[signal("cancel", at="1m")])
    assert (played.output, played.calls) == ({"why": "the customer gave it up"}, [])


@pytest.fixture
async def client(tmp_path: Path) -> Any:
    with Model.from_file(EXAMPLES / "approval.replies.yaml") as model:
        settings = Settings(store=tmp_path / "store", openai_base_url=model.base_url)
        async with await connect_async(settings, local=True) as client:
            yield client


async def test_a_claim_goes_back_to_the_agent_with_the_words_of_the_reviewer(client: AsyncClient) -> None:
    run = await client.start(EXAMPLES / "approval.yaml", {"claim": "my parcel was crushed"}, id=uuid4().hex)
    await run.wait_for("reviewing", 10)
    assert await run.accepts() == ["decide", "withdraw"]
    await run.send("decide", {"by": "ann", "approve": False, "why": "offer a new parcel first"})
    await run.wait_for("reviewing", 10)
    await run.send("decide", {"by": "ann", "approve": True})
    answer = "Send a new parcel, and pay the money back if that one is crushed too."
    assert await run.result(10) == {"proposal": answer, "rounds": 2}


async def test_a_payment_timeout_fires_for_real(client: AsyncClient) -> None:
    run = await client.start(ORDER, {**INPUT, "patience": "1s"}, id=uuid4().hex)
    assert await run.result(10) == {"why": "no payment came"}
    with pytest.raises(StateNotReached, match="is succeeded, in given_up; never in 'paid'"):
        await run.wait_for("paid")
    with pytest.raises(BadInput, match="has no state 'payed'; did you mean 'paid'"):
        await run.wait_for("payed")


async def test_who_waits_for_a_state_of_an_execution_that_is_stopped_is_told_so(client: AsyncClient) -> None:
    run = await client.start(ORDER, INPUT, id=uuid4().hex)
    await run.terminate("enough")
    with pytest.raises(ExecutionStopped, match="enough"):
        await run.wait_for("paid")


async def test_a_cancelled_order_pays_back_for_real(client: AsyncClient) -> None:
    run = await client.start(ORDER, INPUT, id=uuid4().hex)
    await run.send("pay", {"amount": 30})
    await run.wait_for("shipped", 10)
    await run.send("cancel", {"why": "too slow"})
    with pytest.raises(ExecutionFailed, match="OrderCancelled: too slow"):
        await run.result(10)
    assert (await run.state()).nodes["paid[1]/entered"].status == "compensated"


async def test_an_event_that_no_state_takes_is_recorded_with_a_warning(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    run = await client.start(ORDER, INPUT, id="typo")
    assert await run.send("payed", {"amount": 30})
    assert "execution typo: event 'payed' is recorded, but no state of the chart ever takes it" in caplog.text


def test_a_kill_between_any_two_signals_changes_nothing(environment: dict[str, str]) -> None:  # noqa: F811
    command = [
        sys.executable,
        "-m",
        "perdure.cli",
        "run",
        str(ORDER),
        "--local",
        "--id",
        "o-1",
        "--input",
        json.dumps(INPUT),
    ]
    told = [("pay", '{"amount": 10}'), ("pay", '{"amount": 20}'), ("hold",), ("go_on",), ("delivered",)]
    for event in told:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            until(run, "shipped[1]/notify" if event[0] in ("hold", "delivered") else "entered pending")
            assert perdure(environment, "signal", "o-1", *event).stderr == f"signal {event[0]}: recorded\n"
            if event[0] != "delivered":
                run.send_signal(signals.SIGKILL)
            output, _ = run.communicate(timeout=30)
    assert json.loads(output) == {"parcel": "P-A-7", "invoice": "I-A-7-30"}


def until(run: "subprocess.Popen[str]", words: str) -> None:
    assert run.stderr is not None
    for line in run.stderr:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}")

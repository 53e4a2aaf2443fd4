"""`perdure.testing.play`: a user's workflow in virtual time, with scripted calls."""

import re
import runpy
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import testing
from perdure.errors import BadInput, ExecutionFailed, ExecutionStopped
from perdure.events.vocabulary import CommandRefused, NodeResumed
from perdure.testing import (
    NotEnded,
    Unscripted,
    approve,
    cancel,
    change_input,
    complete_node,
    crash,
    extend_deadline,
    fails,
    lost,
    pause,
    play,
    reject,
    resume,
    retry,
    signal,
    skip_node,
    takes,
    terminate,
)

ROOT = Path(__file__).parent.parent


def flow(nodes: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"name": "flow", "nodes": nodes, **parts}


PAY: dict[str, Any] = {"pay": {"tool": "charge", "with": {"amount": "${{ input }}"}}}
TWO: dict[str, Any] = {**PAY, "mail": {"tool": "mail", "needs": "pay"}}
AGENT = {"reader": {"model": "m", "instructions": "Read.", "output": {"type": "object", "required": ["mood"]}}}


def test_a_value_is_the_outcome_of_every_call() -> None:
    played = play(flow(TWO), 30, tools={"charge": "receipt", "mail": None})
    assert (played.status, played.output, played.took) == ("succeeded", {"mail": None}, timedelta(0))
    assert played.inputs("charge") == [{"amount": 30}]
    assert [(call.name, call.node, call.attempt) for call in played.calls] == [
        ("charge", "pay", 1),
        ("mail", "mail", 1),
    ]


def test_a_list_has_one_outcome_for_each_call_and_retries_pass_in_virtual_time() -> None:
    retry = {"attempts": 3, "delay": "1h", "backoff": 2, "cap": "9h", "jitter": False}
    began = time.monotonic()
    played = play(flow({"pay": {**PAY["pay"], "retry": retry}}), 30, tools={
        "charge": [fails("RateLimited", "slow down"), ValueError("odd"), "receipt"]})  # fmt: skip
    assert played.output == {"pay": "receipt"}
    assert [call.at - played.began for call in played.calls] == [timedelta(hours=hours) for hours in (0, 1, 3)]
    assert [event.error.type for event in played.happened("NodeAttemptFailed")] == ["RateLimited", "ValueError"]
    assert time.monotonic() - began < 5  # of three hours


def test_a_function_is_called_with_the_input_and_its_arguments_are_checked() -> None:
    async def charge(amount: int) -> dict[str, int]:
        if amount > 100:
            raise PermissionError("too much")
        return {"charged": amount}

    assert play(flow(PAY), "30", tools={"charge": charge}).output == {"pay": {"charged": 30}}
    assert play(flow(PAY), 300, tools={"charge": charge}).error is not None
    played = play(flow(PAY), "lots", tools={"charge": charge})
    assert played.error is not None
    assert played.error.type == "BadInput"
    assert "tool 'charge' was called with arguments that do not fit: amount" in played.error.message


async def test_it_plays_within_a_running_event_loop_too() -> None:
    async def charge(amount: int) -> int:
        return amount

    assert play(flow(PAY), 3, tools={"charge": charge}).output == {"pay": 3}


def test_a_function_may_say_how_long_it_takes_and_a_timeout_cuts_it_off() -> None:
    def charge(amount: int) -> Any:
        return takes("3h", amount)

    assert play(flow(PAY), 3, tools={"charge": charge}).took == timedelta(hours=3)
    played = play(flow({"pay": {**PAY["pay"], "timeout": "2h"}}), 3, tools={"charge": charge})
    assert played.error is not None
    assert (played.error.type, played.took) == ("Timeout", timedelta(hours=2))


def test_a_call_without_an_outcome_is_a_clear_error() -> None:
    with pytest.raises(
        Unscripted, match=r"node 'mail' calls tool 'mail' with .*play\(\.\.\., tools=\{'mail': \.\.\.\}"
    ):
        play(flow(TWO), 30, tools={"charge": 1})
    with pytest.raises(Unscripted, match=r"tool 'charge' is called for the 2\. time.*its script has 1 outcomes"):
        play(flow({**PAY, "again": {**PAY["pay"], "needs": "pay"}}), 30, tools={"charge": [1]})
    with pytest.raises(BadInput, match="which the workflow does not call; did you mean 'charge'"):
        play(flow(PAY), 30, tools={"chrage": 1})
    with pytest.raises(BadInput, match="is not JSON data"):
        play(flow(PAY), 30, tools={"charge": object()})
    with pytest.raises(BadInput, match="not a duration: 'soon'"):
        takes("soon")


def test_agents_reply_as_scripted_and_a_reply_that_breaks_their_schema_is_an_invalid_one() -> None:
    workflow = flow({"read": {"agent": "reader", "with": {"message": "Hi"}}}, agents=AGENT)
    assert play(workflow, agents={"reader": {"mood": "good"}}).output == {"read": {"mood": "good"}}
    played = play(workflow, agents={"reader": lambda message: {"text": message}})
    assert played.error is not None
    assert played.error.type == "InvalidReply"


def test_an_agent_without_a_schema_replies_with_text() -> None:
    agents = {"reader": {"model": "m", "instructions": "Read."}}
    workflow = flow({"read": {"agent": "reader"}}, agents=agents)
    with pytest.raises(BadInput, match="the agent has no output schema, so that it replies with text"):
        play(workflow, agents={"reader": {"mood": "good"}})


SIGNED = flow({"sign": {"wait": {"signal": "signed", "timeout": "30d"}}, "later": {"wait": "1d", "needs": "sign"}})


def test_signals_come_at_their_time_and_days_pass_at_once() -> None:
    played = play(SIGNED, tell=[signal("signed", {"by": "ann"}, at="12d")])
    assert (played.nodes["sign"].output, played.took) == ({"by": "ann"}, timedelta(days=13))
    late = play(SIGNED, tell=[signal("signed", at="31d")])
    assert late.error is not None
    assert (late.error.type, late.took) == ("Timeout", timedelta(days=30))


ASK: dict[str, Any] = {"ask": {"approval": {"title": "Go?"}}}


def test_an_approval_is_answered_as_soon_as_it_is_asked_or_at_a_time() -> None:
    asked_late = flow({"first": {"wait": "5h"}, "ask": {**ASK["ask"], "needs": "first"}})
    played = play(asked_late, tell=[approve("ask", by="ann", data=7)])
    assert (played.output["ask"], played.took) == (
        {"approved": True, "by": "ann", "data": 7}, timedelta(hours=5),
    )  # fmt: skip
    assert play(asked_late, tell=[approve("ask", at="2d")]).took == timedelta(days=2)
    with pytest.raises(ExecutionFailed, match="Rejected"):
        play(flow(ASK), tell=[reject("ask", by="bob")]).output  # noqa: B018 (reading it raises)
    with pytest.raises(BadInput, match="there is an answer for 'aks', and the workflow has no approval there"):
        play(flow(ASK), tell=[approve("aks")])


def test_what_comes_too_early_is_refused_as_by_the_engine() -> None:
    played = play(flow({"a": {"wait": "1h"}, "ask": {**ASK["ask"], "needs": "a"}}), tell=[approve("ask", at="30m")])
    assert [type(event) for event in played.happened(CommandRefused)] == [CommandRefused]
    assert played.status == "running"


def test_a_statechart_that_waits_for_what_never_comes_says_where_it_is() -> None:
    played = play("{name: a, kind: statechart, states: {b: {states: {c: {on: {go: d}}}}, d: {type: final}}}")
    with pytest.raises(NotEnded, match=r"running and has not ended: it is in b, b\.c$"):
        _ = played.output


def test_an_execution_that_waits_for_what_never_comes_has_not_ended_and_says_why() -> None:
    played = play(flow(ASK))
    with pytest.raises(NotEnded, match=r"running and has not ended: node 'ask' waits for .*Go\?"):
        played.output  # noqa: B018 (reading it raises)


def test_it_can_be_looked_at_midway() -> None:
    played = play(SIGNED, tell=[signal("signed", at="12d")], until="12d 6h".replace(" ", ""))
    assert (played.nodes["later"].status, played.status, played.took) == (
        "waiting", "running", timedelta(days=12, hours=6),
    )  # fmt: skip


def test_it_can_be_paused_resumed_cancelled_and_terminated() -> None:
    waits = flow({"a": {"wait": "1h"}, "b": {"wait": "1h", "needs": "a"}})
    assert play(waits, tell=[pause(at="30m"), resume(at="5h")]).took == timedelta(hours=6)
    for told, status in ((cancel("no more", at="10m"), "cancelled"), (terminate("stuck", at="10m"), "terminated")):
        played = play(waits, tell=[told])
        assert (played.status, played.took) == (status, timedelta(minutes=10))
        with pytest.raises(ExecutionStopped, match=r"no more|stuck"):
            played.output  # noqa: B018 (reading it raises)


def test_a_failed_execution_can_be_retried() -> None:
    played = play(flow(TWO), 1, tools={"charge": "r", "mail": [fails("Down"), "sent"]}, tell=[retry(at="1d")])
    assert (played.output, played.took) == ({"mail": "sent"}, timedelta(days=1))
    assert len(played.inputs("charge")) == 1


def test_nodes_can_be_mended_by_hand() -> None:
    waits = {"a": {"wait": "1h"}, "b": {"wait": "1h"}, **TWO, "pay": {**PAY["pay"], "needs": ["a", "b"]}}
    mended = [skip_node("a"), complete_node("b", at="1m"), change_input("pay", {"amount": 9})]
    played = play(flow(waits), 1, tools={"charge": "r", "mail": None}, tell=mended)
    assert (played.took, played.inputs("charge")) == (timedelta(minutes=1), [{"amount": 9}])
    late = flow({"a": {"wait": "3h"}}, timeout="2h")
    assert play(late).status == "failed"
    assert play(late, tell=[extend_deadline("2h", at="1h")]).status == "succeeded"


def test_calls_under_way_run_again_after_a_crash_and_what_is_done_does_not() -> None:
    played = play(flow(TWO), 1, tools={"charge": "r", "mail": takes("2h")}, tell=[crash(at="1h")])
    assert (played.took, len(played.inputs("charge")), len(played.inputs("mail"))) == (timedelta(hours=3), 1, 2)
    assert played.happened(NodeResumed) == [NodeResumed("mail", 1)]


def test_a_call_whose_worker_is_lost_is_made_again_three_times_and_then_fails() -> None:
    assert play(flow(PAY), 1, tools={"charge": [lost(after="1m"), "r"]}).output == {"pay": "r"}
    played = play(flow(PAY), 1, tools={"charge": lost()})
    assert played.error is not None
    assert (played.error.type, len(played.calls)) == ("WorkerLost", 4)


def test_playing_it_again_gives_the_same_to_the_last_event() -> None:
    retry = {"attempts": 5, "delay": "1m"}
    workflow = flow({"pay": {**PAY["pay"], "retry": retry}, "id": {"set": "${{ uuid() }}"}})
    script = {"charge": [fails("A"), fails("B"), 1]}
    first, second = (play(workflow, 1, tools=script) for _ in range(2))
    assert first.events == second.events
    assert str(first) == str(second)


def test_thousands_of_items_are_played() -> None:
    workflow = flow({"all": {"foreach": {"items": "input"}, "tool": "double", "with": {"n": "${{ item }}"}}})
    played = play(workflow, list(range(2000)), tools={"double": lambda n: takes(n % 7, n * 2)})
    assert played.output["all"] == [n * 2 for n in range(2000)]


def test_the_clock_begins_where_it_is_told_to() -> None:
    began = datetime(2030, 5, 1, 9, tzinfo=UTC)
    workflow = flow({"a": {"wait": {"until": "2030-05-02T09:00:00Z"}}, "b": {"set": "${{ now() }}", "needs": "a"}})
    played = play(workflow, begin=began)
    assert (played.took, played.output["b"]) == (timedelta(days=1), "2030-05-02T09:00:00Z")


def test_an_input_that_does_not_fit_the_schema_is_refused() -> None:
    with pytest.raises(BadInput, match="does not fit the input schema"):
        play(flow(PAY, input={"type": "integer"}), "x", tools={"charge": 1})


LEAF = {"name": "leaf", "nodes": {"w": {"wait": "2h"}, "t": {"tool": "leaf", "needs": "w"}}}


def test_a_child_is_scripted_or_played_itself_where_the_definition_carries_it() -> None:
    nodes: dict[str, Any] = {"a": {"workflow": "leaf", "with": {"n": 1}}}
    scripted = play(flow(nodes), workflows={"leaf": takes("3h", 7)})
    assert (scripted.output, scripted.took, scripted.inputs("leaf")) == ({"a": 7}, timedelta(hours=3), [{"n": 1}])
    played = play(flow(nodes, workflows={"leaf": LEAF}), tools={"leaf": "done"})
    assert (played.output, played.took) == ({"a": {"t": "done"}}, timedelta(hours=2))
    assert played.children["played.a"].inputs("leaf") == [{}]
    failed = play(flow(nodes, workflows={"leaf": LEAF}), tools={"leaf": fails("Broken")})
    assert failed.error is not None
    assert failed.error.type == "Broken"
    with pytest.raises(Unscripted, match="node 'a' calls workflow 'leaf'"):
        play(flow(nodes))


PAGE = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
FROM_PAGE: dict[str, Any] = {}
exec(compile(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], "docs/testing.md", "exec"), FROM_PAGE)
EXAMPLES = runpy.run_path(str(ROOT / "examples/test_kinds.py"))
SHOWN = [(f"{where}: {name}", test) for where, names in (("page", FROM_PAGE), ("example", EXAMPLES))
         for name, test in names.items() if name.startswith("test_")]  # fmt: skip


@pytest.mark.parametrize("test", [test for _, test in SHOWN], ids=[name for name, _ in SHOWN])
def test_what_the_page_and_the_examples_show_passes(test: Callable[[], None]) -> None:
    test()


def test_the_page_names_all_that_there_is() -> None:
    for name in set(testing.__all__) - {"Call", "Played", "Reply"}:
        assert name in PAGE

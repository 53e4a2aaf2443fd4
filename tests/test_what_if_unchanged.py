"""An execution under the definition that it had: what it did again, when it did, and no call."""

from datetime import timedelta
from typing import Any

import pytest
from scenario import EXECUTION, NOW
from what_if_lab import Calls, again, alike, done, moments, plan_of, told

from perdure.actors.inputs import (
    ChangeInput,
    CompleteNode,
    FireTimer,
    Input,
    ReportChild,
    ReportCompensation,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    SkipNode,
)
from perdure.events.vocabulary import Error, ExecutionSucceeded

TO_THE_TOOL: dict[str, Any] = {"do": {"x": {"tool": "a"}}}


async def test_a_call_that_lost_a_race_to_a_timer_is_not_made() -> None:
    retry = {"attempts": 2, "delay": 10, "jitter": False}
    caught = {"y": {"fail": "no", "retry": retry, "catch": [{"output": "caught"}]}}
    branches = {"one": TO_THE_TOOL, "two": {"do": caught}}
    plan, made = plan_of({"race": {"parallel": {"join": "any", "branches": branches}}}), Calls()
    past = moments(plan, (10, FireTimer.of(EXECUTION, "retry/race/two/y", NOW + timedelta(seconds=10))))
    what_if, state = await again(plan, past, alike(plan), made.runner)
    assert (made.made, what_if.ran) == ([], [])
    assert state.outcome == past[-1].events[-1]


async def test_a_call_that_was_given_up_at_a_retry_of_another_node_is_not_made() -> None:
    retry = {"attempts": 2, "delay": 0}
    plan, made = plan_of({"a": {"fail": "no", "retry": retry}, "b": {"tool": "b"}}), Calls()
    past = moments(plan, (0, FireTimer.of(EXECUTION, "retry/a", NOW)))
    _, state = await again(plan, past, alike(plan), made.runner)
    assert made.made == []
    assert state.outcome == past[-1].events[-1]


async def test_a_timer_that_came_late_then_comes_late_again() -> None:
    nodes = {"a": {"tool": "a"}, "b": {"tool": "b", "needs": ["a"]}}
    plan = plan_of({"all": {"foreach": {"items": "[1]"}, "do": nodes, "deadline": "10s"}})
    past = moments(plan, (20, done("all[0]/a", 1)), (21, done("all[0]/b", 2)))  # nobody was there at 10 s
    _, state = await again(plan, past, alike(plan))
    assert state.outcome == past[-1].events[-1] == ExecutionSucceeded({"all": [{"b": 2}]})


async def test_a_signal_that_was_taken_by_a_wait_with_a_timeout_is_answered() -> None:
    go = {"wait": {"signal": "go"}, "timeout": "1h", "needs": ["a"]}
    plan = plan_of({"a": {"tool": "a"}, "go": go}, timeout="2h")
    past = moments(plan, (1, told("go", 7)), (2, done("a", 1)))
    _, state = await again(plan, past, alike(plan))
    assert state.outcome == ExecutionSucceeded({"go": 7})


async def test_what_was_stuck_is_tried_again_when_it_was() -> None:
    plan = plan_of({"a": {"tool": "a", "retry": {"attempts": 1, "exhausted": "pause"}}})
    past = moments(
        plan, (1, ReportFailure("a", 1, Error("Boom", "no"))), (60, ResumeExecution("r", EXECUTION)),
        (61, ReportSuccess("a", 2, "mended")),
    )  # fmt: skip
    what_if, state = await again(plan, past, alike(plan))
    assert what_if.ran == []
    assert state.outcome == ExecutionSucceeded({"a": "mended"})


@pytest.mark.parametrize(
    "by_hand",
    [
        SkipNode("h", EXECUTION, "race", "not needed"),
        CompleteNode("h", EXECUTION, "race", 1),
        SkipNode("h", EXECUTION, "race/one/x"),
    ],
)
async def test_what_somebody_did_by_hand_is_done_again(by_hand: Input) -> None:
    plan = plan_of({"race": {"parallel": {"branches": {"one": TO_THE_TOOL}}}, "b": {"set": 1, "needs": ["race"]}})
    past = moments(plan, (5, by_hand))
    what_if, state = await again(plan, past, alike(plan))
    assert what_if.ran == []
    assert state.outcome == past[-1].events[-1]


async def test_an_input_that_somebody_changed_is_changed_again() -> None:
    plan = plan_of({"a": {"tool": "a"}, "b": {"tool": "b", "with": {"x": 1}, "needs": ["a"]}})
    change = ChangeInput("h", EXECUTION, "b", {"x": 2})
    past = moments(plan, (1, change), (2, done("a")), (3, done("b", "two")))
    what_if, state = await again(plan, past, alike(plan))
    assert (what_if.ran, state.outcome) == ([], ExecutionSucceeded({"b": "two"}))


async def test_no_call_is_made_for_an_execution_as_it_was_even_where_its_past_does_not_answer_it() -> None:
    plan, made = plan_of({"a": {"tool": "a"}, "b": {"tool": "b", "needs": ["a"]}}), Calls()
    what_if, state = await again(plan, moments(plan, (1, done("a", 1))), plan, made.runner)
    assert made.made == []
    assert (what_if.left, state.outcome) == (["b"], None)


async def test_a_child_undoes_itself_when_it_did_and_another_branch_wins_meanwhile() -> None:
    child = {"child": {"workflow": "w"}, "bad": {"tool": "t", "needs": ["child"]}}
    one = {
        "all": {"foreach": {"items": "[1]", "on_failure": "continue"}, "do": child},
        "next": {"tool": "n", "needs": ["all"]},
    }
    branches = {"one": {"do": one}, "two": {"do": {"y": {"tool": "b"}}}}
    plan, made = plan_of({"race": {"parallel": {"join": "any", "branches": branches}}}), Calls()
    item = "race/one/all[0]"
    past = moments(
        plan, (1, ReportChild("r", EXECUTION, f"{EXECUTION}.{item}/child", 1)),
        (2, ReportFailure(f"{item}/bad", 1, Error("Boom", "no"))), (3, done("race/two/y", "fast")),
        (4, ReportCompensation("u", EXECUTION, f"{item}/child~undo", f"{EXECUTION}.{item}/child")),
    )  # fmt: skip
    _, state = await again(plan, past, alike(plan), made.runner)
    assert made.made == []
    assert state.outcome == past[-1].events[-1]

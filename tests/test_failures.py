"""What follows errors: joins, tries, catches, compensation, and what runs at the end."""

import csv
from pathlib import Path
from typing import Any

import pytest
from scenario import BOOM, due, failure, output, running

from perdure.actors.inputs import CancelExecution, FireTimer, Recover, ReportFailure, ReportSuccess
from perdure.actors.joins import why_not
from perdure.events.vocabulary import (
    CompensationStarted,
    Error,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionFailing,
    ExecutionSucceeded,
    NodeAttemptFailed,
    NodeCatching,
    NodeCaught,
    NodeFailed,
    NodeScheduled,
    NodeSkipped,
    TimerArmed,
)

TABLE = list(
    csv.DictReader((Path(__file__).parent.parent / "docs" / "joins.csv").read_text(encoding="utf-8").splitlines())
)
ENDS = ("succeeded", "caught", "skipped", "failed")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join([row["join"], *(end for end in ENDS if row[end])]))
def test_a_node_runs_or_is_skipped_as_the_table_of_joins_says(row: dict[str, Any]) -> None:
    needs = [end for end in ENDS if row[end]]
    assert (why_not(row["join"], needs) is None) is (row["runs"] == "yes")  # type: ignore[arg-type]


def test_the_table_of_joins_has_every_mixture_of_ends_that_differs() -> None:
    assert {row["join"] for row in TABLE} == {"none_failed", "all_succeeded", "any_succeeded", "all_done"}
    assert len(TABLE) == 40


def test_a_cancelled_or_compensated_need_counts_as_failed() -> None:
    assert why_not("none_failed", ["succeeded", "cancelled"]) == why_not("none_failed", ["succeeded", "failed"])
    assert why_not("any_succeeded", ["compensated"]) is not None


def test_joins_decide_in_a_whole_execution_that_drains() -> None:
    nodes = {"bad": {"fail": "no"}, "good": {"set": 1}}
    joins = ("none_failed", "all_succeeded", "any_succeeded", "all_done")
    nodes |= {join: {"set": join, "needs": ["bad", "good"], "join": join} for join in joins}
    given = running(nodes, failure="drain")
    assert {name: node.status for name, node in given.now.nodes.items()} == {
        "bad": "failed", "good": "succeeded", "none_failed": "skipped", "all_succeeded": "skipped",
        "any_succeeded": "succeeded", "all_done": "succeeded",
    }  # fmt: skip
    assert failure(given) == Error("Failed", "no")


def test_an_execution_that_drains_lets_what_runs_come_to_its_end_before_it_fails() -> None:
    given = running({"a": {"tool": "t"}, "b": {"tool": "t"}, "b2": {"tool": "t", "needs": "b"}}, failure="drain")
    given.when(ReportFailure("a", 1, BOOM), ReportSuccess("b", 1))
    assert given.now.status == "running"
    given.when(ReportSuccess("b2", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "a", 1)


# retry


def test_an_error_that_is_never_retried_fails_at_once() -> None:
    given = running({"a": {"tool": "t", "retry": {"not_on": "Boom"}}}).when(ReportFailure("a", 1, BOOM))
    assert failure(given) == BOOM


def test_a_deadline_ends_a_node_between_its_tries() -> None:
    node = {"tool": "t", "retry": {"attempts": 9, "delay": "1h", "cap": "1h", "jitter": False}, "deadline": "90m"}
    given = running({"a": node}).when(ReportFailure("a", 1, BOOM))
    assert set(given.now.timers) == {"deadline/a", "retry/a"}
    given.when(due(given, "deadline/a"))
    assert failure(given).type == "Timeout"
    assert not given.now.timers


def test_a_timeout_of_a_node_with_bodies_stops_what_is_within() -> None:
    node = {"foreach": {"items": "input"}, "tool": "t", "timeout": "1h", "retry": {"attempts": 2, "delay": 1}}
    given = running({"a": node}, [1, 2])
    given.when(due(given, "timeout/a"))
    assert not given.now.running
    assert [type(event) for event in given.events[-2:]] == [NodeAttemptFailed, TimerArmed]
    given.when(due(given, "retry/a"))
    assert set(given.now.running) == {"a[0]/do", "a[1]/do"}
    assert "timeout/a" in given.now.timers


def test_a_workflow_timeout_ends_the_execution() -> None:
    given = running({"a": {"tool": "t"}}, timeout="1h")
    given.when(due(given, "execution/"))
    assert failure(given).type == "Timeout"


# catch


CAUGHT: dict[str, Any] = {
    "pay": {"tool": "pay", "catch": [
        {"on": "CardExpired", "then": "escalate"}, {"on": ["Boom"], "output": "${{ error.message }}!"}]},
    "escalate": {"tool": "open", "with": {"why": "${{ error.message }}"}},
    "after": {"set": "${{ nodes.pay.output }}"},
}  # fmt: skip


def test_a_caught_error_leads_to_its_handler_whose_output_stands_for_the_nodes() -> None:
    expired = Error("CardExpired", "too old")
    given = running(CAUGHT).when(ReportFailure("pay", 1, expired))
    assert given.events[-2:] == [
        NodeCatching("pay", 1, expired, "escalate"), NodeScheduled("escalate", 1, {"why": "too old"}),
    ]  # fmt: skip
    given.when(ReportSuccess("escalate", 1, "T-1"))
    assert NodeCaught("pay", 1, expired, "T-1") in given.events
    assert output(given) == {"after": "T-1"}


def test_a_caught_error_may_give_an_output_and_its_handler_is_skipped() -> None:
    given = running(CAUGHT).when(ReportFailure("pay", 1, BOOM))
    assert output(given) == {"after": "it broke!"}
    assert given.now.nodes["escalate"].status == "skipped"


def test_a_handler_is_skipped_where_there_was_no_error() -> None:
    given = running(CAUGHT).when(ReportSuccess("pay", 1, "paid"))
    assert output(given) == {"after": "paid"}
    assert NodeSkipped("escalate", "there was no error of 'pay' to handle") in given.events


def test_an_error_that_no_catch_names_goes_on() -> None:
    given = running(CAUGHT).when(ReportFailure("pay", 1, Error("Other", "")))
    assert failure(given).type == "Other"


def test_a_handler_that_fails_fails_the_execution() -> None:
    given = running(CAUGHT).when(ReportFailure("pay", 1, Error("CardExpired", "")), ReportFailure("escalate", 1, BOOM))
    assert failure(given) == BOOM


def test_a_failed_foreach_can_be_caught_as_a_whole() -> None:
    node = {"foreach": {"items": "input"}, "tool": "t", "catch": [{"output": "none"}]}
    assert output(running({"a": node}, [1, 2]).when(ReportFailure("a[1]/do", 1, BOOM))) == {"a": "none"}


# compensation


SAGA: dict[str, Any] = {
    "flight": {"tool": "book", "with": {"n": 1}, "compensate": {"tool": "unbook"}},
    "hotel": {"tool": "book", "needs": "flight", "compensate": {
        "tool": "unbook", "with": {"x": "${{ nodes.hotel.output.id }}: ${{ error.message }}"}}},
    "car": {"tool": "book", "needs": "hotel"},
}  # fmt: skip


def booked(**parts: Any) -> Any:
    given = running(SAGA, **parts)
    return given.when(ReportSuccess("flight", 1, "F"), ReportSuccess("hotel", 1, {"id": "H"}))


def test_what_is_completed_is_compensated_in_reverse_order_before_the_execution_fails() -> None:
    given = booked().when(ReportFailure("car", 1, BOOM))
    assert given.events[-3:] == [
        ExecutionFailing(BOOM, "car", 1),
        CompensationStarted("", "execution", ["hotel", "flight"], BOOM),
        NodeScheduled("hotel~undo", 1, {"x": "H: it broke"}),
    ]
    given.when(ReportSuccess("hotel~undo", 1))
    assert given.events[-1] == NodeScheduled("flight~undo", 1, {"input": {"n": 1}, "output": "F"})
    given.when(ReportSuccess("flight~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "car", 1)
    assert {given.now.nodes[name].status for name in ("flight", "hotel")} == {"compensated"}


def test_a_failed_compensation_is_recorded_and_the_rest_goes_on() -> None:
    given = booked().when(ReportFailure("car", 1, BOOM), ReportFailure("hotel~undo", 1, Error("Worse", "")))
    assert NodeFailed("hotel~undo", 1, Error("Worse", "")) in given.events
    given.when(ReportSuccess("flight~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "car", 1)
    assert given.now.nodes["hotel"].status == "succeeded"


def test_a_compensation_has_its_own_tries() -> None:
    nodes = {**SAGA, "flight": {**SAGA["flight"], "compensate": {"tool": "u", "retry": {"attempts": 2, "delay": 3}}}}
    given = running(nodes).when(ReportSuccess("flight", 1), ReportFailure("hotel", 1, BOOM))
    given.when(ReportFailure("flight~undo", 1, BOOM))
    given.when(due(given, "retry/flight~undo"), ReportSuccess("flight~undo", 2))
    assert given.events[-1] == ExecutionFailed(BOOM, "hotel", 1)


def test_a_lost_compensation_is_run_again() -> None:
    given = booked().when(ReportFailure("car", 1, BOOM), Recover())
    assert given.now.running["hotel~undo"].resumed == 1


ITEMS: dict[str, Any] = {
    "all": {
        "foreach": {"items": "input", "on_failure": "stop", "max_parallel": 1},
        "do": {"take": {"tool": "take", "compensate": {"tool": "give"}}, "use": {"tool": "use", "needs": "take"}},
    },
    "last": {"tool": "t", "needs": "all"},
}


def test_an_item_that_fails_alone_is_compensated_alone() -> None:
    nodes = {"all": {**ITEMS["all"], "foreach": {"items": "input", "on_failure": "continue"}}}
    given = running(nodes, ["a", "b"])
    given.when(
        ReportSuccess("all[0]/take", 1, "A"), ReportSuccess("all[1]/take", 1, "B"), ReportFailure("all[0]/use", 1, BOOM)
    )
    assert set(given.now.running) == {"all[0]/take~undo", "all[1]/use"}
    given.when(ReportSuccess("all[1]/use", 1, "ok"))
    assert given.now.status == "running"
    given.when(ReportSuccess("all[0]/take~undo", 1))
    assert output(given) == {"all": [None, {"use": "ok"}]}


def test_a_foreach_that_stops_compensates_the_items_that_were_done_too() -> None:
    given = running(ITEMS, ["a", "b"])
    given.when(
        ReportSuccess("all[0]/take", 1),
        ReportSuccess("all[0]/use", 1),
        ReportSuccess("all[1]/take", 1),
        ReportFailure("all[1]/use", 1, BOOM),
    )
    assert CompensationStarted("all", "node", ["all[1]/take", "all[0]/take"], BOOM) in given.events
    given.when(ReportSuccess("all[1]/take~undo", 1), ReportSuccess("all[0]/take~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "all", 1)


def test_the_items_of_a_foreach_that_is_done_are_compensated_when_a_later_node_fails() -> None:
    given = running(ITEMS, ["a", "b"])
    for item in range(2):
        given.when(ReportSuccess(f"all[{item}]/take", 1, item), ReportSuccess(f"all[{item}]/use", 1))
    given.when(ReportFailure("last", 1, BOOM))
    assert CompensationStarted("", "execution", ["all[1]/take", "all[0]/take"], BOOM) in given.events
    given.when(ReportSuccess("all[1]/take~undo", 1), ReportSuccess("all[0]/take~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "last", 1)


def test_the_compensation_of_a_whole_foreach_stands_for_its_items() -> None:
    nodes = {**ITEMS, "all": {**ITEMS["all"], "compensate": {"tool": "clear"}}}
    given = running(nodes, ["a"]).when(ReportSuccess("all[0]/take", 1), ReportSuccess("all[0]/use", 1))
    given.when(ReportFailure("last", 1, BOOM))
    assert set(given.now.running) == {"all~undo"}


def test_a_losing_branch_is_compensated_before_the_winner_counts() -> None:
    slow = {"do": {"take": {"tool": "t", "compensate": {"tool": "give"}}, "more": {"tool": "t", "needs": "take"}}}
    given = running({"race": {"parallel": {"join": "any", "branches": {"slow": slow, "fast": {"tool": "t"}}}}})
    given.when(ReportSuccess("race/slow/take", 1), ReportSuccess("race/fast/do", 1, 1))
    assert set(given.now.running) == {"race/slow/take~undo"}
    assert output(given.when(ReportSuccess("race/slow/take~undo", 1))) == {"race": {"fast": 1}}


def test_a_compensation_that_an_outer_error_interrupts_is_done_with_the_outer_one() -> None:
    nodes = {"all": {**ITEMS["all"], "foreach": {"items": "input", "on_failure": "continue"}}, "other": {"tool": "t"}}
    given = running(nodes, ["a"]).when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(ReportFailure("other", 1, BOOM))
    assert set(given.now.running) == {"all[0]/take~undo"}
    given.when(ReportSuccess("all[0]/take~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "other", 1)


# the end


ENDING: dict[str, Any] = {
    "on_failure": {"tell": {"tool": "tell", "with": {"why": "${{ error.message }}"}}},
    "on_cancel": {"sorry": {"tool": "tell"}},
    "finally": {"clean": {"tool": "clean"}},
}


def test_finally_runs_after_success_and_the_output_stays() -> None:
    given = running({"a": {"set": 1}}, **ENDING)
    assert set(given.now.running) == {"finally/clean"}
    assert given.when(ReportSuccess("finally/clean", 1)).events[-1] == ExecutionSucceeded({"a": 1})


def test_a_failure_compensates_then_tells_then_cleans_then_ends() -> None:
    given = booked(**ENDING).when(ReportFailure("car", 1, BOOM))
    order = []
    while given.now.outcome is None:
        (path,) = given.now.running
        order.append(path)
        given.when(ReportSuccess(path, 1))
    assert order == ["hotel~undo", "flight~undo", "on_failure/tell", "finally/clean"]
    assert given.now.outcome == ExecutionFailed(BOOM, "car", 1)


def test_an_error_at_the_end_never_masks_the_first() -> None:
    given = running({"a": {"tool": "t"}}, **ENDING).when(ReportFailure("a", 1, BOOM))
    assert given.now.running["on_failure/tell"].input == {"why": "it broke"}
    worse = Error("Worse", "")
    given.when(ReportFailure("on_failure/tell", 1, worse), ReportFailure("finally/clean", 1, worse))
    assert given.now.outcome == ExecutionFailed(BOOM, "a", 1)


def test_an_error_in_finally_fails_an_execution_that_had_none() -> None:
    given = running({"a": {"set": 1}}, **ENDING).when(ReportFailure("finally/clean", 1, BOOM))
    assert given.now.outcome == ExecutionFailed(BOOM, "finally/clean")


def test_a_cancelled_execution_compensates_then_says_sorry_then_cleans() -> None:
    given = booked(**ENDING).when(CancelExecution("c-1", "x-1", "too late", "ann"))
    order = []
    while given.now.outcome is None:
        (path,) = given.now.running
        order.append(path)
        given.when(ReportSuccess(path, 1))
    assert order == ["hotel~undo", "flight~undo", "on_cancel/sorry", "finally/clean"]
    assert given.now.outcome == ExecutionCancelled("too late")


def test_a_timer_that_was_disarmed_fires_into_nothing() -> None:
    given = running({"a": {"wait": {"signal": "s", "timeout": "1h"}}, "b": {"tool": "t"}})
    late = FireTimer("f", "x-1", "wait/a", given.now.timers["wait/a"])
    given.when(ReportFailure("b", 1, BOOM))
    before = len(given.events)
    assert len(given.when(late).events) == before

"""Where errors, compensation, catches, timers and controls meet: one thing happens while another is under way."""

from typing import Any

import pytest
from scenario import BOOM, EXECUTION, due, failure, output, plan_of, running

from perdure.actors.inputs import (
    CancelExecution,
    Continue,
    PauseExecution,
    ReportChild,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
    TerminateExecution,
)
from perdure.errors import DefinitionError
from perdure.events.vocabulary import (
    BodyFailed,
    CommandRefused,
    CompensationStarted,
    Error,
    ExecutionFailed,
    ExecutionSucceeded,
    NodeCaught,
    NodeFailed,
    NodeSkipped,
)

PAUSE, RESUME = PauseExecution("p", EXECUTION), ResumeExecution("r", EXECUTION)
CANCEL, TERMINATE = CancelExecution("c", EXECUTION, "no"), TerminateExecution("t", EXECUTION)
RETRY = RetryExecution("y", EXECUTION)
TAKE: dict[str, Any] = {"tool": "take", "compensate": {"tool": "give"}}
BODY: dict[str, Any] = {"take": TAKE, "use": {"tool": "use", "needs": "take"}}


# races


def test_of_branches_that_are_done_in_one_decision_the_first_written_wins_and_the_others_are_undone() -> None:
    done = {"do": {"x": {"set": 1, "compensate": {"tool": "u"}}}}
    given = running({"race": {"parallel": {"join": "any", "branches": {"a": {"tool": "t"}, "b": done, "c": done}}}})
    assert set(given.now.running) == {"race/c/x~undo"}
    given.when(ReportSuccess("race/c/x~undo", 1))
    assert [event.body for event in given.events if isinstance(event, BodyFailed)] == ["race/a", "race/c"]
    assert output(given) == {"race": {"b": {"x": 1}}}


def test_a_race_that_is_won_twice_in_one_decision_has_one_winner() -> None:
    wait = {"wait": {"signal": "go"}}
    branches = {name: {"do": {"w": {**wait, "compensate": {"tool": "u"}}, **more}} for name, more in (
        ("x", {}), ("y", {"then": {"set": 1, "needs": "w"}}), ("z", {}))}  # fmt: skip
    given = running(
        {"first": {"tool": "t"}, "race": {"needs": "first", "parallel": {"join": "any", "branches": branches}}}
    )
    given.when(*[SignalExecution(f"s-{number}", EXECUTION, "go", number) for number in range(3)])
    given.when(ReportSuccess("first", 1))
    while given.now.outcome is None:
        given.when(*[ReportSuccess(path, 1) for path in given.now.running])
    assert len(output(given)["race"]) == 1
    assert sum(isinstance(event, BodyFailed) for event in given.events) == 2


def test_an_error_outside_takes_over_the_compensation_of_a_lost_branch() -> None:
    branches = {"slow": {"do": BODY}, "fast": {"tool": "t"}}
    given = running({"race": {"parallel": {"join": "any", "branches": branches}}, "other": {"tool": "t"}})
    given.when(ReportSuccess("race/slow/take", 1), ReportSuccess("race/fast/do", 1), ReportFailure("other", 1, BOOM))
    assert CompensationStarted("", "execution", ["race/slow/take"], BOOM) in given.events
    assert given.now.running["race/slow/take~undo"].attempt == 1
    given.when(ReportSuccess("race/slow/take~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "other", 1)


# compensation


def test_what_is_being_undone_goes_on_when_an_error_goes_out_further_and_then_the_last_completed_follows() -> None:
    foreach = {"items": "input", "on_failure": "continue"}
    given = running({"all": {"foreach": foreach, "do": BODY}, "late": TAKE, "other": {"tool": "t"}}, ["a"])
    given.when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(ReportSuccess("late", 1), ReportFailure("other", 1, BOOM))
    assert set(given.now.running) == {"all[0]/take~undo"}
    given.when(ReportSuccess("all[0]/take~undo", 1))
    assert set(given.now.running) == {"late~undo"}


def test_what_could_not_be_undone_is_not_tried_again_by_an_error_that_goes_out_further() -> None:
    foreach = {"items": "input", "on_failure": "continue"}
    body = {"first": TAKE, "take": {**TAKE, "needs": "first"}, "use": {"tool": "use", "needs": "take"}}
    given = running({"all": {"foreach": foreach, "do": body}, "other": {"tool": "t"}}, ["a"])
    given.when(ReportSuccess("all[0]/first", 1), ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(ReportFailure("all[0]/take~undo", 1, BOOM), ReportFailure("other", 1, BOOM))
    assert CompensationStarted("", "execution", ["all[0]/first"], BOOM) in given.events


def test_what_is_within_a_node_that_was_undone_as_a_whole_is_not_undone_by_an_error_that_goes_out_further() -> None:
    inner = {"foreach": {"items": "input"}, "do": {"take": TAKE}, "compensate": {"tool": "clear"}}
    body = {"first": TAKE, "inner": {**inner, "needs": "first"}, "use": {"tool": "use", "needs": "inner"}}
    given = running({"all": {"foreach": {"items": "input", "on_failure": "continue"}, "do": body}}, ["a"])
    given.when(ReportSuccess("all[0]/first", 1), ReportSuccess("all[0]/inner[0]/take", 1))
    given.when(ReportFailure("all[0]/use", 1, BOOM), ReportSuccess("all[0]/inner~undo", 1), CANCEL)
    assert [event.undo for event in given.events if isinstance(event, CompensationStarted)][1] == ["all[0]/first"]


def test_the_compensation_of_an_item_may_read_the_item_and_its_nodes_when_the_foreach_is_long_done() -> None:
    undo = {"tool": "give", "with": {"id": "${{ nodes.ask.output + item }}"}}
    body = {"ask": {"tool": "t"}, "more": {"tool": "t"}, "take": {"tool": "t", "compensate": undo}}
    given = running({"all": {"foreach": {"items": "input"}, "do": body}, "last": {"tool": "t", "needs": "all"}}, [1])
    given.when(*[ReportSuccess(f"all[0]/{name}", 1, 7) for name in body], ReportFailure("last", 1, BOOM))
    assert given.now.running["all[0]/take~undo"].input == {"id": 8}


def test_the_compensation_of_a_pass_may_read_the_value_of_the_pass_before() -> None:
    call = {"tool": "give", "with": {"last": "${{ loop.last }}", "index": "${{ loop.index }}"}}
    loop = {"max_iterations": 3, "output": "${{ nodes.take.output }}"}
    given = running({
        "again": {"loop": loop, "do": {"take": {"tool": "t", "compensate": call, "if": "loop.index != 1"}}},
        "last": {"tool": "t", "needs": "again"},
    }).when(ReportSuccess("again[0]/take", 1, "A"), ReportSuccess("again[2]/take", 1, "C"))  # fmt: skip
    given.when(ReportFailure("last", 1, BOOM))
    assert given.now.running["again[2]/take~undo"].input == {"last": None, "index": 2}
    given.when(ReportSuccess("again[2]/take~undo", 1))
    assert given.now.running["again[0]/take~undo"].input == {"last": None, "index": 0}


def test_compensation_pauses_between_two_nodes() -> None:
    given = running({"a": TAKE, "b": {**TAKE, "needs": "a"}, "c": {"tool": "t", "needs": "b"}})
    given.when(ReportSuccess("a", 1), ReportSuccess("b", 1), ReportFailure("c", 1, BOOM), PAUSE)
    given.when(ReportSuccess("b~undo", 1))
    assert not given.now.running
    given.when(RESUME)
    assert set(given.now.running) == {"a~undo"}
    given.when(ReportSuccess("a~undo", 1))
    assert given.events[-1] == ExecutionFailed(BOOM, "c", 1)


def test_a_cancel_during_a_pause_lets_a_compensation_that_waits_for_its_next_try_go_on() -> None:
    take = {"tool": "take", "compensate": {"tool": "give", "retry": {"attempts": 2}}}
    foreach = {"items": "input", "on_failure": "continue"}
    given = running({"all": {"foreach": foreach, "do": {**BODY, "take": take}}}, ["a"])
    given.when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(ReportFailure("all[0]/take~undo", 1, BOOM), PAUSE)
    given.when(due(given, "retry/all[0]/take~undo"), CANCEL)
    assert given.now.running["all[0]/take~undo"].attempt == 2
    assert given.when(ReportSuccess("all[0]/take~undo", 2)).now.status == "cancelled"


def test_a_terminated_execution_stops_its_compensation_too() -> None:
    given = running({"a": BODY["take"], "b": {"tool": "t", "needs": "a"}})
    given.when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM), TERMINATE)
    assert (given.now.status, dict(given.now.running)) == ("terminated", {})


def test_the_nodes_of_a_body_go_on_after_a_pause() -> None:
    given = running({"all": {"foreach": {"items": "input"}, "do": BODY}}, ["a"])
    given.when(PAUSE, ReportSuccess("all[0]/take", 1))
    assert not given.now.running
    assert set(given.when(RESUME).now.running) == {"all[0]/use"}


def test_a_long_loop_that_needs_nobody_is_decided_in_portions() -> None:
    given = running({"again": {"loop": {"max_iterations": 2000}, "do": {"x": {"set": 1}}}})
    while given.now.outcome is None:
        before = len(given.events)
        assert before < 2000 * 4
        given.when(Continue())
        assert 0 < len(given.events) - before < 1100
    assert output(given) == {"again": {"x": 1}}


# time


def test_a_deadline_of_a_node_with_bodies_compensates_them_and_allows_no_further_try() -> None:
    node = {"foreach": {"items": "input"}, "do": BODY, "deadline": "1h", "retry": {"attempts": 5}}
    given = running({"all": node}, ["a"]).when(ReportSuccess("all[0]/take", 1))
    given.when(due(given, "deadline/all"))
    assert set(given.now.running) == {"all[0]/take~undo"}
    assert failure(given.when(ReportSuccess("all[0]/take~undo", 1))).type == "Timeout"


def test_a_deadline_that_passes_during_compensation_lets_it_come_to_its_end_and_allows_no_further_try() -> None:
    node = {"foreach": {"items": "input"}, "do": BODY, "deadline": "1h", "timeout": "30m", "retry": {"attempts": 5}}
    given = running({"all": node}, ["a"]).when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    assert set(given.now.timers) == {"deadline/all"}
    given.when(due(given, "deadline/all"))
    assert set(given.now.running) == {"all[0]/take~undo"}
    assert failure(given.when(ReportSuccess("all[0]/take~undo", 1))) == BOOM


def test_a_workflow_timeout_does_not_outlive_the_nodes() -> None:
    given = running({"a": {"set": 1}}, timeout="1h", **{"finally": {"x": {"tool": "t"}}})
    assert not given.now.timers
    assert isinstance(given.when(ReportSuccess("finally/x", 1)).events[-1], ExecutionSucceeded)


def test_a_time_that_no_clock_will_show_fails_the_wait() -> None:
    given = running({"a": {"wait": {"until": "${{ input }}"}}}, "9999-12-31T23:59:59-23:59")
    assert failure(given).type == "ExpressionError"


# the last try


def test_a_node_that_paused_the_execution_can_be_cancelled_with_it() -> None:
    given = running({"a": {"tool": "t", "retry": {"attempts": 1, "exhausted": "pause"}}})
    given.when(ReportFailure("a", 1, BOOM), CANCEL)
    assert (given.now.status, given.now.held) == ("cancelled", ())


def test_of_stuck_nodes_that_are_tried_again_those_that_the_first_one_cancels_stay_cancelled() -> None:
    stuck = {"retry": {"attempts": 1, "exhausted": "pause", "not_on": "Fatal"}}
    given = running({"a": {"wait": {"signal": "s", "timeout": "1h"}, **stuck}, "b": {"tool": "t", **stuck}})
    given.when(due(given, "wait/a"), ReportFailure("b", 1, BOOM), RESUME)
    assert (given.now.nodes["a"].status, given.now.nodes["b"].status) == ("waiting", "running")
    given.when(CANCEL)
    assert (given.now.status, dict(given.now.running)) == ("cancelled", {})


def test_a_cancel_lets_a_stuck_compensation_go_on() -> None:
    give = {"tool": "give", "retry": {"attempts": 1, "exhausted": "pause"}}
    body = {"take": {"tool": "take", "compensate": give}, "use": {"tool": "use", "needs": "take"}}
    given = running({"all": {"foreach": {"items": "input", "on_failure": "continue"}, "do": body}}, ["a"])
    given.when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(ReportFailure("all[0]/take~undo", 1, BOOM), CANCEL)
    assert given.now.running["all[0]/take~undo"].attempt == 2
    assert given.when(ReportSuccess("all[0]/take~undo", 2)).now.status == "cancelled"


# by hand


def test_a_retry_of_an_execution_whose_nodes_are_all_done_comes_to_its_end_again() -> None:
    given = running({"a": {"set": 1}}, **{"finally": {"x": {"tool": "t"}}}).when(ReportFailure("finally/x", 1, BOOM))
    given.when(RETRY, ReportSuccess("finally/x", 1))
    assert output(given) == {"a": 1}


def test_a_retry_runs_a_node_again_within_which_something_was_undone() -> None:
    body = {"all": {"foreach": {"items": "input"}, "do": {"take": TAKE}}, "last": {"tool": "t", "needs": "all"}}
    given = running(body, ["a"]).when(ReportSuccess("all[0]/take", 1), ReportFailure("last", 1, BOOM))
    given.when(ReportSuccess("all[0]/take~undo", 1), RETRY)
    assert set(given.now.running) == {"all[0]/take"}


def test_what_a_retry_did_again_is_undone_again() -> None:
    given = running({"a": TAKE, "b": {"tool": "t", "needs": "a"}})
    given.when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM), ReportSuccess("a~undo", 1), RETRY)
    given.when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM))
    assert set(given.now.running) == {"a~undo"}
    assert given.when(ReportSuccess("a~undo", 1)).now.status == "failed"


def test_what_could_not_be_undone_is_tried_again_when_the_retry_fails_too() -> None:
    given = running({"a": TAKE, "b": {"tool": "t", "needs": "a"}})
    given.when(ReportSuccess("a", 1), ReportFailure("b", 1, BOOM), ReportFailure("a~undo", 1, BOOM), RETRY)
    assert set(given.now.running) == {"b"}
    assert set(given.when(ReportFailure("b", 1, BOOM)).now.running) == {"a~undo"}


def test_what_is_being_compensated_cannot_be_settled_by_hand() -> None:
    foreach = {"items": "input", "on_failure": "continue"}
    given = running({"all": {"foreach": foreach, "do": BODY}}, ["a"])
    given.when(ReportSuccess("all[0]/take", 1), ReportFailure("all[0]/use", 1, BOOM))
    given.when(SkipNode("k", EXECUTION, "all"))
    assert isinstance(given.events[-1], CommandRefused)


def test_what_was_done_within_a_node_that_is_skipped_by_hand_is_still_undone_by_a_later_failure() -> None:
    given = running({"all": {"foreach": {"items": "input"}, "do": BODY}, "other": {"tool": "t"}}, ["a"])
    given.when(ReportSuccess("all[0]/take", 1), SkipNode("k", EXECUTION, "all"), ReportFailure("other", 1, BOOM))
    assert set(given.now.running) == {"all[0]/take~undo"}


def test_each_run_of_a_node_has_a_child_of_its_own() -> None:
    nodes = {"all": {"foreach": {"items": "input"}, "do": {"c": {"workflow": "leaf"}}, "retry": {"attempts": 2}}}
    given = running(nodes, [1])
    assert set(given.now.children) == {"x-1.all[0]/c"}
    given.when(ReportChild("e", EXECUTION, "x-1.all[0]/c", error=BOOM)).when(due(given, "retry/all"))
    assert set(given.now.children) == {"x-1.all[0]/c#2.1"}
    given.when(ReportChild("e", EXECUTION, "x-1.all[0]/c#2.1", error=BOOM), RETRY)
    assert set(given.now.children) == {"x-1.all[0]/c+1"}


# catches


def caught(**nodes: Any) -> dict[str, Any]:
    return {"pay": {"tool": "t", "catch": [{"on": "Other", "then": "other"}, {"then": "mend"}]},
            "other": {"set": 1}, "mend": {"set": "mended"}, **nodes}  # fmt: skip


def test_a_handler_may_need_another_handler_of_the_same_node() -> None:
    mend = {"set": "mended", "needs": "other", "join": "all_done"}
    given = running(caught(mend=mend)).when(ReportFailure("pay", 1, BOOM))
    assert NodeSkipped("other", "there was no error of 'pay' to handle") in given.events
    assert output(given) == {"pay": "mended"}


def test_a_handler_that_is_not_led_to_decides_nothing_whatever_its_name() -> None:
    given = running(caught(other={"tool": "t"})).when(ReportFailure("pay", 1, Error("Other", "")))
    assert NodeSkipped("mend", "there was no error of 'pay' to handle") in given.events
    assert output(given.when(ReportSuccess("other", 1, "o"))) == {"pay": "o"}


def test_a_handler_waits_for_its_other_needs() -> None:
    given = running(caught(slow={"tool": "t"}, mend={"set": "${{ nodes.slow.output }}"}))
    given.when(ReportFailure("pay", 1, BOOM))
    assert given.now.nodes["pay"].status == "catching"
    assert output(given.when(ReportSuccess("slow", 1, "s"))) == {"pay": "s"}


def test_a_handler_that_is_skipped_has_handled_nothing() -> None:
    given = running(caught(mend={"set": 1, "if": False}, after={"set": 2, "needs": "pay"}))
    given.when(ReportFailure("pay", 1, BOOM))
    assert given.events[-1] == ExecutionFailed(BOOM, "pay", 1)


def test_a_handler_whose_own_error_is_caught_has_handled_it() -> None:
    given = running(caught(mend={"fail": "worse", "catch": [{"output": "${{ error.message }}"}]}))
    given.when(ReportFailure("pay", 1, BOOM))
    assert NodeCaught("pay", 1, BOOM, "worse") in given.events


def test_a_node_that_only_its_handlers_need_is_a_last_node() -> None:
    assert output(running(caught()).when(ReportSuccess("pay", 1, "paid"))) == {"pay": "paid"}


def test_a_handler_within_a_body_reads_the_error_and_the_item() -> None:
    mend = {"tool": "m", "with": {"why": "${{ error.message }} ${{ item }}"}}
    given = running({"all": {"foreach": {"items": "input"}, "do": caught(mend=mend)}}, ["x"])
    given.when(ReportFailure("all[0]/pay", 1, BOOM))
    assert given.now.running["all[0]/mend"].input == {"why": "it broke x"}
    assert output(given.when(ReportSuccess("all[0]/mend", 1, "ok"))) == {"all": [{"pay": "ok"}]}


def test_a_caught_node_of_a_workflow_that_drains_fails_with_its_own_error_when_its_handler_fails() -> None:
    given = running(caught(mend={"fail": "worse"}), failure="drain").when(ReportFailure("pay", 1, BOOM))
    assert NodeFailed("pay", 1, BOOM) in given.events
    assert failure(given) == BOOM


@pytest.mark.parametrize(
    "nodes",
    [
        {"x": {"set": 1, "needs": "pay"}, "mend": {"set": 1, "needs": "x"}},
        {"mend": {"tool": "t", "catch": [{"then": "second"}]}, "second": {"set": 1, "needs": "pay"}},
    ],
    ids=["a handler that needs what follows", "a handler of a handler that needs the first"],
)
def test_a_handler_that_waits_for_what_waits_for_it_is_a_circle(nodes: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"in a circle: .*handles the errors of"):
        plan_of(caught(**nodes))


# the rest


def test_nothing_is_decided_after_the_end() -> None:
    nodes = {
        "a": {"tool": "t"},
        "b": {"fail": "no", "needs": "a", "catch": [{"on": "Other", "then": "c"}]},
        "c": {"tool": "t", "needs": "a"},
        "d": {"tool": "t", "needs": "a"},
    }
    given = running(nodes).when(ReportSuccess("a", 1))
    assert given.events[-1] == ExecutionFailed(Error("Failed", "no"), "b", 1)


def test_what_a_failed_body_of_the_end_had_opened_begins_no_more() -> None:
    ends = {"p": {"parallel": {"branches": {"x": {"tool": "t"}}}}, "f": {"fail": "no"}}
    given = running({"a": {"set": 1}}, **{"finally": ends})
    assert isinstance(given.events[-1], ExecutionFailed)
    assert not given.now.running


def test_what_runs_at_the_end_may_ask_whether_there_was_an_error() -> None:
    ends = {"x": {"tool": "t", "with": {"failed": "${{ error != None }}"}}}
    given = running({"a": {"tool": "t"}}, **{"finally": ends}).when(ReportSuccess("a", 1))
    assert given.now.running["finally/x"].input == {"failed": False}
    given = running({"a": {"tool": "t"}}, **{"finally": ends}).when(ReportFailure("a", 1, BOOM))
    assert given.now.running["finally/x"].input == {"failed": True}


def test_of_waiters_that_began_together_the_first_item_gets_the_first_signal() -> None:
    body = {"foreach": {"items": "input", "max_parallel": 20}, "do": {"w": {"wait": {"signal": "go"}}}}
    given = running({"all": body}, list(range(12)))
    given.when(*[SignalExecution(f"s-{number}", EXECUTION, "go", number) for number in range(12)])
    assert output(given) == {"all": [{"w": number} for number in range(12)]}


def test_a_loop_forgets_the_passes_that_nothing_can_read_any_more() -> None:
    loop = {"until": "loop.index == 99", "max_iterations": 100, "output": "${{ (loop.last or 0) + 1 }}"}
    given = running({"again": {"loop": loop, "do": {"x": {"tool": "t"}}}})
    for number in range(99):
        given.when(ReportSuccess(f"again[{number}]/x", 1))
        assert len(given.now.main.nodes["again"].bodies) == min(2, number + 2)
    assert output(given.when(ReportSuccess("again[99]/x", 1))) == {"again": 100}


def test_two_runs_of_the_same_inner_node_are_told_apart_by_the_tries_around_it() -> None:
    node = {"foreach": {"items": "input"}, "tool": "t", "retry": {"attempts": 2}}
    given = running({"all": node}, [1])
    assert given.now.tries_around("all[0]/do") == (1,)
    given.when(ReportFailure("all[0]/do", 1, BOOM)).when(due(given, "retry/all"))
    assert given.now.tries_around("all[0]/do") == (2,)
    assert given.now.tries_around("all") == ()

"""Statecharts in the log: what a step records, and what its timers, calls and invocations do."""

from typing import Any

from scenario import BOOM, EXECUTION, Given, due, start

from perdure.actors.inputs import (
    CancelExecution,
    CompleteNode,
    Continue,
    FireTimer,
    PauseExecution,
    ReportChild,
    ReportFailure,
    ReportProgress,
    ReportSuccess,
    ResumeExecution,
    RetryExecution,
    SignalExecution,
    SkipNode,
)
from perdure.definitions.loading import load
from perdure.events.vocabulary import (
    CallQueued,
    CommandRefused,
    CompensationStarted,
    Error,
    EventHeld,
    EventIgnored,
    ExecutionFailed,
    ExecutionSucceeded,
    MacrostepTaken,
    Microstep,
    NodeCancelled,
    NodeFailed,
    NodeScheduled,
    NodeSucceeded,
    Taken,
    TimerArmed,
    TimerCancelled,
)

END: dict[str, Any] = {"type": "final"}


def chart(states: dict[str, Any], value: Any = None, **parts: Any) -> Given:
    plan = load({"name": "flow", "kind": "statechart", "states": states, **parts}).plan
    given = Given(plan).when(start(plan, value))
    given.events.clear()
    return given


def send(event: str, data: Any = None, number: int = 1) -> SignalExecution:
    return SignalExecution(f"{event}-{number}", EXECUTION, event, data)


def active(given: Given) -> tuple[str, ...]:
    assert given.now.main.chart is not None
    return given.now.main.chart.configuration


def of_type(given: Given, kind: type) -> list[Any]:
    return [event for event in given.events if isinstance(event, kind)]


def test_a_step_is_one_event_with_its_transition_its_guard_and_what_it_changed() -> None:
    states = {
        "waiting": {
            "on": {"pay": {"target": "paid", "if": "event.data > 2", "do": {"set": {"n": "${{ event.data }}"}}}}
        },
        "paid": {"on": {"done": "end"}},
        "end": END,
    }
    chart(states, context={"n": 0, "m": 1}).when(send("pay", 3)).then(
        MacrostepTaken(
            "", "pay", 3,
            steps=[Microstep("pay", [Taken("waiting", "pay", ["paid"], "event.data > 2")], ["waiting"], ["paid"])],
            context={"n": 3},
        )
    )  # fmt: skip


def test_an_event_that_no_active_state_takes_is_recorded_as_ignored() -> None:
    given = chart({"a": {"on": {"go": "b"}}, "b": {"on": {"back": "a"}}}).when(send("back", 1))
    given.then(EventIgnored("", "back", 1, "no transition takes it in a"))


def test_an_event_that_no_state_ever_takes_is_recorded_with_that_reason() -> None:
    given = chart({"a": {"on": {"go": "b"}}, "b": END}).when(send("gone"))
    given.then(EventIgnored("", "gone", None, "no state of the chart ever takes it"))


def test_an_event_whose_data_breaks_its_schema_is_refused() -> None:
    given = chart({"a": {"on": {"go": "b"}}, "b": END}, events={"go": {"type": "integer"}}).when(send("go", "x"))
    assert of_type(given, CommandRefused)[0].reason.startswith("the data of signal 'go' does not fit")
    assert active(given) == ("a",)


def test_nobody_outside_raises_the_events_that_are_the_charts_own() -> None:
    given = chart({"a": {"invoke": {"tool": "t", "on_done": "b"}}, "b": END}).when(send("done.invoke.a"))
    given.then(
        CommandRefused(
            "done.invoke.a-1", "'done.invoke.a' is an event that only perdure raises; give yours another name"
        )
    )


def test_a_delay_is_a_timer_of_its_entry_and_ends_with_it() -> None:
    states = {"a": {"after": {"5s": "b"}, "on": {"again": "a"}}, "b": END}
    given = chart(states)
    assert list(given.now.timers) == ["after/a[1]/0"]
    given.when(send("again")).then_types(TimerCancelled, MacrostepTaken, TimerArmed)
    assert list(given.now.timers) == ["after/a[2]/0"]
    assert given.when(due(given, "after/a[2]/0")).events[-1] == ExecutionSucceeded(None)


def test_a_timer_that_comes_after_its_state_was_left_is_dropped_and_recorded() -> None:
    given = chart({"a": {"after": {"5s": "b"}, "on": {"go": "c"}}, "b": END, "c": {"on": {"x": "b"}}})
    late = due(given, "after/a[1]/0")
    given.when(send("go"))
    given.events.clear()
    given.when(late).then(EventIgnored("", "after.a", None, "state 'a' was left before"))


def test_a_timer_of_an_earlier_entry_does_not_count_for_a_later_one() -> None:
    given = chart({"a": {"after": {"5s": "b"}, "on": {"again": "a"}}, "b": END})
    late = due(given, "after/a[1]/0")
    given.when(send("again")).when(FireTimer("late", EXECUTION, late.timer, late.due))
    assert active(given) == ("a",)


def test_an_invocation_begins_with_its_state_and_its_result_is_an_event() -> None:
    states = {
        "a": {
            "invoke": {
                "tool": "t",
                "with": {"x": 1},
                "on_done": {"target": "b", "do": {"set": {"y": "${{ event.data }}"}}},
            }
        },
        "b": END,
    }
    given = chart(states, context={"y": None})
    assert given.now.running["a[1]/invoke"].input == {"x": 1}
    given.when(ReportSuccess("a[1]/invoke", 1, 7)).then_types(NodeSucceeded, MacrostepTaken, ExecutionSucceeded)
    assert given.now.main.chart is not None
    assert given.now.main.chart.context == {"y": 7}
    assert given.now.nodes == {}


def test_an_invocation_is_cancelled_when_its_state_is_left_and_its_late_result_is_recorded_as_ignored() -> None:
    given = chart(
        {"a": {"invoke": {"tool": "t", "on_done": "b"}, "on": {"go": "c"}}, "b": END, "c": {"on": {"x": "b"}}}
    )
    given.when(send("go")).then_types(NodeCancelled, MacrostepTaken)
    given.events.clear()
    given.when(ReportSuccess("a[1]/invoke", 1, 7)).then(
        EventIgnored("", "done.invoke.a", 7, "state 'a' was left before")
    )


def test_an_error_of_an_invocation_leads_along_on_error_with_the_error_at_hand() -> None:
    way = {"target": "b", "do": {"set": {"why": "${{ event.error.type }}"}}}
    given = chart({"a": {"invoke": {"tool": "t", "on_error": way}}, "b": END}, context={"why": None})
    given.when(ReportFailure("a[1]/invoke", 1, BOOM)).then_types(NodeFailed, MacrostepTaken, ExecutionSucceeded)
    assert given.now.main.chart is not None
    assert given.now.main.chart.context == {"why": "Boom"}


def test_an_error_that_no_transition_takes_fails_the_execution() -> None:
    given = chart({"a": {"invoke": {"tool": "t", "on_done": "b"}}, "b": END})
    given.when(ReportFailure("a[1]/invoke", 1, BOOM)).then(
        NodeFailed("a[1]/invoke", 1, BOOM),
        EventIgnored("", "error.invoke.a", None, "no transition takes this error"),
        ExecutionFailed(BOOM, "a[1]/invoke", 1),
    )


def test_calls_are_made_one_after_the_other_in_the_order_of_the_steps() -> None:
    states = {
        "a": {"exit": {"tool": "leave"}, "on": {"go": {"target": "b", "do": {"tool": "along"}}}},
        "b": {"entry": [{"tool": "enter"}, {"tool": "enter"}], "on": {"end": "end"}},
        "end": END,
    }
    given = chart(states).when(send("go"))
    assert of_type(given, MacrostepTaken)[0].calls == ["a[1]/leave", "a[1]/along", "b[1]/enter", "b[1]/enter.2"]
    assert [event.node for event in of_type(given, CallQueued)] == ["a[1]/along", "b[1]/enter", "b[1]/enter.2"]
    for path in ("a[1]/leave", "a[1]/along", "b[1]/enter", "b[1]/enter.2"):
        assert list(given.now.running) == [path]
        given.when(ReportSuccess(path, 1))
    assert not given.now.running


def test_a_call_that_is_asked_for_again_in_the_same_entry_has_a_path_of_its_own() -> None:
    given = chart({"a": {"on": {"ping": {"do": {"tool": "pong"}}, "end": "b"}}, "b": END})
    given.when(send("ping"), ReportSuccess("a[1]/pong", 1), send("ping", number=2))
    assert list(given.now.running) == ["a[1]/pong~2"]


def test_a_chart_in_its_final_state_ends_when_its_calls_are_over() -> None:
    given = chart({"a": {"on": {"go": {"target": "b", "do": {"tool": "t"}}}}, "b": {**END, "output": 5}})
    given.when(send("go")).then_types(MacrostepTaken, NodeScheduled)
    given.when(ReportSuccess("a[1]/t", 1))
    assert given.events[-1] == ExecutionSucceeded(5)


def test_a_failed_action_raises_its_error_and_the_next_call_follows() -> None:
    do = [{"tool": "t", "name": "ring"}, {"tool": "u"}]
    given = chart({"a": {"on": {"go": {"do": do}, "error.action.ring": "b"}}, "b": END})
    given.when(send("go"), ReportFailure("a[1]/ring", 1, BOOM))
    assert active(given) == ("b",)
    assert list(given.now.running) == ["a[1]/u"]


def test_a_step_that_ends_in_an_error_has_not_happened() -> None:
    do = [{"set": {"n": 2}}, {"tool": "t"}, {"set": {"n": "${{ context.m.x }}"}}]
    given = chart({"a": {"on": {"go": {"target": "b", "do": do}}}, "b": END}, {}, context={"n": 1, "m": "${{ input }}"})
    given.when(send("go")).then_types(EventIgnored, ExecutionFailed)
    assert active(given) == ("a",)
    assert given.now.main.chart is not None
    assert given.now.main.chart.context["n"] == 1


def test_events_that_come_during_a_pause_count_at_the_resume_in_their_order() -> None:
    states = {
        "a": {"on": {"x": "b"}, "after": {"5s": "end"}},
        "b": {"on": {"y": "c"}},
        "c": {"on": {"z": "end"}},
        "end": END,
    }
    given = chart(states).when(PauseExecution("p", EXECUTION))
    timer = due(given, "after/a[1]/0")
    given.when(send("x"), timer, send("y"))
    assert [event.event for event in of_type(given, EventHeld)] == ["x", "after.a", "y"]
    assert active(given) == ("a",)
    given.when(ResumeExecution("r", EXECUTION))
    assert active(given) == ("c",)
    assert of_type(given, EventIgnored) == [EventIgnored("", "after.a", None, "state 'a' was left before", held=True)]


def test_what_states_did_is_undone_in_the_reverse_order_of_their_entry() -> None:
    undo = {"compensate": {"tool": "undo", "with": {"n": "${{ context.n }}"}}}
    states = {"a": {**undo, "on": {"go": "b"}}, "b": {**undo, "on": {"go": "a", "end": "end"}}, "end": END}
    given = chart(states, context={"n": 7}).when(send("go"), send("go", number=2), CancelExecution("c", EXECUTION))
    assert of_type(given, CompensationStarted)[0].undo == ["a[2]/entered", "b[1]/entered", "a[1]/entered"]
    for path in ("a[2]/entered~undo", "b[1]/entered~undo", "a[1]/entered~undo"):
        assert given.now.running[path].input == {"n": 7}
        given.when(ReportSuccess(path, 1))
    assert given.now.status == "cancelled"


def test_a_final_state_may_fail_the_execution() -> None:
    lost = {**END, "fail": {"type": "Lost", "message": "it is ${{ event.data }}"}}
    given = chart({"a": {"on": {"go": "lost"}, "compensate": {"tool": "undo"}}, "lost": lost}, context={"n": 1})
    given.when(send("go", "gone"))
    assert given.now.running["a[1]/entered~undo"].input == {"state": "a", "context": {"n": 1}}
    given.when(ReportSuccess("a[1]/entered~undo", 1))
    assert of_type(given, ExecutionFailed)[0].error == Error("Lost", "it is gone")


def test_a_chart_that_never_comes_to_rest_fails_and_says_where_it_goes_round() -> None:
    given = chart(
        {"a": {"on": {"go": "b"}}, "b": {"always": "c"}, "c": {"always": "b"}, "end": END, "d": {"on": {"x": "end"}}}
        | {"a": {"on": {"go": "b", "d": "d"}}}
    )
    given.when(send("go"))
    (failed,) = of_type(given, ExecutionFailed)
    assert failed.error.type == "Unstable"
    assert "b, c" in failed.error.message


def test_a_failed_execution_that_is_retried_goes_on_in_its_states() -> None:
    states = {"a": {"invoke": {"tool": "t", "with": {"x": 1}, "on_done": "b"}, "after": {"5s": "b"}}, "b": END}
    given = chart(states).when(ReportFailure("a[1]/invoke", 1, BOOM), RetryExecution("r", EXECUTION))
    assert active(given) == ("a",)
    assert given.now.running["a[1]/invoke"].input == {"x": 1}
    assert list(given.now.timers) == ["after/a[1]/0"]
    assert given.when(ReportSuccess("a[1]/invoke", 1)).now.status == "succeeded"


def test_a_failed_execution_whose_states_were_undone_begins_anew_when_it_is_retried() -> None:
    states = {
        "a": {"compensate": {"tool": "u"}, "on": {"go": "b"}},
        "b": {"invoke": {"tool": "t", "on_done": "c"}},
        "c": END,
    }
    given = chart(states).when(send("go"), ReportFailure("b[1]/invoke", 1, BOOM), ReportSuccess("a[1]/entered~undo", 1))
    assert given.now.status == "failed"
    assert active(given.when(RetryExecution("r", EXECUTION))) == ("a",)


def test_a_dag_runs_a_chart_in_a_node_and_goes_on_with_its_output() -> None:
    states = {"open": {"on": {"close": "closed"}}, "closed": {**END, "output": "${{ [input.n, event.data] }}"}}
    nodes = {
        "door": {"statechart": {"states": states}, "with": {"n": 3}, "output": "${{ output[1] }}"},
        "after": {"set": "${{ nodes.door.output }}"},
    }
    plan = load({"name": "flow", "nodes": nodes}).plan
    given = Given(plan).when(start(plan), send("close", 9))
    assert given.events[-1] == ExecutionSucceeded({"after": 9})


def test_signals_that_came_before_a_chart_began_reach_it_in_their_order() -> None:
    states = {"a": {"on": {"x": "b"}}, "b": {"on": {"y": "c"}}, "c": END}
    nodes = {"first": {"tool": "t"}, "chart": {"needs": "first", "statechart": {"states": states}}}
    plan = load({"name": "flow", "nodes": nodes}).plan
    given = Given(plan).when(start(plan), send("x"), send("other"), send("y"), ReportSuccess("first", 1))
    assert given.now.status == "succeeded"
    assert dict(given.now.signals) == {"other": (None,)}


def test_a_chart_in_a_node_fails_the_node_whose_catch_takes_its_error() -> None:
    states = {"a": {"invoke": {"tool": "t", "on_done": "b"}}, "b": END}
    nodes = {"chart": {"statechart": {"states": states}, "catch": [{"on": "Boom", "output": "caught"}]}}
    plan = load({"name": "flow", "nodes": nodes}).plan
    given = Given(plan).when(start(plan), ReportFailure("chart/chart/a[1]/invoke", 1, BOOM))
    assert given.events[-1] == ExecutionSucceeded({"chart": "caught"})


def test_a_child_that_a_state_invoked_is_undone_as_well() -> None:
    invoke = {"workflow": {"name": "w", "id": "c-1"}, "on_done": "b"}
    carried = {"w": {"name": "w", "nodes": {"x": {"set": 1}}}}
    states = {"a": {"invoke": invoke}, "b": {"on": {"go": "c"}}, "c": END}
    given = chart(states, workflows=carried).when(ReportChild("c-1/ended", EXECUTION, "c-1", 5))
    assert active(given) == ("b",)
    given.when(CancelExecution("c", EXECUTION))
    assert of_type(given, CompensationStarted)[0].undo == ["a[1]/invoke"]
    assert given.now.waiting["a[1]/invoke~undo"].input == {"compensation": "c-1"}


def test_a_call_of_a_chart_is_completed_by_hand_and_a_state_is_not() -> None:
    given = chart(
        {"a": {"invoke": {"tool": "t", "on_done": "b"}}, "b": {"invoke": {"tool": "t", "on_done": "c"}}, "c": END}
    )
    given.when(CompleteNode("c-1", EXECUTION, "a", 1), CompleteNode("c-2", EXECUTION, "b[1]/invoke", 1))
    assert [event.reason for event in of_type(given, CommandRefused)] == [
        "there is no node 'a' in this workflow",
        "there is no node 'b[1]/invoke' in this workflow; did you mean 'a[1]/invoke'?",
    ]
    given.when(CompleteNode("c-3", EXECUTION, "a[1]/invoke", 1), SkipNode("s", EXECUTION, "b[1]/invoke"))
    assert given.now.status == "succeeded"


def test_entries_are_counted_on_after_a_chart_was_undone() -> None:
    states = {"a": {"compensate": {"tool": "u"}, "invoke": {"tool": "t", "on_done": "b"}}, "b": END}
    given = chart(states).when(ReportFailure("a[1]/invoke", 1, BOOM), ReportSuccess("a[1]/entered~undo", 1))
    given.when(RetryExecution("r", EXECUTION))
    assert list(given.now.running) == ["a[2]/invoke"]


def test_items_of_a_foreach_run_charts_of_their_own() -> None:
    states = {
        "a": {"invoke": {"tool": "t", "with": {"n": "${{ input.n }}"}, "on_done": "b"}, "after": {"5s": "b"}},
        "b": {**END, "output": "${{ event.data }}"},
    }
    node = {
        "foreach": {"items": [1, 2], "as": "n"},
        "do": {"c": {"statechart": {"states": states}, "with": {"n": "${{ n }}"}}},
    }
    plan = load({"name": "flow", "nodes": {"each": node}, "output": "${{ nodes.each.output }}"}).plan
    given = Given(plan).when(start(plan))
    assert given.now.running["each[1]/c/chart/a[1]/invoke"].input == {"n": 2}
    given.when(ReportSuccess("each[1]/c/chart/a[1]/invoke", 1, "two"), due(given, "after/each[0]/c/chart/a[1]/0"))
    assert given.events[-1] == ExecutionSucceeded([{"c": None}, {"c": "two"}])


def test_a_chart_in_an_item_that_is_stopped_has_no_timers_left() -> None:
    states = {"a": {"invoke": {"tool": "t", "on_done": "b"}, "after": {"5s": "b"}}, "b": END}
    node = {"foreach": {"items": [1, 2]}, "do": {"c": {"statechart": {"states": states}}}}
    plan = load({"name": "flow", "nodes": {"each": node}}).plan
    given = Given(plan).when(start(plan), ReportFailure("each[0]/c/chart/a[1]/invoke", 1, BOOM))
    assert given.now.status == "failed"
    assert not given.now.timers


def test_the_progress_of_an_invocation_is_an_event_where_some_state_wants_to_know() -> None:
    far = {"do": {"set": {"far": "${{ event.data }}"}}}
    states = {"a": {"invoke": {"tool": "t", "on_done": "b"}, "on": {"progress.invoke.a": far}}, "b": END}
    given = chart(states, context={"far": 0}).when(ReportProgress("a[1]/invoke", 1, 50)).then_types(MacrostepTaken)
    assert given.now.main.chart is not None
    assert given.now.main.chart.context == {"far": 50}
    deaf = chart({"a": {"invoke": {"tool": "t", "on_done": "b"}}, "b": END})
    deaf.when(ReportProgress("a[1]/invoke", 1, 50)).then_nothing()


def test_a_transition_may_be_for_several_events() -> None:
    given = chart({"a": {"on": {"go run.*": "b"}}, "b": END}).when(send("run.fast"))
    assert given.now.status == "succeeded"


def test_an_event_that_no_guard_lets_in_is_ignored_for_that_reason() -> None:
    held = "no transition for it has a guard that holds in a"
    given = chart({"a": {"on": {"e": {"target": "z", "if": "event.data > 1"}}}, "z": END}).when(send("e", 1))
    given.then(EventIgnored("", "e", 1, held))
    given = chart({"a": {"after": {"5s": {"target": "z", "if": "context.n > 1"}}}, "z": END}, context={"n": 0})
    assert given.when(due(given, "after/a[1]/0")).events[-1] == EventIgnored("", "after.a", None, held)


def test_the_output_of_a_workflow_that_is_a_statechart_may_read_its_context() -> None:
    states = {"a": {"on": {"e": {"target": "z", "do": {"set": {"n": "${{ event.data }}"}}}}}, "z": END}
    given = chart(states, context={"n": 0}, output={"n": "${{ context.n }}"}).when(send("e", 3))
    assert given.events[-1] == ExecutionSucceeded({"n": 3})


def test_ids_of_events_that_are_decided_at_one_time_differ() -> None:
    given = chart({"a": {"on": {"e": {"do": {"set": {"ids": "${{ context.ids + [uuid()] }}"}}}}}}, context={"ids": []})
    given.when(send("e", number=1), send("e", number=2))
    assert given.now.main.chart is not None
    assert len(set(given.now.main.chart.context["ids"])) == 2


def test_a_result_whose_step_failed_is_taken_again_by_a_retry() -> None:
    done = {"target": "end", "if": "int(event.data) == 1"}  # what the call gave is no number
    given = chart({"a": {"invoke": {"tool": "t", "on_done": done}}, "end": END})
    given.when(ReportSuccess("a[1]/invoke", 1, "x"))
    assert isinstance(given.events[-1], ExecutionFailed)
    given.when(RetryExecution("r-1", EXECUTION))
    assert isinstance(given.events[-1], ExecutionFailed), "it fails again, and does not wait for what never comes"
    assert [event.held for event in of_type(given, EventIgnored)] == [False, True]
    assert given.now.main.chart is not None
    assert len(given.now.main.chart.held) == 1


def test_a_flood_that_was_held_is_taken_in_portions_and_in_its_order() -> None:
    do = {"set": {"seen": "${{ context.seen + [event.data] }}"}}
    given = chart({"a": {"on": {"n": {"do": do}}}}, context={"seen": []}).when(PauseExecution("p", EXECUTION))
    given.when(*(send("n", number, number) for number in range(1500)), ResumeExecution("r", EXECUTION))
    taken = len(of_type(given, MacrostepTaken))
    assert 1000 <= taken < 1500
    given.when(send("n", 1500, 1500), Continue())  # one that comes between does not overtake
    assert given.now.main.chart is not None
    assert given.now.main.chart.context["seen"] == list(range(1501))


def test_an_event_without_a_name_is_refused() -> None:
    given = chart({"a": {"on": {"go": "b"}}, "b": END}).when(send(""))
    given.then(CommandRefused("-1", "a signal has a name, and this one is empty"))

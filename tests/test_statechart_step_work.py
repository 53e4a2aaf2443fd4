"""What a step of a statechart asks for, each of one entry of its state: calls, invocations, delays; and its errors."""

from typing import Any

from chart_steps import AROUND, Driven, atoms, plan_of, write

from perdure.actors import statechart
from perdure.actors.chart_state import ChartEvent
from perdure.actors.macrostep import Asked, Delay
from perdure.events.vocabulary import Error, Microstep, Taken

BAD = "${{ context.missing }}"


def test_what_is_asked_for_names_the_state_which_entry_of_it_and_its_input() -> None:
    """6.4, 6.2: an invocation and a delayed event belong to one entry of their state."""
    a = {"invoke": {"tool": "work", "with": {"n": "${{ context.n }}"}}, "after": {"1m": "b", "${{ context.n }}": "b"}}
    a |= {"entry": {"tool": "note", "name": "told", "with": {"n": 2}}, "on": {"again": "a"}}
    chart = Driven({"a": a, "b": {}}, context={"n": 1}).when("again")
    assert chart.last.calls == [Asked("a", 2, "told", {"n": 2}, [])]
    assert chart.last.invokes == [Asked("a", 2, "invoke", {"n": 1}, [])]
    assert chart.last.delays == [Delay("a", 2, 0, 60), Delay("a", 2, 1, 1)]


def test_a_state_that_is_left_in_the_step_that_entered_it_begins_nothing() -> None:
    """D, exitStates: a state that is exited is taken off statesToInvoke; the calls of its actions are made."""
    a = {"entry": {"tool": "note"}, "invoke": {"tool": "work"}, "after": {"1m": "b"}, "always": "b"}
    chart = Driven({"a": a, "b": {}})
    assert (chart.last.invokes, chart.last.delays) == ([], [])
    assert [each.name for each in chart.last.calls] == ["note"]


def both(on: dict[str, Any], bad: dict[str, Any]) -> dict[str, Any]:
    work = {"invoke": {"tool": "work", "id": "good"}, "after": {"1m": "rest"}}
    return {"p": {"type": "parallel", "states": {"x": work, "y": bad}, "on": on}, "rest": {}}


def test_an_invocation_that_cannot_be_evaluated_raises_an_error_and_the_others_begin_once() -> None:
    """D, mainEventLoop: invoking may raise internal events, which are taken before the chart waits."""
    for bad in (
        {"invoke": {"tool": "work", "with": {"v": BAD}}},
        {"after": {BAD: "rest"}},
        {"after": {"${{ 'x' }}": "rest"}},
    ):
        chart = Driven(both({"error.execution": {"do": write("error")}}, bad), context={"log": []})
        assert chart.log == ["error"]
        assert [each.state for each in chart.last.invokes] == ["p.x"]
        assert [each.state for each in chart.last.delays] == ["p.x"]


def test_what_had_begun_is_taken_back_where_the_error_leads_out_of_its_state() -> None:
    """D, exitStates: cancelInvoke; in one step nothing was begun yet, so nothing is asked for."""
    chart = Driven(both({"error.execution": "rest"}, {"invoke": {"tool": "work", "with": {"v": BAD}}}))
    assert chart.active == atoms("rest")
    assert (chart.last.invokes, chart.last.delays) == ([], [])


def test_an_error_that_nothing_takes_says_which_state_and_what() -> None:
    """5.9.1, 5.10.2, 6.2: the errors of guards, invocations and delays name their state."""
    for state, words in (
        ({"always": {"if": "context.missing", "target": "b"}}, "state 'a': "),
        ({"always": {"if": "1 + 1", "target": "b"}}, "state 'a': the guard '1 + 1' gave 2"),
        ({"invoke": {"tool": "work", "with": {"v": BAD}}}, "state 'a': "),
        ({"after": {"${{ 'soon' }}": "b"}}, "state 'a': a delay: not a duration"),
        ({"after": {BAD: "b"}}, "state 'a': "),
    ):
        failed = Driven({"a": state, "b": {}}).last.failed
        assert failed is not None
        assert failed.message.startswith(words)
        assert failed.type == "ExpressionError"


def test_a_chart_whose_context_cannot_be_evaluated_does_not_begin() -> None:
    """5.3: data that cannot be evaluated is an error; here it fails the chart, as nothing could read on."""
    step = statechart.begin(plan_of({"a": {}}, context={"n": "${{ 1 / 0 }}"}), AROUND)
    assert step.failed is not None
    assert step.failed.message.startswith("context: ")
    assert step.steps == []


def test_a_chart_that_goes_round_without_entering_anything_says_so() -> None:
    """3.13: a transition without target that is always enabled."""
    chart = Driven({"a": {"always": {"do": write("on")}}}, context={"log": []})
    assert chart.last.failed is not None
    assert chart.last.failed.message.endswith("it goes round through no state")
    assert len(chart.last.steps) == statechart.MAX_MICROSTEPS


def test_values_are_set_together_as_they_were_before() -> None:
    """5.4: the values of one `set` are all evaluated before any is assigned; of two `set` the second sees the first."""
    do = [{"set": {"x": "${{ context.y }}", "y": "${{ context.x }}"}}, {"set": {"z": "${{ context.x }}"}}]
    chart = Driven({"a": {"on": {"go": {"do": do}}}}, context={"x": 1, "y": 2, "z": 0}).when("go")
    assert chart.state.context == {"x": 2, "y": 1, "z": 2}
    assert chart.last.context == {"x": 2, "y": 1, "z": 2}


def test_a_chart_may_fail_by_the_final_state_that_it_ends_in() -> None:
    """Beyond SCXML: a final state at the top that has `fail` ends the chart by an error."""
    end = {"type": "final", "fail": {"type": "Refused", "message": "${{ context.why }}", "data": {"n": 1}}}
    chart = Driven({"a": {"on": {"go": "end"}}, "end": end}, context={"why": "no funds"}).when("go")
    assert chart.last.ended
    assert chart.last.error is not None
    assert (chart.last.error.type, chart.last.error.message, chart.last.error.data) == ("Refused", "no funds", {"n": 1})


def test_a_guard_that_fails_raises_one_error_though_two_regions_ask_it() -> None:
    """5.9.1, D: a transition that several states select is one transition."""
    on = {"go": {"if": "context.missing", "target": "rest"}, "error": {"do": write("error")}}
    p = {"type": "parallel", "states": {"x": {}, "y": {}}, "on": on}
    assert Driven({"p": p, "rest": {}}, context={"log": []}).when("go").log == ["error"]


def test_a_guard_that_fails_fails_the_chart_where_neither_event_nor_error_is_taken() -> None:
    """5.9.1, and what perdure does with errors."""
    chart = Driven({"a": {"on": {"go": {"if": "In('nowhere')", "target": "b"}}}, "b": {}}).when("go")
    assert chart.last.failed is not None
    assert "there is no state 'nowhere'" in chart.last.failed.message


def test_an_error_whose_own_guard_fails_is_the_one_that_counts() -> None:
    """5.9.1: the error that came from outside was not taken, and fails the chart."""
    boom = ChartEvent("error.action.pay", error=Error("Boom", "it broke"))
    on = {"error.action.pay": {"if": "context.missing", "target": "b"}, "error.execution": "b"}
    chart = Driven({"a": {"on": on}, "b": {}}).when(boom)
    assert chart.last.failed == boom.error


def test_a_record_says_which_transitions_were_taken_where_to_and_why() -> None:
    """The record of a microstep is read by people: source, descriptor, targets and guard."""
    ways = [{"if": "context.n > 5", "target": "b"}, {"if": "context.n > 0", "target": "c"}]
    chart = Driven({"a": {"on": {"go.*": ways}}, "b": {}, "c": {}}, context={"n": 1}).when("go.on")
    assert chart.last.steps == [
        Microstep("go.on", [Taken("a", "go.*", ["c"], "context.n > 0")], exited=["a"], entered=["c"])
    ]


def test_invocations_begin_in_document_order() -> None:
    """D, mainEventLoop: statesToInvoke in entry order."""
    regions = {f"r{number}": {"invoke": {"tool": "work"}} for number in range(12)}
    chart = Driven({"p": {"type": "parallel", "states": regions}})
    assert [each.state for each in chart.last.invokes] == [f"p.r{number}" for number in range(12)]


def test_what_is_made_up_in_one_step_is_never_the_same_twice() -> None:
    """uuid() is a function of the time, the place and how many expressions came before."""
    made = [{"set": {"one": "${{ uuid() }}"}}, {"set": {"two": "${{ uuid() }}"}}]
    context = Driven({"a": {"entry": made}}).state.context
    assert context["one"] != context["two"]

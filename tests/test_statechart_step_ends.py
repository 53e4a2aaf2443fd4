"""Initial states, final states, histories, guards and errors of statecharts hold to SCXML, whose sections are named."""

from typing import Any

import pytest
from chart_steps import AROUND, Driven, atoms, logged, plan_of, write

from perdure.actors import statechart
from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.events.vocabulary import Error

END: dict[str, Any] = {"type": "final"}
LOG: dict[str, Any] = {"context": {"log": []}}

# Where a chart and its states begin


def test_a_chart_without_initial_begins_in_its_first_state() -> None:
    """3.2: where `initial` is not given, the first child state in document order is entered."""
    assert Driven({"a": {"states": {"x": {}, "y": {}}}, "b": {}}).active == atoms("a.x")


def test_an_initial_may_name_a_state_deep_within() -> None:
    """3.2, 3.3: `initial` names a descendant; the states around it are entered too, without their own initial."""
    chart = Driven({"a": {"initial": "y2", "states": {"x": {}, "y": {"states": {"y1": {}, "y2": {}}}}}})
    assert chart.entered == ["a", "a.y", "a.y.y2"]


def test_an_initial_may_name_states_of_several_regions() -> None:
    """3.2: `initial` is a legal state specification; regions that it does not name begin at their default."""
    regions: dict[str, Any] = {name: {"states": {"one": {}, "two": {}}} for name in ("x", "y", "z")}
    chart = Driven({"p": {"type": "parallel", "states": regions}}, initial=["p.z.two", "p.x.two"])
    assert chart.active == atoms("p.x.two", "p.y.one", "p.z.two")
    assert chart.entered == ["p", "p.x", "p.x.two", "p.y", "p.y.one", "p.z", "p.z.two"]


# Final states


def test_a_compound_state_is_done_when_a_final_child_of_it_is_entered() -> None:
    """3.7: done.state.ID is raised, with the data of the final state, after the content of its entry."""
    end = {**END, "output": "${{ 1 + 1 }}", "entry": {"raise": "before"}}
    a = {"states": {"x": {"on": {"go": "end"}}, "end": end}, "on_done": {"do": {"set": {"got": "${{ event.data }}"}}}}
    a["on"] = {"before": {"do": write("before")}, "done.state.a": {"do": write("never")}}
    chart = Driven({"a": a}, context={"log": [], "got": 0}).when("go")
    assert [micro.event for micro in chart.last.steps] == ["go", "before", "done.state.a"]


def test_a_parallel_state_is_done_when_all_its_regions_are() -> None:
    """3.4, 3.7.1: the region's done comes first, that of the parallel state after the one of the last region."""
    regions = {name: {"states": {"at": {"on": {name: f"p.{name}.end"}}, "end": END}} for name in ("x", "y")}
    done = {name: {"do": write(name)} for name in ("done.state.p.x", "done.state.p.y")}
    chart = Driven({"p": {"type": "parallel", "states": regions, "on": done, "on_done": "over"}, "over": {}}, **LOG)
    assert chart.when("y").active == atoms("p.x.at", "p.y.end")
    assert chart.when("x").active == atoms("over")
    assert chart.log == ["done.state.p.y", "done.state.p.x"]
    assert [micro.event for micro in chart.last.steps] == ["x", "done.state.p.x", "done.state.p"]


def test_a_parallel_state_with_a_region_that_has_no_end_is_never_done() -> None:
    """D, isInFinalState: an atomic state is in no final state."""
    chart = Driven(
        {"p": {"type": "parallel", "states": {"x": {"states": {"end": END}}, "y": {}}, "on_done": "over"}, "over": {}}
    )
    assert chart.active == atoms("p.x.end", "p.y")
    assert chart.last.ignored == ["done.state.p.x"]


def test_a_parallel_state_within_another_is_done_for_it_too() -> None:
    """3.4: a parallel state is in a final state when all its children are; so is one whose last child is parallel."""
    inner = {"type": "parallel", "states": {"x": {"states": {"at": {"on": {"go": "end"}}, "end": END}}}}
    outer = {"type": "parallel", "states": {"first": {"states": {"over": END}}, "inner": inner}, "on_done": "all"}
    chart = Driven({"outer": outer, "all": {}}).when("go")
    assert chart.active == atoms("all")
    assert chart.last.ignored == ["done.state.outer.inner.x", "done.state.outer.inner"]


def test_a_final_state_at_the_top_ends_the_chart_at_once() -> None:
    """3.7, D, exitInterpreter: internal events that are left are not looked at; exit content runs, then the output."""
    end = {**END, "entry": {"raise": "late"}, "output": "${{ context.log }}", "exit": write("-end")}
    chart = Driven({"a": {"on": {"go": "end"}, "exit": write("-a")}, "end": end}, **LOG).when("go")
    assert chart.state.ended
    assert chart.last.ignored == []
    assert chart.state.output == ["-a", "-end"]
    assert [micro.event for micro in chart.last.steps] == ["go"]


def test_a_chart_that_has_ended_invokes_nothing() -> None:
    """D, mainEventLoop: what states invoke begins at the end of a macrostep, of those that are still active."""
    a = {"invoke": {"tool": "work"}, "always": "b", "after": {"1h": "b"}}
    chart = Driven({"a": a, "b": {"invoke": {"tool": "work"}, "after": {"1h": "end"}, "on": {"go": "end"}}, "end": END})
    assert [each.state for each in chart.last.invokes] == ["b"]
    assert [each.state for each in chart.last.delays] == ["b"]
    assert chart.when("go").last.invokes == []


# Histories


def player(**history: Any) -> dict[str, Any]:
    x = {"states": {"x1": {}, "x2": {"on": {"deep": "y2"}}}, "on": {"next": "x2"}}
    y: dict[str, Any] = {"states": {"y1": {}, "y2": {}}}
    on = {"states": {"x": x, "y": y, "h": {"type": "history", **history}}, "on": {"out": "off"}}
    return {"on": on, "off": {"on": {"back": "on.h"}}, "new": {"on": {"back": "on.h"}}}


def test_a_shallow_history_remembers_the_child_and_not_what_was_within_it() -> None:
    """3.10: a shallow history is the immediate children that were active; they are entered by their default."""
    chart = Driven(player(default="x")).when("next", "deep", "out", "back")
    assert chart.active == atoms("on.y.y1")
    assert chart.state.history["on.h"] == ("on.y",)


def test_a_deep_history_remembers_the_atomic_states() -> None:
    """3.10: a deep history is the atomic descendants that were active."""
    chart = Driven(player(default="x", deep=True)).when("next", "deep", "out", "back")
    assert chart.active == atoms("on.y.y2")
    assert chart.entered == ["on", "on.y", "on.y.y2"]


def test_a_history_without_a_past_leads_to_its_default() -> None:
    """3.10: the default transition of a history is taken if its parent was never left."""
    assert Driven(player(default="y2", deep=True), initial=["new"]).when("back").active == atoms("on.y.y2")


def test_a_history_remembers_the_last_time_that_its_state_was_left() -> None:
    """3.10, D, exitStates: the value is written on every exit, before the content of any exit."""
    chart = Driven(player(default="x", deep=True)).when("next", "out", "back", "deep", "out")
    assert chart.state.history["on.h"] == ("on.y.y2",)


def test_a_history_of_a_parallel_state_brings_all_regions_back() -> None:
    """3.10, D, addDescendantStatesToEnter: regions that the history names are not entered by their default."""
    regions: dict[str, Any] = {
        name: {"states": {"one": {"on": {name: f"p.{name}.two"}}, "two": {}}} for name in ("x", "y", "z")
    }
    for deep, expected in ((True, {"p.x.two", "p.y.one", "p.z.two"}), (False, {"p.x.one", "p.y.one", "p.z.one"})):
        history = {"h": {"type": "history", "deep": deep, "default": ["p.x.one"]}}
        p = {"type": "parallel", "states": {**regions, **history}, "on": {"out": "off"}}
        chart = Driven({"p": p, "off": {"on": {"back": "p.h"}}}).when("x", "z", "out", "back")
        assert chart.active == expected


@pytest.mark.parametrize("deep", [True, False])
def test_a_history_of_one_region_leaves_the_other_regions_to_their_default(deep: bool) -> None:
    """D, addAncestorStatesToEnter: other regions of a parallel state on the way up are entered too."""
    regions: dict[str, Any] = {
        name: {"states": {"one": {"on": {name: f"p.{name}.two"}}, "two": {}}} for name in ("x", "y")
    }
    regions["x"]["states"]["h"] = {"type": "history", "deep": deep, "default": "p.x.one"}
    chart = Driven(
        {"p": {"type": "parallel", "states": regions, "on": {"out": "off"}}, "off": {"on": {"back": "p.x.h"}}}
    )
    assert chart.when("x", "y", "out", "back").active == atoms("p.x.two", "p.y.one")


def test_an_initial_may_be_a_history() -> None:
    """3.6, 3.10: whoever enters the state comes back to where it was; the first time to the default."""
    a = {"initial": "h", "states": {"h": {"type": "history", "default": "y"}, "x": {}, "y": {"on": {"go": "x"}}}}
    chart = Driven({"a": {**a, "on": {"out": "b"}}, "b": {"on": {"in": "a"}}})
    assert chart.active == atoms("a.y")
    assert chart.when("go", "out", "in").active == atoms("a.x")


def test_a_state_that_is_left_in_the_step_that_enters_its_history_is_remembered_first() -> None:
    """D, microstep: exitStates comes before enterStates, so the target is what has just been left."""
    a = {
        "states": {"h": {"type": "history", "default": "x"}, "x": {"on": {"next": "y"}}, "y": {}},
        "on": {"again": "h"},
    }
    chart = Driven({"a": a}).when("next", "again")
    assert chart.active == atoms("a.y")
    assert chart.exited == ["a.y", "a"]


def test_a_deep_history_that_leads_back_into_active_states_leaves_them_as_they_are() -> None:
    """3.13: what a transition enters lies in its domain; states that were not left are not entered again."""
    x = {"states": {"x1": {"on": {"go": "p.h"}}, "x2": {}}}
    b = {"states": {"b1": {"on": {"next": "b2"}}, "b2": {}}}
    inner = {"type": "parallel", "states": {"a": {"states": {"x": x}}, "b": b}}
    h = {"type": "history", "deep": True, "default": "x2"}
    chart = Driven({"p": {"type": "parallel", "states": {"h": h, "inner": inner}}}).when("next", "go")
    assert chart.active == atoms("p.inner.a.x.x2", "p.inner.b.b2")
    assert (chart.exited, chart.entered) == (["p.inner.a.x.x1"], ["p.inner.a.x.x2"])


# Guards and errors


def test_in_asks_for_the_configuration_as_it_is_at_that_moment() -> None:
    """5.9.1, B.1: In() is true of active states; states that were not entered yet are not active."""
    seen = {"set": {"log": "${{ context.log + [[In('p.x'), In('p.y'), In('off')]] }}"}}
    p = {"type": "parallel", "states": {"x": {"entry": seen, "exit": seen}, "y": {"entry": seen, "exit": seen}}}
    p["on"] = {"out": [{"if": "In('off')", "target": "nowhere"}, {"if": "In('x') and In('p')", "target": "off"}]}
    chart = Driven({"p": p, "off": {"entry": seen}, "nowhere": {}}, **LOG).when("out")
    # x is entered, then y; y is left, then x; then off is entered
    assert chart.state.context["log"] == [
        [True, False, False],
        [True, True, False],
        [True, True, False],
        [True, False, False],
        [False, False, True],
    ]


def test_a_guard_that_cannot_be_evaluated_does_not_hold_and_raises_an_error() -> None:
    """5.9.1: it counts as false, and error.execution is raised; the next transition is looked at."""
    ways = [{"if": "context.missing > 1", "target": "wrong"}, "b"]
    chart = Driven({"a": {"on": {"go": ways}}, "b": {"on": {"error.execution": "right"}}, "right": {}, "wrong": {}})
    assert chart.when("go").active == atoms("right")


def test_a_guard_that_gives_no_boolean_does_not_hold_and_raises_an_error() -> None:
    """5.9.1: a value that is no boolean counts as false; perdure says so instead of guessing."""
    a = {"on": {"go": {"if": "context.count", "target": "wrong"}, "error": {"target": "right"}}}
    chart = Driven({"a": a, "right": {}, "wrong": {}}, context={"count": 1}).when("go")
    assert chart.active == atoms("right")


def test_an_action_that_fails_ends_its_block_and_no_other() -> None:
    """4.10: the rest of that block is not executed, error.execution is raised, other blocks go on."""
    bad = [*write("1"), {"set": {"x": "${{ context.missing }}"}}, *write("never")]
    a = {"exit": bad, "on": {"go": {"target": "b", "do": bad}}}
    b = {"entry": bad, "on": {"error.execution": {"do": write("error")}}}
    assert Driven({"a": a, "b": b}, **LOG).when("go").log == ["1", "1", "1", "error", "error", "error"]


def test_an_output_that_fails_raises_the_error_before_the_state_is_done() -> None:
    """5.5: error.execution is raised, and done.state.ID has no data."""
    end = {**END, "output": "${{ context.missing }}"}
    a = {"states": {"x": {"on": {"go": "end"}}, "end": end}, "on": {"error": {"do": write("error")}}}
    a["on_done"] = {"do": {"set": {"log": "${{ context.log + [event.data] }}"}}}
    assert Driven({"a": a}, **LOG).when("go").log == ["error", None]


def test_an_error_that_nothing_takes_fails_the_chart() -> None:
    """SCXML (5.10.2) would drop it; perdure swallows no error, neither in mid-course nor at the end of a chart."""
    for after in ({"on": {"go": {"do": {"set": {"x": "${{ context.missing }}"}}}}}, {"on": {"go": "end"}}):
        end = {**END, "output": "${{ context.missing }}"}
        chart = Driven({"a": after, "end": end}).when("go")
        assert chart.last.failed is not None
        assert "missing" in chart.last.failed.message


def test_an_error_of_an_action_may_be_taken_by_name_or_fails_the_chart() -> None:
    """3.12.2: errors are events; one of a call that no transition takes is left to who asked."""
    plan = plan_of({"a": {"on": {"error.action.pay": "b"}}, "b": {}})
    state = ChartState(configuration=("a",))
    error = Error("Boom", "it broke")
    taken = statechart.step(plan, state, ChartEvent("error.action.pay", error=error), AROUND)
    assert taken is not None
    assert taken.steps[0].entered == ["b"]
    assert statechart.step(plan, state, ChartEvent("error.action.mail", error=error), AROUND) is None


def test_a_delay_is_for_the_state_that_it_stands_in_and_no_wildcard_takes_it() -> None:
    """6.2: `after` is a delayed event of one entry of its state; no descriptor of another state matches it."""
    a = {"on": {"*": "wrong"}, "states": {"b": {"after": {"1s": {"if": False, "target": "right"}, "2s": "right"}}}}
    chart = Driven({"a": a, "right": {}, "wrong": {}})
    assert [each.seconds for each in chart.last.delays] == [1, 2]
    assert chart.when(ChartEvent("after.a.b", timer=("a.b", 1, 0))).active == atoms("a.b")
    assert chart.when(ChartEvent("after.a.b", timer=("a.b", 1, 1))).active == atoms("right")


def test_the_log_of_a_life_reads_in_order() -> None:
    """3.13, D: begin, step and end of a nested chart in one log."""
    inner = {"on": {"go": "y"}}
    states = {"a": {"states": {"x": inner, "y": {"always": "b"}}}, "b": {"on": {"go": "end"}}, "end": END}
    chart = Driven(logged(states), **LOG).when("go")
    assert chart.log == ["+a", "+a.x", "-a.x", "+a.y", "-a.y", "-a", "+b"]

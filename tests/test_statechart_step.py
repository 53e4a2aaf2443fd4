"""The step of statecharts holds to the W3C Recommendation for SCXML, whose sections the tests name (D: appendix D)."""

from typing import Any

import pytest
from chart_steps import Driven, atoms, logged, write

END: dict[str, Any] = {"type": "final"}
LOG: dict[str, Any] = {"context": {"log": []}}


def to(target: str | list[str], *words: str, **parts: Any) -> dict[str, Any]:
    return {"target": target, "do": write(*words), **parts}


# Run to completion and the order of events


def test_an_event_is_taken_with_all_that_follows_before_the_step_ends() -> None:
    """D, mainEventLoop: eventless transitions and internal events are looked at until there are none."""
    chart = Driven({"a": {"on": {"go": "b"}}, "b": {"always": "c"}, "c": {"always": "d"}, "d": END})
    assert chart.when("go").active == atoms("d")
    assert chart.taken == [[("a", "go")], [("b", "always")], [("c", "always")]]


def test_eventless_transitions_come_before_internal_events() -> None:
    """3.13: internal events are taken when no eventless transition is enabled."""
    b = {"entry": {"raise": "inner"}, "always": "c", "on": {"inner": "wrong"}}
    chart = Driven({"a": {"on": {"go": "b"}}, "b": b, "c": {"on": {"inner": "right"}}, "right": {}, "wrong": {}})
    assert chart.when("go").active == atoms("right")


def test_internal_events_come_in_the_order_in_which_they_were_raised() -> None:
    """D, mainEventLoop: the internal queue is first in, first out."""
    a = {"on": {"go": {"do": [{"raise": "one"}, {"raise": "two"}]}, "one": {"do": [*write("1"), {"raise": "three"}]}}}
    a["on"] |= {"two": {"do": write("2")}, "three": {"do": write("3")}}
    assert Driven({"a": a}, **LOG).when("go").log == ["1", "2", "3"]


def test_an_internal_event_that_nothing_takes_is_recorded_as_ignored() -> None:
    """3.12.1: an event that matches no transition is dropped from its queue; the record keeps its name."""
    chart = Driven({"a": {"on": {"go": {"do": {"raise": "inner"}}, "inner": {"if": False, "target": "b"}}}, "b": END})
    assert chart.when("go").last.ignored == ["inner"]
    assert chart.taken == [[("a", "go")]]


def test_an_event_that_nothing_takes_changes_nothing() -> None:
    """3.12.1, D: selectTransitions gives none, and the chart waits for the next event."""
    chart = Driven({"a": {"on": {"go": "b"}}, "b": END}).when("come")
    assert (chart.active, chart.ignored) == (atoms("a"), ["come"])


def test_an_eventless_guard_sees_an_event_that_no_transition_took() -> None:
    """D, mainEventLoop: `_event` is set, nothing is enabled by it, and eventless transitions are looked at again."""
    chart = Driven({"a": {"always": {"target": "b", "if": "event.name == 'go'"}}, "b": END})
    assert chart.active == atoms("a")
    assert chart.when("stay").active == atoms("a")
    assert chart.when("go").active == atoms("b")
    assert chart.last.ignored == ["go"]


def test_a_chart_that_never_comes_to_rest_fails_by_name() -> None:
    """3.13 asks for macrosteps that end; a bound of 1,000 microsteps says when one does not."""
    chart = Driven({"a": {"on": {"go": "b"}}, "b": {"always": "c"}, "c": {"always": "b"}}).when("go")
    assert chart.last.failed is not None
    assert chart.last.failed.type == "Unstable"
    assert "goes round through b, c" in chart.last.failed.message


# Which transitions are taken


def test_an_inner_state_takes_an_event_before_the_states_around_it() -> None:
    """3.13: a transition is optimally enabled if no transition of a descendant is."""
    a = {"on": {"go": "wrong"}, "states": {"b": {"on": {"go": "c"}}, "c": {}}}
    assert Driven({"a": a, "wrong": {}}).when("go").active == atoms("a.c")


def test_a_state_around_takes_what_the_inner_guard_refuses() -> None:
    """D, selectTransitions: the ancestors are asked in turn until a guard holds."""
    a = {"on": {"go": "right"}, "states": {"b": {"on": {"go": {"target": "a.c", "if": False}}}, "c": {}}}
    assert Driven({"a": a, "right": {}}).when("go").active == atoms("right")


def test_the_first_transition_in_document_order_whose_guard_holds_is_taken() -> None:
    """3.13, D: `for t in s.transition.sort(documentOrder)`."""
    ways = [{"target": "b", "if": False}, {"target": "c", "if": True}, "d"]
    assert Driven({"a": {"on": {"go": ways}}, "b": {}, "c": {}, "d": {}}).when("go").active == atoms("c")


def test_a_wildcard_that_stands_first_wins_over_a_name_that_stands_second() -> None:
    """3.12.1, 3.13: document order decides, not how closely a descriptor fits."""
    assert Driven({"a": {"on": {"*": "b", "go": "c"}}, "b": {}, "c": {}}).when("go").active == atoms("b")


def test_what_is_for_one_event_alone_comes_before_a_wildcard() -> None:
    """3.13: document order decides, and `on_done` and what an invocation leads to stand before what is under `on`."""
    a = {"states": {"x": END}, "on": {"*": "wrong"}, "on_done": "right"}
    assert Driven({"a": a, "right": {}, "wrong": {}}).active == atoms("right")
    b = {"invoke": {"tool": "t", "on_done": "right", "on_error": "right"}, "on": {"*": "wrong"}}
    for event in ("done.invoke.b", "error.invoke.b"):
        assert Driven({"b": b, "right": {}, "wrong": {}}).when(event).active == atoms("right")


@pytest.mark.parametrize(
    ("descriptor", "taken", "not_taken"),
    [
        ("error", ["error", "error.send", "error.send.failed"], ["errors", "errors.my", "an.error"]),
        ("error.*", ["error", "error.send"], ["errors"]),
        ("error.", ["error", "error.send"], ["errors"]),
        ("error.send", ["error.send", "error.send.failed"], ["error", "error.sending"]),
        ("*", ["error", "any.thing"], []),
    ],
)
def test_a_descriptor_takes_the_events_that_begin_with_its_tokens(
    descriptor: str, taken: list[str], not_taken: list[str]
) -> None:
    """3.12.1: a descriptor matches if its tokens are a prefix of the name's; `.*` and `.` at its end add nothing."""
    for event in taken:
        assert Driven({"a": {"on": {descriptor: "b"}}, "b": {}}).when(event).active == atoms("b")
    assert Driven({"a": {"on": {descriptor: "b"}}, "b": {}}).when(*not_taken).active == atoms("a")


def both(left: Any, right: Any, **parts: Any) -> dict[str, Any]:
    """Return a parallel state with a region on each side, each in its state `at`, with others to go to."""
    regions = {side: {"states": {"at": at, "next": {}}} for side, at in (("left", left), ("right", right))}
    return {"type": "parallel", "states": regions, **parts}


def test_every_region_takes_an_event() -> None:
    """3.4, 3.13: the transitions of different regions are taken together, in document order."""
    go = {"on": {"go": to("left.next", "left")}}, {"on": {"go": to("right.next", "right")}}
    go[0]["on"]["go"]["target"], go[1]["on"]["go"]["target"] = "p.left.next", "p.right.next"
    chart = Driven({"p": both(*go)}, **LOG).when("go")
    assert chart.active == atoms("p.left.next", "p.right.next")
    assert chart.taken == [[("p.left.at", "go"), ("p.right.at", "go")]]
    assert chart.log == ["left", "right"]


def test_a_transition_out_of_a_parallel_state_preempts_those_of_later_regions() -> None:
    """3.13, D, removeConflictingTransitions: of two that leave the same state the earlier one stays."""
    chart = Driven({"p": both({"on": {"go": "out"}}, {"on": {"go": "p.right.next"}}), "out": {}}).when("go")
    assert (chart.active, chart.taken) == (atoms("out"), [[("p.left.at", "go")]])


def test_an_earlier_region_preempts_a_transition_out_of_the_parallel_state() -> None:
    """3.13, D: the same the other way round: what stands first goes on, and the parallel state is not left."""
    chart = Driven({"p": both({"on": {"go": "p.left.next"}}, {"on": {"go": "out"}}), "out": {}}).when("go")
    assert chart.active == atoms("p.left.next", "p.right.at")


def test_of_two_transitions_with_one_domain_the_first_is_taken() -> None:
    """3.13: both leave all that is active within the state around the parallel state."""
    p = both({"on": {"go": "top.a"}}, {"on": {"go": "top.b"}})
    chart = Driven({"top": {"states": {"p": p, "a": {}, "b": {}}}}).when("go")
    assert (chart.active, chart.taken) == (atoms("top.a"), [[("top.p.left.at", "go")]])


@pytest.mark.parametrize("first", [True, False])
def test_a_transition_out_of_a_region_meets_one_within_it(first: bool) -> None:
    """3.13: the exit sets of a transition within a region and of one around that region meet, whichever comes first."""
    out, stay = {"on": {"go": "top.p.right.next"}}, {"on": {"go": "top.p.right.r.y"}}
    r = {"states": {"x": stay, "y": {}}}
    p: dict[str, Any] = {
        "type": "parallel",
        "states": {"left": {"states": {"at": out}}, "right": {"states": {"r": r, "next": {}}}},
    }
    if not first:
        p["states"] = dict(reversed(p["states"].items()))
    chart = Driven({"top": {"states": {"p": p}}}).when("go")
    assert chart.active == atoms("top.p.left.at", "top.p.right.next" if first else "top.p.right.r.y")


def test_a_transition_of_an_inner_state_preempts_that_of_the_parallel_state_around_it() -> None:
    """D, removeConflictingTransitions: the transition of a descendant removes the one found for another region."""
    chart = Driven({"p": both({}, {"on": {"go": "p.right.next"}}, on={"go": "out"}), "out": {}}).when("go")
    assert (chart.active, chart.taken) == (atoms("p.left.at", "p.right.next"), [[("p.right.at", "go")]])


def test_a_transition_without_target_preempts_nothing() -> None:
    """3.13: two transitions conflict if their exit sets meet; that of a targetless one is empty."""
    left = {"on": {"go": {"do": write("left")}}}
    chart = Driven({"p": both(left, {"on": {"go": "out"}}), "out": {}}, **LOG).when("go")
    assert (chart.active, chart.log) == (atoms("out"), ["left"])


def test_a_transition_that_regions_share_is_taken_once() -> None:
    """D, selectTransitions: the enabled transitions are a set."""
    chart = Driven({"p": both({}, {}, on={"go": {"do": write("once")}})}, **LOG).when("go")
    assert chart.log == ["once"]


# What is left and entered, and in which order


def test_states_are_left_inner_and_later_ones_first_and_entered_outer_and_earlier_ones_first() -> None:
    """3.13: exit in reverse document order with children before parents, then content, then entry in document order."""
    p = {
        "type": "parallel",
        "states": {"l": {"states": {"x": {}}}, "r": {"states": {"y": {}}}},
        "on": {"go": to("q", "go")},
    }
    q = {"type": "parallel", "states": {"l": {"states": {"x": {}}}, "r": {"states": {"y": {}}}}}
    chart = Driven(logged({"p": p, "q": q}), **LOG).when("go")
    inward = ["p", "p.l", "p.l.x", "p.r", "p.r.y"]
    left = [f"-{path}" for path in reversed(inward)]
    assert chart.log == [
        *(f"+{path}" for path in inward),
        *left,
        "go",
        *(f"+{path}".replace("p", "q") for path in inward),
    ]
    assert chart.exited == list(reversed(inward))


def test_exits_of_all_regions_come_before_the_content_of_any_transition() -> None:
    """3.13: all states are exited, then all content is executed, then all states are entered."""
    sides = {
        "l": {"a": {"on": {"go": to("p.l.b", "l")}}, "b": {}},
        "r": {"a": {"on": {"go": to("p.r.b", "r")}}, "b": {}},
    }
    p = {"type": "parallel", "states": {side: {"states": states} for side, states in sides.items()}}
    chart = Driven(logged({"p": p}), **LOG).when("go")
    assert chart.log[5:] == ["-p.r.a", "-p.l.a", "l", "r", "+p.l.b", "+p.r.b"]


def test_the_least_common_compound_ancestor_is_not_left() -> None:
    """3.13, D, findLCCA: only what lies within the innermost compound state around source and target is left."""
    a = {"states": {"b": {"states": {"x": {"on": {"go": "y"}}}}, "c": {"states": {"y": {}}}}}
    chart = Driven({"a": a}).when("go")
    assert (chart.exited, chart.entered) == (["a.b.x", "a.b"], ["a.c", "a.c.y"])


def test_a_transition_between_regions_leaves_and_enters_the_parallel_state() -> None:
    """3.13, D, findLCCA: a parallel state is no compound ancestor, so all its regions are left and entered again."""
    chart = Driven({"top": {"states": {"p": both({"on": {"go": "top.p.right.next"}}, {})}}}).when("go")
    assert chart.active == atoms("top.p.left.at", "top.p.right.next")
    assert set(chart.exited) == {f"top.p{each}" for each in ("", ".left", ".left.at", ".right", ".right.at")}


def test_a_self_transition_leaves_and_enters_its_state() -> None:
    """3.5: an external transition leaves its source even where that is the target."""
    assert Driven({"a": {"on": {"go": "a"}}}).when("go").exited == ["a"]


@pytest.mark.parametrize(("internal", "left"), [(False, ["a.b", "a"]), (True, ["a.b"])])
def test_an_internal_transition_into_its_source_does_not_leave_it(internal: bool, left: list[str]) -> None:
    """3.5, D, getTransitionDomain: the domain of an internal transition of a compound state is that state."""
    chart = Driven({"a": {"states": {"b": {}, "c": {}}, "on": {"go": {"target": "c", "internal": internal}}}})
    assert (chart.when("go").active, chart.exited) == (atoms("a.c"), left)


def test_an_internal_transition_that_leads_out_of_its_source_is_external() -> None:
    """3.5: type internal counts only where all targets are proper descendants of the source."""
    chart = Driven({"a": {"states": {"b": {}}, "on": {"go": {"target": "a", "internal": True}}}}).when("go")
    assert chart.exited == ["a.b", "a"]


def test_an_internal_transition_of_a_parallel_state_is_external() -> None:
    """3.5, D, getTransitionDomain: the source of an internal transition is a compound state."""
    on = {"go": {"target": "top.p.left.next", "internal": True}}
    chart = Driven({"top": {"states": {"p": both({}, {}, on=on)}}}).when("go")
    assert "top.p" in chart.exited
    assert chart.active == atoms("top.p.left.next", "top.p.right.at")


def test_a_transition_without_target_leaves_and_enters_nothing() -> None:
    """3.5: its content is executed and the configuration does not change."""
    chart = Driven({"a": {"on": {"go": {"do": write("done")}}}}, **LOG).when("go")
    assert (chart.exited, chart.entered, chart.log) == ([], [], ["done"])


def test_a_transition_may_lead_into_several_regions() -> None:
    """3.5, D, computeEntrySet: named states are entered, other regions by their default."""
    regions: dict[str, Any] = {name: {"states": {"one": {}, "two": {}}} for name in ("x", "y", "z")}
    chart = Driven(
        {"a": {"on": {"go": {"target": ["p.x.two", "p.z.two"]}}}, "p": {"type": "parallel", "states": regions}}
    ).when("go")
    assert chart.active == atoms("p.x.two", "p.y.one", "p.z.two")
    assert chart.entered == ["p", "p.x", "p.x.two", "p.y", "p.y.one", "p.z", "p.z.two"]

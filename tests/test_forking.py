"""Forking, in the pure core: what is reused, what begins anew, what is left of the timers."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_workflows import Choose, favourable, possible, random_plan
from scenario import BOOM, EXECUTION, NOW, Given, output, plan_of, start, started

from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.forking import Point, fork
from perdure.actors.inputs import (
    AdmitExecution,
    DecideApproval,
    Input,
    Recover,
    ReportChild,
    ReportFailure,
    ReportSuccess,
    SignalExecution,
    TerminateExecution,
)
from perdure.actors.state import Started
from perdure.actors.transcripts import given_to
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.errors import BadInput
from perdure.events.entry import Entry, as_data
from perdure.events.vocabulary import Event, ExecutionForked, ExecutionStarted, NodeScheduled, TimerArmed
from perdure.scripts import as_reply
from perdure.testing import calls

LATER = NOW + timedelta(days=3)
SUPPORT: dict[str, Any] = {
    "classify": {"tool": "a"},
    "lookup": {"tool": "b", "needs": ["classify"], "compensate": {"tool": "c"}},
    "search": {"tool": "d", "with": {"for": "${{ nodes.classify.output }}"}},
    "draft": {"tool": "e", "needs": ["lookup", "search"]},
}


class Past:
    """An execution, entry by entry: each input that decides something makes one."""

    def __init__(self, plan: Plan, value: Any = None) -> None:
        self.plan = plan
        self.entries: list[list[Event]] = []
        self.state: Any = fold([])
        self.tell(start(plan, value))

    def tell(self, *inputs: Input) -> "Past":
        for each in inputs:
            events, _ = decide(self.plan, EXECUTION, self.state, each, NOW)
            self.state = fold(events, self.state)
            self.entries += [events] if events else []
        return self

    def point(self, at: int | None = None) -> Point:
        cut = self.entries[: len(self.entries) if at is None else at]
        state = fold(event for events in cut for event in events)
        assert isinstance(state, Started)
        past = [as_data(Entry(f"e{n}", n, "", NOW, events)) for n, events in enumerate(cut, 1)]
        return Point(EXECUTION, len(cut), NOW, state, past)

    def fork(
        self, at: int | None = None, plan: Plan | None = None, value: Any = None, nodes: tuple[str, ...] = ()
    ) -> Given:
        plan = plan or self.plan
        return Given(plan, *fork(plan, self.plan, "new", started(plan, value), self.point(at), nodes, LATER))


def done(path: str, value: Any = None) -> ReportSuccess:
    return ReportSuccess(path, 1, value)


def begun(given_: Given) -> list[str]:
    """Return the calls that are made when a host takes the fork up."""
    given_.when(Recover())
    return sorted(given_.now.running)


def whole() -> Past:
    return Past(plan_of(SUPPORT)).tell(*map(done, ("classify", "lookup", "search", "draft")))


def test_a_fork_begins_where_the_past_was_and_calls_only_what_follows() -> None:
    past = Past(plan_of(SUPPORT)).tell(done("classify"), done("lookup"))
    assert begun(past.fork()) == ["search"]
    assert begun(past.fork(at=2)) == ["lookup", "search"]
    assert begun(past.fork(at=1)) == ["classify"]


@pytest.mark.parametrize(
    ("node", "again"),
    [
        ("classify", ["classify"]),
        ("lookup", ["lookup"]),
        ("search", ["search"]),
        ("draft", ["draft"]),
    ],
)
def test_a_fork_from_a_node_begins_it_and_what_depends_on_it_anew_and_reuses_the_rest(
    node: str, again: list[str]
) -> None:
    forked = whole().fork(nodes=(node,))
    kept = {"classify", "lookup", "search", "draft"} - set(forked.now.nodes)
    assert kept == {"classify": {"classify", "lookup", "search", "draft"}}.get(node, {node, "draft"})
    assert begun(forked) == again


def test_what_ran_is_run_again_as_its_first_attempt_and_is_not_counted_as_lost() -> None:
    forked = Past(plan_of(SUPPORT)).fork()
    forked.when(Recover())
    assert [type(event) for event in forked.events] == [NodeScheduled]
    assert forked.now.running["classify"].resumed == 0


def test_the_calls_of_a_fork_read_the_new_input_and_what_was_reused_keeps_its_output() -> None:
    plan = plan_of(
        {"a": {"tool": "a"}, "b": {"tool": "b", "with": {"x": "${{ input }}", "y": "${{ nodes.a.output }}"}}}
    )
    forked = Past(plan, 1).tell(done("a", "A")).fork(value=2)
    forked.when(Recover())
    assert forked.now.running["b"].input == {"x": 2, "y": "A"}
    assert forked.now.nodes["a"].reused


def test_a_changed_definition_goes_on_with_what_it_still_has() -> None:
    past = Past(plan_of(SUPPORT)).tell(done("classify"), done("lookup"))
    changed = {**SUPPORT, "search": {"tool": "z", "needs": ["classify"]}, "more": {"tool": "y", "needs": ["lookup"]}}
    assert begun(past.fork(plan=plan_of(changed))) == ["more", "search"]
    without = {name: node for name, node in SUPPORT.items() if name not in ("lookup", "draft")}
    assert set(past.fork(plan=plan_of(without)).now.nodes) == {"classify"}


def test_an_execution_that_failed_goes_on_from_what_failed() -> None:
    plan = plan_of({"a": {"tool": "a"}, "b": {"tool": "b", "needs": ["a"]}})
    past = Past(plan).tell(done("a", 1), ReportFailure("b", 1, BOOM))
    forked = past.fork()
    assert begun(forked) == ["b"]
    assert output(forked.when(done("b", 2))) == {"b": 2}


def test_what_was_undone_is_done_again() -> None:
    plan = plan_of({"a": {"tool": "a", "compensate": {"tool": "u"}}, "b": {"tool": "b", "needs": ["a"]}})
    past = Past(plan).tell(done("a"), ReportFailure("b", 1, BOOM), done("a~undo"))
    assert begun(past.fork()) == ["a"]
    assert begun(past.fork(at=2)) == ["b"]


def test_a_fork_undoes_what_it_did_itself_and_nothing_of_the_past() -> None:
    undo = {"compensate": {"tool": "u"}}
    plan = plan_of({"a": {"tool": "a", **undo}, "b": {"tool": "b", "needs": ["a"], **undo},
                    "c": {"tool": "c", "needs": ["b"]}})  # fmt: skip
    forked = Past(plan).tell(done("a")).fork()
    forked.when(Recover(), done("b"), ReportFailure("c", 1, BOOM))
    assert list(forked.now.running) == ["b~undo"]
    forked.when(done("b~undo"))
    assert forked.now.status == "failed"
    assert forked.now.nodes["a"].status == "succeeded"


def test_items_of_a_foreach_that_were_done_are_reused() -> None:
    plan = plan_of({"all": {"foreach": {"items": "[1, 2, 3]", "as": "item"}, "do": {"one": {"tool": "t"}}}})
    past = Past(plan).tell(done("all[0]/one", "first"), done("all[2]/one", "third"))
    forked = past.fork()
    assert begun(forked) == ["all[1]/one"]
    assert [each["one"] for each in output(forked.when(done("all[1]/one", "second")))["all"]] == [
        "first", "second", "third",
    ]  # fmt: skip


def test_an_open_node_of_another_making_begins_anew() -> None:
    def body(items: str) -> Plan:
        return plan_of({"all": {"foreach": {"items": items, "as": "item"}, "do": {"one": {"tool": "t"}}}})

    past = Past(body("[1, 2]")).tell(done("all[0]/one"))
    assert begun(past.fork(plan=body("[1, 2, 3]"))) == ["all[0]/one", "all[1]/one", "all[2]/one"]


def test_approvals_are_asked_for_again_and_signals_that_nobody_took_are_kept() -> None:
    plan = plan_of({
        "ok": {"approval": {"title": "Well?"}}, "go": {"wait": {"signal": "go"}, "needs": ["ok"]},
    })  # fmt: skip
    forked = Past(plan).tell(SignalExecution("s", EXECUTION, "go", 7)).fork()
    forked.when(Recover())
    assert list(forked.now.waiting) == ["ok"]
    forked.when(DecideApproval("d", "new", "ok", approved=True))
    assert output(forked) == {"go": 7}


def test_a_child_under_way_is_asked_for_anew_and_one_that_ended_is_not_the_forks_to_undo() -> None:
    plan = plan_of({"one": {"workflow": "w"}, "two": {"workflow": "w", "needs": ["one"]}})
    past = Past(plan)
    first = past.state.nodes["one"].child
    past.tell(ReportChild("r", EXECUTION, first, 1))
    forked = past.fork()
    assert forked.now.nodes["one"].child == ""
    forked.when(Recover())
    assert first not in forked.now.children
    assert forked.now.nodes["two"].status == "waiting"
    forked.when(ReportChild("r", "new", forked.now.nodes["two"].child, error=BOOM))
    assert forked.now.status == "failed"


def test_an_end_is_taken_back_and_with_nothing_to_do_anew_the_output_is_made_again() -> None:
    plan = plan_of({"a": {"tool": "a"}}, output="${{ [input, nodes.a.output] }}")
    forked = Past(plan, 1).tell(done("a", "A")).fork(value=2)
    assert forked.now.status == "running"
    assert output(forked.when(Recover())) == [2, "A"]


def test_a_terminated_execution_can_be_forked() -> None:
    past = Past(plan_of(SUPPORT)).tell(done("classify"), TerminateExecution("t", EXECUTION))
    assert begun(past.fork()) == ["lookup", "search"]


def test_timers_have_as_long_left_as_they_had() -> None:
    loop = {"loop": {"max_iterations": 3}, "do": {"one": {"tool": "t"}}, "deadline": "1h"}
    forked = Past(plan_of({"again": loop}, timeout="2h")).fork()
    assert dict(forked.now.timers) == {
        "deadline/again": LATER + timedelta(hours=1),
        "execution/": LATER + timedelta(hours=2),
    }


CHART: dict[str, Any] = {
    "name": "chart", "kind": "statechart", "initial": "first",
    "states": {
        "first": {"invoke": {"tool": "t", "on_done": "second"}, "entry": [{"tool": "e"}], "after": {"1h": "last"}},
        "second": {"on": {"go": "last"}},
        "last": {"type": "final"},
    },
}  # fmt: skip


def chart_plan() -> Plan:
    return load(CHART).plan


def test_a_statechart_makes_the_calls_of_its_active_states_again_and_its_delays_go_on() -> None:
    forked = Past(chart_plan()).fork()
    assert forked.now.timers["after/first[1]/0"] == LATER + timedelta(hours=1)
    assert begun(forked) == ["first[1]/e", "first[1]/invoke"]
    forked.when(done("first[1]/e"), done("first[1]/invoke"))
    assert forked.now.main.chart is not None
    assert forked.now.main.chart.configuration == ("second",)


def test_a_statechart_that_ended_goes_on_from_any_of_its_entries() -> None:
    past = Past(chart_plan()).tell(done("first[1]/e"), done("first[1]/invoke"), SignalExecution("s", EXECUTION, "go"))
    assert past.state.status == "succeeded"
    forked = past.fork(at=3)
    assert begun(forked) == []
    forked.when(SignalExecution("s", "new", "go"))
    assert forked.now.status == "succeeded"


def test_a_definition_without_the_state_that_the_past_is_in_is_refused() -> None:
    other = {"name": "chart", "kind": "statechart", "initial": "x", "states": {"x": {"type": "final"}}}
    with pytest.raises(BadInput, match="in state 'first'"):
        Past(chart_plan()).fork(plan=load(other).plan)
    with pytest.raises(BadInput, match="has no nodes"):
        Past(chart_plan()).fork(nodes=("first",))
    with pytest.raises(BadInput, match="statechart"):
        Past(chart_plan()).fork(plan=plan_of(SUPPORT))


def agent_plan(model: str = "m") -> Plan:
    agent = {"model": model, "instructions": "Help.", "tools": ["look"]}
    return load(
        {"name": "flow", "agents": {"a": agent}, "nodes": {"n": {"agent": "a", "with": {"message": "hi"}}}}
    ).plan


def test_replies_and_calls_of_an_agent_up_to_the_point_are_not_paid_again_also_under_another_model() -> None:
    past = Past(agent_plan()).tell(done("n[0]/model", as_reply(calls(look={"x": 1}))), done("n[0]/look", {"found": 1}))
    assert begun(past.fork(at=1)) == ["n[0]/model"]
    assert begun(past.fork(at=2)) == ["n[0]/look"]
    forked = past.fork(plan=agent_plan("other"))
    assert begun(forked) == ["n[1]/model"]
    asked = given_to(forked.now, forked.plan, "n[1]/model", forked.now.running["n[1]/model"], lambda value, _: value)
    assert [each.text for each in asked.said] == ["hi", "", '{"found": 1}']
    assert output(forked.when(done("n[1]/model", as_reply("Done.")))) == {"n": "Done."}


def test_forking_from_a_node_that_is_not_there_says_which_was_meant() -> None:
    with pytest.raises(BadInput, match="did you mean 'classify'"):
        whole().fork(nodes=("clasify",))
    with pytest.raises(BadInput, match="what is within 'classify' begins anew with it"):
        whole().fork(nodes=("classify[0]/one",))


def test_a_handler_begins_anew_with_the_node_that_it_is_for() -> None:
    plan = plan_of(
        {"a": {"tool": "a", "catch": [{"then": "h"}]}, "h": {"tool": "h"}, "b": {"tool": "b", "needs": ["a"]}}
    )
    past = Past(plan).tell(ReportFailure("a", 1, BOOM), done("h", 1), done("b"))
    assert begun(past.fork(nodes=("b",))) == ["b"]
    assert begun(past.fork(nodes=("h",))) == ["a"]


def test_forks_of_forks_fold_the_whole_way() -> None:
    past = Past(plan_of(SUPPORT)).tell(done("classify", 1))
    second = Past(past.plan)
    second.entries = [fork(past.plan, past.plan, "b", started(past.plan), past.point(), (), NOW)]
    second.state = fold(second.entries[0])
    second.tell(Recover(), done("lookup", 2))
    third = second.fork()
    assert {path: node.output for path, node in third.now.nodes.items()} == {"classify": 1, "lookup": 2}
    assert begun(third) == ["search"]


def test_a_fork_whose_past_is_not_read_still_folds() -> None:
    """Statistics and retention read entries without what they left in blobs."""
    events = fork(plan_of(SUPPORT), plan_of(SUPPORT), "new", started(plan_of(SUPPORT)), whole().point(), (), NOW)
    slim = [msgspec.structs.replace(each, past=None) if isinstance(each, ExecutionForked) else each for each in events]
    state = fold(slim)
    assert isinstance(state, Started)
    assert state.status == "running"


def random_past(choose: Choose) -> Past | None:
    plan = random_plan(choose)
    if plan is None:
        return None
    past, told = Past(plan, {}), list[Input]()
    for _ in range(choose(30)):
        if past.state.outcome is not None:
            break
        told.append(possible(past.state, choose, told))
        past.tell(told[-1])
    return past


def come_to_the_end(forked: Given) -> None:
    forked.when(Recover())
    for _ in range(400):
        if forked.now.outcome is not None:
            return
        forked.when(TerminateExecution("x", "new") if forked.now.paused else favourable(forked.now)[0])
    raise AssertionError("it does not come to an end")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_whatever_the_past_was_a_fork_of_it_goes_on_to_an_end_without_doing_again_what_is_done(
    data: st.DataObject,
) -> None:
    def choose(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    past = random_past(choose)
    assume(past is not None)
    assert past is not None
    forked = past.fork(at=1 + choose(len(past.entries)))
    state = forked.now
    assert not [*state.running, *state.waiting, *state.children, *state.undoing, *state.ends]
    assert not {node.status for node in state.nodes.values()} & {"running", "waiting", "retrying", "stuck", "catching"}
    assert {node.status for node in state.main.nodes.values()} <= {"succeeded", "caught", "skipped", "open"}
    assert state.main.settled == sum(node.status != "open" for node in state.main.nodes.values())
    reused = {path for path, node in state.main.nodes.items() if node.reused}
    come_to_the_end(forked)
    called = {each.node for each in forked.events if isinstance(each, NodeScheduled)}
    assert not called & (reused | {f"{path}~undo" for path in reused})


def test_a_fork_asks_the_limits_of_its_workflow_before_it_goes_on() -> None:
    plan = plan_of(SUPPORT, concurrency={"limit": 1})
    past = Past(plan)
    past.tell(admitted(past.state), done("classify"), done("lookup"))
    forked = past.fork()
    assert forked.now.status == "queued"
    assert begun(forked) == []
    forked.when(admitted(forked.now))
    assert list(forked.now.running) == ["search"]


def admitted(state: Started) -> AdmitExecution:
    assert state.queued is not None
    return AdmitExecution("a", EXECUTION, state.queued.limit, EXECUTION)


def test_the_events_of_a_fork_are_a_start_the_past_and_its_timers() -> None:
    events = fork(plan_of(SUPPORT, timeout="1h"), plan_of(SUPPORT), "new", started(plan_of(SUPPORT)),
                  whole().point(), (), NOW)  # fmt: skip
    assert [type(event) for event in events] == [ExecutionStarted, ExecutionForked, TimerArmed]

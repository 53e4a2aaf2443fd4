"""Properties over random graphs, outcomes and crashes: what must hold whatever happens."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import EXECUTION, NOW, plan_of, start

from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.inputs import FireTimer, Input, Recover, ReportFailure, ReportLoss, ReportSuccess
from perdure.actors.state import INITIAL, ExecutionState, Started
from perdure.definitions.plan import Plan
from perdure.events.vocabulary import Error, Event, NodeCancelled, NodeFailed, NodeScheduled, NodeSkipped, NodeSucceeded


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 8))
    nodes: dict[str, Any] = {}
    for number in range(count):
        needs = draw(st.lists(st.sampled_from(range(number)), unique=True, max_size=3)) if number else []
        node: dict[str, Any] = {"needs": [f"n{need}" for need in needs]}
        kind = draw(st.sampled_from(["tool", "tool", "set"]))
        node[kind] = "t" if kind == "tool" else number
        if kind == "tool" and draw(st.booleans()):
            node["retry"] = {"attempts": draw(st.integers(1, 3))}
        if draw(st.integers(0, 4)) == 0:
            node["if"] = draw(st.booleans())
        nodes[f"n{number}"] = node
    return plan_of(nodes)


def possible(state: ExecutionState, draw: st.DataObject) -> Input:
    """Draw something that could happen now: mostly what is due, sometimes late, doubled or out of place."""
    if not isinstance(state, Started) or draw.draw(st.integers(0, 9)) == 0:
        name, attempt = draw.draw(st.sampled_from(["n0", "n1", "n2"])), draw.draw(st.integers(1, 3))
        strange: list[Input] = [ReportSuccess(name, attempt), ReportLoss(name, attempt), Recover()]
        return draw.draw(st.sampled_from(strange))
    choices: list[Input] = [FireTimer(f"t-{timer}", EXECUTION, timer, due) for timer, due in state.timers.items()]
    for name, node in state.running.items():
        choices += [
            ReportSuccess(name, node.attempt, name),
            ReportFailure(name, node.attempt, Error("Boom", "")),
            ReportLoss(name, node.attempt),
        ]
    return draw.draw(st.sampled_from(choices)) if choices else Recover()


def play(plan: Plan, data: st.DataObject, steps: int = 40) -> tuple[list[Event], ExecutionState]:
    events: list[Event] = []
    state = INITIAL
    for given_input in [start(plan)]:
        following = decide(plan, EXECUTION, state, given_input, NOW)
        events, state = events + following, fold(following, state)
    for _ in range(steps):
        if isinstance(state, Started) and state.outcome is not None:
            break
        following = decide(plan, EXECUTION, state, possible(state, data), NOW)
        events, state = events + following, fold(following, state)
    return events, state


@settings(deadline=None)
@given(plans(), st.data())
def test_replayed_state_equals_live_state(plan: Plan, data: st.DataObject) -> None:
    events, state = play(plan, data)
    assert fold(events) == state


@settings(deadline=None)
@given(plans(), st.data())
def test_no_node_starts_before_its_needs_are_settled_and_each_succeeds_at_most_once(
    plan: Plan, data: st.DataObject
) -> None:
    events, _ = play(plan, data)
    settled: set[str] = set()
    for event in events:
        if isinstance(event, NodeScheduled):
            assert set(plan.main.nodes[event.node].needs) <= settled
        if isinstance(event, NodeSucceeded):
            assert event.node not in settled
        if isinstance(event, NodeSucceeded | NodeSkipped | NodeFailed | NodeCancelled):
            settled.add(event.node)


@settings(deadline=None)
@given(plans(), st.data())
def test_an_execution_is_never_stuck(plan: Plan, data: st.DataObject) -> None:
    """Whatever happened so far: either it has ended, or something runs, or a timer is armed."""
    _, state = play(plan, data)
    assert isinstance(state, Started)
    assert state.outcome is not None or state.running or state.timers


@settings(deadline=None)
@given(plans(), st.data())
def test_an_ended_execution_leaves_nothing_behind(plan: Plan, data: st.DataObject) -> None:
    _, state = play(plan, data, steps=200)
    assert isinstance(state, Started)
    if state.outcome is not None:
        assert not state.running
        assert not state.timers
        assert all(node.status not in ("running", "retrying") for node in state.nodes.values())
    if state.status == "succeeded":
        assert set(state.nodes) == set(plan.main.nodes)
        assert state.main.settled == len(plan.main.nodes)

"""What changed between two states: the same whether all of both is looked at, or only what they do not share."""

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_workflows import possible, random_plan
from scenario import EXECUTION, NOW, start

from perdure.actors.decisions import decide
from perdure.actors.described import changes, described, differences
from perdure.actors.inputs import Input, SignalExecution
from perdure.actors.state import INITIAL, ExecutionState, Started
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan


def states_of(plan: Plan, inputs: list[Input]) -> list[ExecutionState]:
    states: list[ExecutionState] = [INITIAL]
    for each in inputs:
        states.append(decide(plan, EXECUTION, states[-1], each, NOW)[1])
    return states


def hold(states: list[ExecutionState], one: int, other: int) -> None:
    whole = differences(described(EXECUTION, states[one]), described(EXECUTION, states[other]))
    assert sorted(changes(EXECUTION, states[one], states[other]), key=repr) == sorted(whole, key=repr)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_changes_are_the_differences_of_all_that_there_is(data: st.DataObject) -> None:
    def choose(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    plan = random_plan(choose)
    assume(plan is not None)
    assert plan is not None
    states, told = states_of(plan, [start(plan, {})]), list[Input]()
    for _ in range(choose(20)):
        state = states[-1]
        assert isinstance(state, Started)
        if state.outcome is not None:
            break
        told.append(possible(state, choose, told))
        states.append(decide(plan, EXECUTION, state, told[-1], NOW)[1])
    hold(states, choose(len(states)), choose(len(states)))
    hold(states, len(states) - 2, len(states) - 1)


CHART: dict[str, Any] = {
    "name": "flow",
    "nodes": {
        "door": {
            "statechart": {
                "initial": "shut",
                "states": {"shut": {"on": {"open": "wide"}}, "wide": {"on": {"go": "done"}}, "done": {"type": "final"}},
            }
        },
        "then": {"tool": "t", "needs": ["door"]},
    },
}


def test_states_of_a_chart_within_a_node_come_and_go_with_it() -> None:
    plan = load(CHART).plan
    inputs: list[Input] = [start(plan), *(SignalExecution(each, EXECUTION, each) for each in ("open", "go"))]
    states = states_of(plan, inputs)
    for one in range(len(states)):
        for other in range(len(states)):
            hold(states, one, other)
    told = {each.place: (each.before, each.after) for each in changes(EXECUTION, states[2], states[3])}
    assert told["states"] == (["door/chart/wide"], None)

"""Random statecharts go the same way here and in python-statemachine 3.2, an independent interpreter of SCXML.

What is compared after every event: the configuration, and the order in which states were left and entered and content
was executed. How a chart is written for the other one stands in `chart_as_scxml`, what had to be mended in it in
`other_interpreter`. Charts that cannot be compared are left out and counted by reason; where the two go different ways
the Recommendation was asked, and it was the other one that was wrong:

- "several initial states": it enters each state of the chart's `initial` as by a transition of its own, so that a
  region is entered both by its default and by the named state: a configuration with two children of a compound state.
  By D (interpret, enterStates, computeEntrySet) and 3.11 it is one transition with several targets.
- "a deep history from within": where a transition leads to a deep history of a state that its source lies in, states
  around what is remembered are entered though they were not left. The text of D (addDescendantStatesToEnter) says so
  too, and breaks 3.13, by which all that a transition enters lies within its domain: content of entry runs twice
  without an exit, and a region may come into two states at once. It also remembers compound states in deep histories,
  where 3.10 says atomic ones, and so leaves more.
- "a parallel state at the top is done": it stops there, where by 3.7 and D (enterStates) only a final state that is a
  child of the whole chart ends it.
"""

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from chart_as_scxml import comparable, id_of
from chart_steps import Driven
from other_interpreter import Other
from random_charts import EVENTS, random_chart

from perdure.actors.chart_sets import Sets
from perdure.definitions.chart_plan import PlanChart, PlanState
from perdure.events.vocabulary import Taken

CHARTS = 100
"""Random charts: what 15 seconds are enough for, with room to spare."""

AT_LEAST = 0.7
"""The part of the charts that must be comparable."""


REASONS = {"several initial states", "a deep history from within", "a parallel state at the top is done"}


class LeftOut(Exception):
    """A chart that cannot be compared, with the reason."""


def compare(rng: Random, chart: Mapping[str, Any]) -> int:
    """Let a chart run in both; return the number of transitions that were taken, or raise LeftOut."""
    if len(chart.get("initial", [])) > 1:
        raise LeftOut("several initial states")
    ours = Driven(chart["states"], **{key: chart[key] for key in ("context", "initial") if key in chart})
    theirs, events = Other(chart, list(ours.plan.states)), list[str]()
    while True:
        if any(is_done_at_top(ours.plan.states[path], ours) for path in ours.state.configuration):
            raise LeftOut("a parallel state at the top is done")
        if any(leads_back(ours.plan, way) for micro in ours.last.steps for way in micro.taken):
            raise LeftOut("a deep history from within")
        assert {id_of(path) for path in ours.state.configuration} == theirs.active, events
        assert ours.log == theirs.log, events
        if ours.state.ended or len(events) == 8:
            return sum(len(micro.taken) for step in ours.steps for micro in step.steps)
        events.append(rng.choice(EVENTS))
        ours.when(events[-1])
        theirs.send(events[-1])


def is_done_at_top(state: PlanState, chart: Driven) -> bool:
    active = {chart.plan.states[path] for path in chart.state.configuration}
    return state.parent is None and state.kind == "parallel" and Sets(active, lambda _: ()).is_done(state)


def leads_back(plan: PlanChart, way: Taken) -> bool:
    """Say whether a transition leads to a deep history of a state that its source lies in."""
    targets = (plan.states[path] for path in way.targets)
    return any(
        each.kind == "history" and each.deep and plan.states[way.source].lies_in(each.parent) for each in targets
    )


def test_random_charts_go_the_same_way_in_an_independent_interpreter() -> None:
    left_out, taken = Counter[str](), list[int]()
    for seed in range(CHARTS):
        rng = Random(seed)
        chart = comparable(random_chart(rng))
        try:
            taken.append(compare(rng, chart))
        except LeftOut as reason:
            left_out[str(reason)] += 1
    assert set(left_out) <= REASONS
    assert len(taken) >= AT_LEAST * CHARTS, left_out
    assert sum(taken) > 10 * len(taken)  # they do go somewhere

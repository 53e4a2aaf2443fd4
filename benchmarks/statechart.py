"""How long a macrostep takes in the pure step of statecharts: python -m benchmarks.statechart

The chart has 200 states: 6 regions side by side, each with 4 levels of states within each other. An event is taken by
all regions, by one of them, by the state at the top, or by none.
"""

import statistics
import sys
import time
from datetime import UTC, datetime
from typing import Any

from perdure.actors import statechart
from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.actors.macrostep import Macrostep, Surroundings
from perdure.definitions.chart_plan import PlanChart, compile_chart
from perdure.definitions.states import Statechart

LIMIT = 200
"""Microseconds that a macrostep may take at the median."""

ROUNDS = 2000

AROUND = Surroundings({"input": None, "execution": {"id": "x"}}, datetime(2026, 1, 1, tzinfo=UTC), "seed")


def region(number: int) -> dict[str, Any]:
    """Return a region of 33 states: 2 groups of 5 boxes, each with 2 leaves, and what leads from one to another."""
    groups = {f"g{number}_{group}": {"states": boxes(number, group)} for group in range(2)}
    return {"states": groups}


def boxes(number: int, group: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for box in range(5):
        name = f"b{number}_{group}_{box}"
        turn = {"target": f"{name}_1", "do": {"set": {"n": "${{ context.n + 1 }}"}}}
        back = {"target": f"b{number}_{(group + 1) % 2}_{box}_0", "if": "context.n >= 0"}
        leaves = {f"{name}_0": {"on": {"all": turn, f"only{number}": f"{name}_1"}},
                  f"{name}_1": {"on": {"all": back, f"only{number}": f"{name}_0"}}}  # fmt: skip
        made[name] = {"states": leaves, "on": {"next": f"b{number}_{group}_{(box + 1) % 5}"}}
    return made


def chart() -> PlanChart:
    work = {"type": "parallel", "states": {f"r{number}": region(number) for number in range(6)}, "on": {"out": "rest"}}
    states = {"work": work, "rest": {"on": {"out": "work"}}}
    return compile_chart(Statechart.model_validate({"context": {"n": 0}, "states": states}))


def state_after(state: ChartState, step: Macrostep) -> ChartState:
    active, entries = dict.fromkeys(state.configuration), state.entries
    for micro in step.steps:
        for path in micro.exited:
            active.pop(path)
        for path in micro.entered:
            active[path] = None
            entries = entries.set(path, entries.get(path, 0) + 1)
    return ChartState(tuple(active), entries, state.history, {**state.context, **step.context})


def median(plan: PlanChart, *events: str) -> tuple[float, int]:
    """Return the median of a macrostep in microseconds, and how many states the longest one leaves and enters."""
    state = state_after(ChartState(), statechart.begin(plan, AROUND))
    took, moved = list[float](), 0
    for number in range(ROUNDS):
        event = ChartEvent(events[number % len(events)])
        began = time.perf_counter()
        step = statechart.step(plan, state, event, AROUND)
        took.append((time.perf_counter() - began) * 1e6)
        if step is not None:
            moved = max(moved, sum(len(micro.exited) + len(micro.entered) for micro in step.steps))
            state = state_after(state, step)
    return statistics.median(took), moved


def main() -> int:
    plan = chart()
    print(f"{len(plan.states)} states")
    worst = 0.0
    for what, events in (("all regions", ["all"]), ("one region", ["only3"]), ("all regions, one level up", ["next"]),
                         ("in and out of everything", ["out"]), ("nothing", ["never"])):  # fmt: skip
        took, moved = median(plan, *events)
        print(f"{what:28} {took:8.1f} µs   {moved:3} states left and entered")
        worst = max(worst, took)
    print(f"the longest median: {worst:.1f} µs; the limit is {LIMIT} µs")
    return worst > LIMIT


if __name__ == "__main__":
    sys.exit(main())

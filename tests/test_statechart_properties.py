"""Properties of statecharts over random charts: what must hold whatever comes, crashes, or comes twice."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chart_steps import is_legal
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from immutables import Map
from random_charts import EVENTS, random_chart
from scenario import BOOM, EXECUTION, NOW, start

from perdure.actors.chart_state import ChartState
from perdure.actors.decisions import decide
from perdure.actors.evolve import fold
from perdure.actors.folded import Folded
from perdure.actors.inputs import (
    Command,
    FireTimer,
    Input,
    PauseExecution,
    ReportFailure,
    ReportSuccess,
    ResumeExecution,
    SignalExecution,
)
from perdure.actors.snapshot import pack, unpack
from perdure.actors.state import INITIAL, ExecutionState, Started
from perdure.definitions.model import Workflow
from perdure.definitions.plan import Plan, compile_plan
from perdure.events.vocabulary import Event, EventIgnored, MacrostepTaken

SEEDS = st.integers(0, 2**32 - 1)
PHASES = (Phase.reuse, Phase.generate)
"""A seed cannot be made smaller."""

INPUTS = 25
"""Inputs of a life, at most."""


def with_work(rng: Random, states: Mapping[str, Any]) -> dict[str, Any]:
    """Return states some of which have delays, invocations, calls and compensations too."""
    made = {name: dict(state) for name, state in states.items()}
    for state in made.values():
        if state.get("type") in ("final", "history"):
            continue
        state["states"] = with_work(rng, state.get("states", {}))
        if rng.random() < 0.3:
            state["after"] = {"1h": [{"do": [{"raise": "i.one"}]}], "2h": [{"do": [{"tool": "note"}]}]}
        if rng.random() < 0.3:
            state["invoke"] = [{"tool": "work", "on_done": [{"do": [{"raise": "i.two"}]}], "on_error": [{"do": []}]}]
        if rng.random() < 0.2:
            state["entry"] = [*state["entry"], {"tool": "note"}]
        if rng.random() < 0.2:
            state["compensate"] = {"tool": "undo"}
    return made


def plan_of(rng: Random) -> Plan:
    chart = random_chart(rng)
    chart["states"] = with_work(rng, chart["states"])
    return compile_plan(Workflow.model_validate(chart))


@dataclass
class Life:
    """An execution of a statechart: what came, what was decided on it, and whose commands were handled."""

    plan: Plan
    state: ExecutionState = INITIAL
    events: list[Event] = field(default_factory=list)
    handled: set[str] = field(default_factory=set)

    def take(self, given: Input) -> None:
        """Take an input as an actor does: a command that was handled before is not looked at again."""
        if getattr(given, "id", None) in self.handled:
            return
        events, _ = decide(self.plan, EXECUTION, self.state, given, NOW)
        self.events += events
        self.state = fold(events, self.state)
        if hasattr(given, "id"):
            self.handled.add(given.id)

    @property
    def now(self) -> Started:
        assert isinstance(self.state, Started)
        return self.state

    @property
    def chart(self) -> ChartState:
        assert self.now.main.chart is not None
        return self.now.main.chart


def some_input(rng: Random, life: Life, number: int) -> Input:
    """Return something that may come next: a signal, a report, a timer, a pause or its end."""
    state, choices = life.now, list[Input]()
    choices += [SignalExecution(f"s-{number}", EXECUTION, rng.choice(EVENTS))] * 3
    for path, node in state.running.items():
        choices += [ReportSuccess(path, node.attempt, number), ReportFailure(path, node.attempt, BOOM)]
    choices += [FireTimer(f"t-{number}", EXECUTION, timer, due) for timer, due in state.timers.items()]
    if state.paused or rng.random() < 0.1:
        choices.append((ResumeExecution if state.paused else PauseExecution)(f"p-{number}", EXECUTION))
    return rng.choice(choices)


def live(rng: Random, plan: Plan) -> tuple[Life, list[Input]]:
    """Return a life in calm, and what came in it."""
    life, inputs = Life(plan), list[Input]([start(plan)])
    life.take(inputs[0])
    check(life)
    while len(inputs) < INPUTS and life.now.outcome is None:
        inputs.append(some_input(rng, life, len(inputs)))
        life.take(inputs[-1])
        check(life)
    return life, inputs


def check(life: Life) -> None:
    """Check what always holds of where a chart stands."""
    plan = life.plan.main.chart
    assert plan is not None
    assert is_legal(plan, life.chart.configuration)
    assert_as_the_actions_saw_it(life.chart)
    ours = {timer for timer in life.now.timers if timer.startswith("after/")}
    assert all(is_of_an_active_entry(life.chart, timer.partition("/")[2]) for timer in ours)


def is_of_an_active_entry(chart: ChartState, path: str) -> bool:
    state, _, entry = path.rpartition("/")[0].removesuffix("]").rpartition("[")
    return chart.is_active(state, int(entry))


def assert_as_the_actions_saw_it(chart: ChartState) -> None:
    """Check the fold against what entry and exit wrote while the step went on."""
    log: list[str] = chart.context["log"]
    marks = [word for word in log if word[0] in "+-"]
    last = {word[1:]: word[0] for word in marks}
    entered = Counter(word[1:] for word in marks if word[0] == "+")
    top_end = {
        path for path in chart.configuration if chart.ended
    }  # it ran its exit, and stays what the chart ended in
    assert {path for path, mark in last.items() if mark == "+"} | top_end == set(chart.configuration)
    assert dict(chart.entries) == dict(entered)


@settings(deadline=None, max_examples=40, phases=PHASES)
@given(SEEDS)
def test_whatever_comes_the_configuration_is_legal_and_is_what_the_actions_saw(seed: int) -> None:
    rng = Random(seed)
    life, inputs = live(rng, plan_of(rng))
    assert fold(life.events) == life.state
    heard = sum(isinstance(event, MacrostepTaken | EventIgnored) for event in life.events)
    assert heard >= sum(isinstance(each, SignalExecution) for each in inputs) - len(life.chart.held)


@settings(deadline=None, max_examples=40, phases=PHASES)
@given(SEEDS, SEEDS)
def test_crashes_and_what_comes_twice_change_nothing(seed: int, trouble: int) -> None:
    rng = Random(seed)
    calm, inputs = live(rng, plan_of(rng))
    rough, chance = Life(calm.plan), Random(trouble)
    for number, each in enumerate(inputs):
        rough.take(each)
        repeated = [
            each for each in inputs[: number + 1] if isinstance(each, Command)
        ]  # a report dies with its process
        for again in chance.sample(repeated, chance.randint(0, min(3, len(repeated)))):
            rough.take(again)
        if chance.random() < 0.5:
            rough.state = recovered(rough.events) if chance.random() < 0.5 else thawed(rough)
    assert without_late_results(rough.events) == without_late_results(calm.events)
    assert rough.state == calm.state


def without_late_results(events: Iterable[Event]) -> list[Event]:
    """Return events without the records of results that came after their state was left: the second time they do."""
    return [each for each in events if not (isinstance(each, EventIgnored) and each.reason.endswith("left before"))]


def recovered(events: Iterable[Event]) -> ExecutionState:
    """Return the state as who comes after a crash has it: folded from the events."""
    return fold(list(events))


def thawed(life: Life) -> ExecutionState:
    """Return the state as read from a snapshot."""
    packed = pack(Folded(state=life.state, n=1, handled=Map(dict.fromkeys(life.handled))))
    assert packed is not None
    saved = unpack(packed)
    assert saved is not None
    assert saved[0].state == life.state
    return saved[0].state

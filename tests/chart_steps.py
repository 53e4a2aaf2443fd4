"""`chart(states).given(...).when("a", "b")`: how the pure step of statecharts is driven in tests."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Self

from perdure.actors import statechart
from perdure.actors.chart_fold import macrostep
from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.actors.macrostep import Macrostep, Surroundings
from perdure.actors.state import BodyState, Started
from perdure.definitions.chart import Chart
from perdure.definitions.chart_plan import PlanChart, compile_chart
from perdure.definitions.chart_rules import rule_findings
from perdure.definitions.states import Statechart
from perdure.events.vocabulary import ExecutionStarted, MacrostepTaken

AROUND = Surroundings({"input": None, "execution": {"id": "x-1"}}, datetime(2026, 1, 1, tzinfo=UTC), "seed")


def plan_of(states: dict[str, Any], **parts: Any) -> PlanChart:
    """Return the compiled chart of these states, some of which may be unreachable; `parts` are its further keys."""
    model = Statechart.model_validate({"states": states, **parts})
    assert [finding.message for finding in rule_findings(Chart(model))] == []
    return compile_chart(model)


class Driven:
    """A chart under way: what came, what happened, and where it stands, which only the fold says."""

    def __init__(self, states: dict[str, Any], **parts: Any) -> None:
        self.plan = plan_of(states, **parts)
        self.steps: list[Macrostep] = []
        self.ignored: list[str] = []
        self.state = ChartState()
        self._follow("", statechart.begin(self.plan, AROUND))

    def when(self, *events: str | ChartEvent) -> Self:
        """Let it take events, one after the other."""
        for each in events:
            event = each if isinstance(each, ChartEvent) else ChartEvent(each)
            step = statechart.step(self.plan, self.state, event, AROUND)
            if step is None:
                self.ignored.append(event.name)
            else:
                self._follow(event.name, step)
        return self

    def _follow(self, event: str, step: Macrostep) -> None:
        self.steps.append(step)
        if step.failed is None:
            self.state = folded(self.state, event, step)
            assert is_legal(self.plan, self.state.configuration), self.state.configuration

    @property
    def last(self) -> Macrostep:
        """What happened last."""
        return self.steps[-1]

    @property
    def active(self) -> set[str]:
        """The active states that have none within."""
        return {path for path in self.state.configuration if self.plan.states[path].is_atomic}

    @property
    def taken(self) -> list[list[tuple[str, str]]]:
        """The transitions of the last step: for each microstep their sources and what they were on."""
        return [[(each.source, each.on) for each in micro.taken] for micro in self.last.steps]

    @property
    def entered(self) -> list[str]:
        """What the last step entered, in order."""
        return [path for micro in self.last.steps for path in micro.entered]

    @property
    def exited(self) -> list[str]:
        """What the last step left, in order."""
        return [path for micro in self.last.steps for path in micro.exited]

    @property
    def log(self) -> list[str]:
        """What the chart's actions wrote into its context under `log`."""
        return list(self.state.context["log"])


def folded(state: ChartState, event: str, step: Macrostep) -> ChartState:
    """Return where a chart stands after the event that records a step."""
    taken = MacrostepTaken(
        "", event, steps=step.steps, context=step.context, history=step.history, ended=step.ended, output=step.output
    )
    return _chart_of(macrostep(_started(state), taken))


def _started(state: ChartState) -> Started:
    return Started(ExecutionStarted("chart", "digest", None, "0"), main=BodyState(chart=state))


def _chart_of(state: Started) -> ChartState:
    assert state.main.chart is not None
    return state.main.chart


def write(*words: str) -> list[dict[str, Any]]:
    """Return actions that each append a word to the log."""
    return [{"set": {"log": f"${{{{ context.log + ['{word}'] }}}}"}} for word in words]


def logged(states: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Return states that write `+path` when they are entered and `-path` when they are left."""
    made = {}
    for name, state in states.items():
        path = f"{at}{name}"
        made[name] = dict(state)
        if state.get("type") != "history":
            made[name] |= {"entry": [*write(f"+{path}"), *state.get("entry", [])]}
            made[name] |= {"exit": [*write(f"-{path}"), *state.get("exit", [])]} if state.get("type") != "final" else {}
        if "states" in state:
            made[name]["states"] = logged(state["states"], f"{path}.")
    return made


def atoms(*paths: str) -> set[str]:
    """Return a set of paths, as it reads best in a comparison."""
    return set(paths)


def is_legal(plan: PlanChart, configuration: Iterable[str]) -> bool:
    """Say whether a configuration is legal (SCXML 3.11)."""
    active = {plan.states[path] for path in configuration}
    if any(each.kind == "history" or (each.parent is not None and each.parent not in active) for each in active):
        return False
    if sum(each.parent is None for each in active) != 1:
        return False
    inner = {each: sum(child in active for child in each.children) for each in active}
    return all(inner[each] == {"compound": 1, "parallel": len(each.children)}.get(each.kind, 0) for each in active)

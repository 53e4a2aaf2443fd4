"""The step of a statechart: one event in, and what follows of it until nothing more does. Pure.

After the algorithm of SCXML (W3C Recommendation of 1 September 2015, appendix D), whose names the methods bear.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from perdure.actors.chart_sets import Sets
from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.actors.macrostep import Asked, Delay, Macrostep, Surroundings
from perdure.definitions.chart_plan import (
    DONE_STATE,
    ERROR_EXECUTION,
    PlanAction,
    PlanChart,
    PlanState,
    PlanTransition,
)
from perdure.definitions.durations import duration_in_bounds
from perdure.definitions.evaluation import CONFIGURATION
from perdure.definitions.expressions import MOMENT, Moment
from perdure.definitions.secret_references import pointers_in
from perdure.definitions.templates import Template, render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import Error, Microstep, Taken

MAX_MICROSTEPS = 1000
"""Microsteps after which a macrostep is taken to go round for ever."""

NEW = ChartState()
"""A chart that has not begun."""

BEGIN = ChartEvent("")
"""What expressions see as the event when a chart begins."""


def begin(chart: PlanChart, around: Surroundings, before: ChartState = NEW) -> Macrostep:
    """Enter a chart, and go on until nothing more follows. `before`: its entries so far, where it was undone."""
    step = _Step(chart, before, around, BEGIN)
    try:
        step.context = dict(step.render(chart.context) or {})
        step.out.context.update(step.context)
    except ExpressionError as error:
        step.out.failed = Error("ExpressionError", f"context: {error}")
        return step.out
    step.enter()
    return step.to_rest()


def step(chart: PlanChart, state: ChartState, event: ChartEvent, around: Surroundings) -> Macrostep | None:
    """Take an event that came from outside, and go on until nothing more follows; None where no transition takes it."""
    made = _Step(chart, state, around, event)
    enabled = made.select_transitions(event)
    if enabled:
        made.microstep(enabled)
        return made.to_rest()
    made.out.ignored.append(event.name)
    if made.internal or event.error is None:
        made.out.failed = event.error
        made.to_rest()  # a guard without an event may read this one; the error of a guard that failed may be taken
    return made.out if made.out.steps or made.out.failed is not None else None


def delays_again(chart: PlanChart, state: ChartState, around: Surroundings) -> Macrostep:
    """Return the delays of the active states, from now on."""
    made = _Step(chart, state, around, BEGIN)
    for each in sorted(made.configuration, key=_in_document):
        made.delay(each)
    return made.out


def takes(chart: PlanChart, state: ChartState, name: str) -> bool:
    """Say whether an active state has a transition for an event of this name, whatever its guard says."""
    tokens = tuple(name.split("."))
    return any(way.matches(tokens) for path in state.configuration for way in chart.states[path].transitions)


def accepts(chart: PlanChart, state: ChartState) -> list[str]:
    """Return the descriptors of the events that some active state has a transition for, inner states first."""
    found: dict[str, None] = {}
    for each in sorted((chart.states[path] for path in state.configuration), key=_in_document, reverse=True):
        for way in each.transitions:
            if way.trigger == "event" and not way.exact:
                found.update(dict.fromkeys(way.on.split()))
    return list(found)


class _Step:
    """A macrostep under way."""

    def __init__(self, chart: PlanChart, state: ChartState, around: Surroundings, event: ChartEvent) -> None:
        self.chart = chart
        self.configuration = {chart.states[path] for path in state.configuration}
        self.sets = Sets(self.configuration, self._remembered)
        self.context: dict[str, Any] = state.context
        self.internal: deque[ChartEvent] = deque()
        self.out = Macrostep()
        self._before = state
        self._entries: dict[str, int] = {}
        self._to_invoke: set[PlanState] = set()
        self._around = around
        self._event = event
        self._seen = event.as_data()
        self._evaluations = 0
        self._micro: Microstep

    # What follows of what: D, mainEventLoop and microstep

    def to_rest(self) -> Macrostep:
        """Take eventless transitions and events of the chart's own until there are none; then begin what is invoked."""
        out = self.out
        while not out.ended and out.failed is None:
            enabled = self.select_eventless_transitions()
            if not enabled:
                if not self.internal:
                    self.invoke()
                    if not self.internal:
                        break
                    continue
                event = self.internal.popleft()
                self._see(event)
                enabled = self.select_transitions(event)
                if not enabled:
                    out.ignored.append(event.name)
                    out.failed = event.error
                    continue
            if len(out.steps) >= MAX_MICROSTEPS:
                out.failed = Error("Unstable", f"the chart does not come to rest: {self._round()}")
                break
            self.microstep(enabled)
        if out.ended:
            self.exit_interpreter()
        return out

    def microstep(self, enabled: list[PlanTransition]) -> None:
        """Leave what the transitions leave, do what they do, enter what they enter (D: microstep)."""
        taken = [Taken(way.source.path, way.on, [each.path for each in way.targets], way.guard_text) for way in enabled]
        self._micro = Microstep(self._event.name, taken)
        self.out.steps.append(self._micro)
        self.exit(self.sets.exit_set(enabled))
        for way in enabled:
            self.execute(way.source, way.actions)
        self._enter({state for way in enabled if way.targets for state in self.sets.entry_set(way)})

    def enter(self) -> None:
        """Enter the initial states in a microstep of its own."""
        self._micro = Microstep()
        self.out.steps.append(self._micro)
        self._enter(self.sets.initial_set(self.chart.initial))

    # Which transitions are taken: D, selectTransitions and removeConflictingTransitions

    def select_transitions(self, event: ChartEvent) -> list[PlanTransition]:
        """Return the transitions that an event enables."""
        tokens = tuple(event.name.split("."))
        if event.timer is not None:
            path, _, number = event.timer
            return self._select(lambda state: state.path == path, lambda way: way.timer == number)
        return self._select(lambda state: bool(state.transitions), lambda way: way.matches(tokens))

    def select_eventless_transitions(self) -> list[PlanTransition]:
        """Return the transitions that need no event, and whose guards hold."""
        return self._select(lambda state: bool(state.eventless), None)

    def _select(
        self, concerned: Callable[[PlanState], bool], fits: Callable[[PlanTransition], bool] | None
    ) -> list[PlanTransition]:
        """Return the first fitting transition of each atomic state or the states around it, inner ones first."""
        enabled: dict[PlanTransition, None] = {}
        held: dict[PlanTransition, bool] = {}
        for atomic in sorted((each for each in self.configuration if each.is_atomic), key=_in_document):
            for state in (atomic, *atomic.ancestors):
                if not concerned(state):
                    continue
                listed = state.eventless if fits is None else state.transitions
                way = next((each for each in listed if (fits is None or fits(each)) and self._holds(each, held)), None)
                if way is not None:
                    enabled[way] = None
                    break
        return list(enabled) if len(enabled) < 2 else self.sets.without_conflicts(enabled)

    def _holds(self, way: PlanTransition, held: dict[PlanTransition, bool]) -> bool:
        """Evaluate a guard, once in a selection; one that fails does not hold, and raises an error (SCXML 5.9.1)."""
        if way.guard is None:
            return True
        if way not in held:
            try:
                value = self.render(way.guard)
            except ExpressionError as error:
                self._raise_error(way.source, error)
                value = False
            if not isinstance(value, bool):
                what = f"the guard '{way.guard_text}' gave {value!r}; a guard gives true or false"
                self._raise_error(way.source, ExpressionError(what))
            held[way] = value is True
        return held[way]

    # What is left and entered: D, exitStates and enterStates

    def _remembered(self, history: PlanState) -> list[PlanState]:
        before = self._before.history.get(history.path, ())
        return [self.chart.states[path] for path in self.out.history.get(history.path, before)]

    def exit(self, left: set[PlanState]) -> None:
        """Leave states, inner and later ones first; their histories remember what is active (D: exitStates)."""
        order = sorted(left, key=_in_document, reverse=True)
        for state in order:
            for history in state.histories:
                self.out.history[history.path] = self._to_remember(state, history)
        for state in order:
            self.execute(state, state.exit)
            self.configuration.discard(state)
            self._to_invoke.discard(state)
            self._micro.exited.append(state.path)
        gone = {state.path for state in order}
        self.out.delays = [each for each in self.out.delays if each.state not in gone]
        self.out.invokes = [each for each in self.out.invokes if each.state not in gone]

    def _to_remember(self, state: PlanState, history: PlanState) -> list[str]:
        found = (
            each
            for each in self.configuration
            if (each.is_atomic and each.lies_in(state) if history.deep else each.parent is state)
        )
        return [each.path for each in sorted(found, key=_in_document)]

    def _enter(self, entered: set[PlanState]) -> None:
        """Enter states, outer and earlier ones first (D: enterStates)."""
        for state in sorted(entered, key=_in_document):
            self.configuration.add(state)
            self._to_invoke.add(state)
            self._entries[state.path] = self._entry_of(state) + 1
            self._micro.entered.append(state.path)
            self.execute(state, state.entry)
            if state.kind == "final":
                self._reach_final(state)

    def _reach_final(self, state: PlanState) -> None:
        """Raise that what a final state stands in is done, and the parallel states right around that, or end.

        By SCXML 3.4 a parallel state is done when all within it is, and so may the parallel state be that it is a
        region of; the text of appendix D looks at one of them only.
        """
        parent = state.parent
        if parent is None:
            self.out.ended = True
            return
        data = self._rendered(state, state.output)
        self.internal.append(ChartEvent(f"{DONE_STATE}{parent.path}", data))
        around = parent.parent
        while around is not None and around.kind == "parallel" and self.sets.is_done(around):
            self.internal.append(ChartEvent(f"{DONE_STATE}{around.path}"))
            around = around.parent

    def exit_interpreter(self) -> None:
        """Do what is to be done on exit of the final state that the chart ends in (D: exitInterpreter)."""
        (end,) = self.configuration
        self.execute(end, end.exit)
        self.out.output = self._rendered(end, end.output)
        self.out.error = self._error_of(end)
        self.out.failed = next((event.error for event in self.internal if event.error is not None), None)

    # What is done on the way

    def execute(self, state: PlanState, actions: Iterable[PlanAction]) -> None:
        """Do actions in order; after one that cannot be evaluated the rest is left out (SCXML 4.10)."""
        try:
            for action in actions:
                given = self.render(action.given)
                if action.kind == "set":
                    self.context = {**self.context, **given}
                    self.out.context.update(given)
                elif action.kind == "raise":
                    self.internal.append(ChartEvent(action.name, given))
                else:
                    secrets = list(pointers_in(action.given))
                    self.out.calls.append(Asked(state.path, self._entry_of(state), action.name, given, secrets))
        except ExpressionError as error:
            self._raise_error(state, error)

    def invoke(self) -> None:
        """Begin what the states that were entered invoke, and the time until their delays (D: mainEventLoop)."""
        for state in sorted(self._to_invoke, key=_in_document):
            self.delay(state)
            for each in state.invokes:
                secrets = list(pointers_in(each.given))
                try:
                    asked = Asked(state.path, self._entry_of(state), each.call, self.render(each.given), secrets)
                except ExpressionError as error:
                    self._raise_error(state, error)
                else:
                    self.out.invokes.append(asked)
        self._to_invoke.clear()

    def delay(self, state: PlanState) -> None:
        """Ask for the timers of a state."""
        for number, delay in enumerate(state.delays):
            try:
                seconds = _seconds(self.render(delay))
            except ExpressionError as error:
                self._raise_error(state, error)
            else:
                self.out.delays.append(Delay(state.path, self._entry_of(state), number, seconds))

    def render(self, template: Template) -> Any:
        """Render a template on the chart's data as of now. Raises ExpressionError."""
        if template is None or isinstance(template, str | int | float | bool):
            return template
        self._evaluations += 1
        names = {
            **self._around.names,
            "context": self.context,
            "event": self._seen,
            CONFIGURATION: self._is_in,
            MOMENT: Moment(self._around.at, f"{self._around.seed}/{self._evaluations}"),
        }
        return render(template, names)

    def _rendered(self, state: PlanState, template: Template) -> Any:
        try:
            return self.render(template)
        except ExpressionError as error:
            self._raise_error(state, error)
            return None

    def _error_of(self, state: PlanState) -> Error | None:
        if state.error_type is None:
            return None
        given = self._rendered(state, state.error) or {}
        return Error(state.error_type, str(given.get("message", "")), given.get("data"))

    def _raise_error(self, state: PlanState, error: ExpressionError) -> None:
        what = Error("ExpressionError", f"state {state.path!r}: {error}")
        self.internal.append(ChartEvent(ERROR_EXECUTION, error=what))

    def _is_in(self, name: str) -> bool:
        path = self.chart.names.get(name, name)
        if path not in self.chart.states:
            raise ExpressionError(f"there is no state {name!r}")
        return self.chart.states[path] in self.configuration

    def _see(self, event: ChartEvent) -> None:
        self._event, self._seen = event, event.as_data()

    def _entry_of(self, state: PlanState) -> int:
        return self._entries.get(state.path, self._before.entries.get(state.path, 0))

    def _round(self) -> str:
        """Name the states that are entered again and again."""
        last = dict.fromkeys(path for each in self.out.steps[-20:] for path in each.entered)
        return f"after {MAX_MICROSTEPS} microsteps it goes round through {', '.join(last) or 'no state'}"


def _in_document(state: PlanState) -> int:
    return state.index


def _seconds(value: Any) -> float:
    try:
        return duration_in_bounds(value)
    except ValueError as error:
        raise ExpressionError(f"a delay: {error}") from None

"""The step of a statechart: one event in, and what follows of it until nothing more does. Pure.

After the algorithm of SCXML (W3C Recommendation of 1 September 2015, appendix D), whose names the methods bear.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.definitions.chart_plan import (
    DONE_STATE,
    ERROR_EXECUTION,
    PlanAction,
    PlanChart,
    PlanState,
    PlanTransition,
    domain_of,
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


@dataclass(frozen=True, slots=True)
class Asked:
    """A call or an invocation that a step asks for: of the state's entry of this number, with its input."""

    state: str
    entry: int
    name: str
    input: Any
    secrets: list[str]


@dataclass(frozen=True, slots=True)
class Delay:
    """A timer that a step asks for: the state's delay of this number, in seconds from now."""

    state: str
    entry: int
    number: int
    seconds: float


@dataclass(slots=True)
class Macrostep:
    """What happened in a step.

    context, history: what changed of them. ignored: events that no transition took. failed: an error that none took.
    ended: the chart came to a final state at the top, with this output, or the error that it is to fail with.
    """

    steps: list[Microstep] = field(default_factory=list)
    context: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[str]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    calls: list[Asked] = field(default_factory=list)
    invokes: list[Asked] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    failed: Error | None = None
    ended: bool = False
    output: Any = None
    error: Error | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What expressions may read beside the chart's own: these names, the time, and a seed that nothing else has."""

    names: Mapping[str, Any]
    at: datetime
    seed: str


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
                found[way.on] = None
    return list(found)


class _Step:
    """A macrostep under way."""

    def __init__(self, chart: PlanChart, state: ChartState, around: Surroundings, event: ChartEvent) -> None:
        self.chart = chart
        self.configuration = {chart.states[path] for path in state.configuration}
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
        self.exit(self.exit_set(enabled))
        for way in enabled:
            self.execute(way.source, way.actions)
        self._enter({state for way in enabled if way.targets for state in self.entry_set(way)})

    def enter(self) -> None:
        """Enter the initial states in a microstep of its own."""
        self._micro = Microstep()
        self.out.steps.append(self._micro)
        entered = set[PlanState]()
        self._add_targets(self.chart.initial, None, entered)
        self._enter(entered)

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
        return list(enabled) if len(enabled) < 2 else self._without_conflicts(enabled)

    def _without_conflicts(self, enabled: Iterable[PlanTransition]) -> list[PlanTransition]:
        """Drop transitions that leave a state that another one leaves: the inner, else the earlier one stays.

        There is such a state where the domain of one is that of the other or lies within it: what a domain holds of
        active states is left, and that is never nothing.
        """
        kept: list[PlanTransition] = []
        domains = {way: self._domain(way) for way in enabled if way.targets}
        for way in enabled:
            beaten = list[PlanTransition]()
            for other in kept if way.targets else ():
                if other.targets and _meet(domains[way], domains[other]):
                    if not way.source.lies_in(other.source):
                        break
                    beaten.append(other)
            else:
                kept = [other for other in kept if other not in beaten]
                kept.append(way)
        return kept

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

    # What is left and entered: D, computeExitSet, computeEntrySet, getTransitionDomain

    def exit_set(self, enabled: Iterable[PlanTransition]) -> set[PlanState]:
        """Return the active states that transitions leave."""
        left = set[PlanState]()
        for domain in {self._domain(way) for way in enabled if way.targets}:
            left.update(each for each in self.configuration if each.lies_in(domain))
        return left

    def _domain(self, way: PlanTransition) -> PlanState | None:
        """Return what all that a transition leaves and enters lies within (D: getTransitionDomain)."""
        return domain_of(way, self._effective(way.targets)) if way.to_history else way.domain

    def _effective(self, targets: Iterable[PlanState]) -> list[PlanState]:
        """Return targets with histories replaced by what they stand for (D: getEffectiveTargetStates)."""
        found: list[PlanState] = []
        for each in targets:
            found += [each] if each.kind != "history" else self._effective(self._remembered(each) or each.initial)
        return found

    def _remembered(self, history: PlanState) -> list[PlanState]:
        before = self._before.history.get(history.path, ())
        return [self.chart.states[path] for path in self.out.history.get(history.path, before)]

    def entry_set(self, way: PlanTransition) -> set[PlanState]:
        """Return the states that a transition enters; what it leaves and enters lies within its domain (SCXML 3.13).

        The text of appendix D goes beyond that where a deep history leads back into what was not left: it enters active
        states a second time, and the default of a region that is active.
        """
        domain, entered = self._domain(way), set[PlanState]()
        self._add_targets(way.targets, domain, entered)
        return {each for each in entered if each.lies_in(domain)}

    def _add_targets(self, targets: Iterable[PlanState], domain: PlanState | None, entered: set[PlanState]) -> None:
        """Add all that is entered for these targets (D: computeEntrySet)."""
        for each in targets:
            self._add_with_descendants(each, entered)
        for each in self._effective(targets):
            self._add_ancestors(each, domain, entered)

    def _add_with_descendants(self, state: PlanState, entered: set[PlanState]) -> None:
        """Add a state with what is entered within it (D: addDescendantStatesToEnter)."""
        if state.kind == "history":
            for each in (into := self._remembered(state) or list(state.initial)):
                self._add_with_descendants(each, entered)
            for each in into:
                self._add_ancestors(each, state.parent, entered)
            return
        entered.add(state)
        if state.kind == "compound":
            for each in state.initial:
                self._add_with_descendants(each, entered)
            for each in self._effective(state.initial):
                self._add_ancestors(each, state, entered)
        elif state.kind == "parallel":
            self._add_regions(state, entered)

    def _add_ancestors(self, state: PlanState, outer: PlanState | None, entered: set[PlanState]) -> None:
        """Add the states around a state up to an outer one, and their other regions (D: addAncestorStatesToEnter)."""
        for around in state.ancestors:
            if around is outer:
                return
            entered.add(around)
            if around.kind == "parallel":
                self._add_regions(around, entered)

    def _add_regions(self, state: PlanState, entered: set[PlanState]) -> None:
        for region in state.children:
            if not any(each is region or each.lies_in(region) for each in entered):
                self._add_with_descendants(region, entered)

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
        while around is not None and around.kind == "parallel" and self._is_done(around):
            self.internal.append(ChartEvent(f"{DONE_STATE}{around.path}"))
            around = around.parent

    def _is_done(self, state: PlanState) -> bool:
        """Say whether a state has come to its end (D: isInFinalState)."""
        if state.kind == "compound":
            return any(each.kind == "final" and each in self.configuration for each in state.children)
        return state.kind == "parallel" and all(self._is_done(each) for each in state.children)

    def exit_interpreter(self) -> None:
        """Do what is to be done on exit of the states that the chart ends in (D: exitInterpreter)."""
        for state in sorted(self.configuration, key=_in_document, reverse=True):
            self.execute(state, state.exit)
            if state.kind == "final" and state.parent is None:
                self.out.output = self._rendered(state, state.output)
                self.out.error = self._error_of(state)
        failed = next((event.error for event in self.internal if event.error is not None), None)
        self.out.failed = self.out.failed or failed

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


def _meet(one: PlanState | None, other: PlanState | None) -> bool:
    """Say whether two domains are one, or one of them lies within the other."""
    return one is None or other is None or one is other or one.lies_in(other) or other.lies_in(one)


def _in_document(state: PlanState) -> int:
    return state.index


def _seconds(value: Any) -> float:
    try:
        return duration_in_bounds(value)
    except ValueError as error:
        raise ExpressionError(f"a delay: {error}") from None

"""The compiled form of a statechart that the step runs: states in document order, parsed guards, actions and delays."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from perdure.definitions.chart import Chart, ChartState
from perdure.definitions.states import Action, Statechart, Transition
from perdure.definitions.templates import Template, compile_condition, compile_template

Trigger = Literal["event", "timer", "always"]

DONE_STATE, DONE_INVOKE, ERROR_INVOKE, ERROR_ACTION = "done.state.", "done.invoke.", "error.invoke.", "error.action."
PROGRESS_INVOKE = "progress.invoke."
ERROR_EXECUTION = "error.execution"
"""The names, or their beginnings, of the events that perdure raises itself (SCXML 3.12.2, 5.10.1)."""

CALLS = ("agent", "tool", "send", "start")
"""The actions that a worker or another execution does; the others are done within the step."""


@dataclass(frozen=True, slots=True)
class PlanAction:
    """One action: `set` changes the context by `given`; `raise` names its event; a call is named within its state."""

    kind: Literal["set", "raise", "call"]
    name: str
    given: Template


@dataclass(eq=False, slots=True, repr=False)
class PlanTransition:
    """A compiled transition. `on`: its descriptor, as records show it; `timer`: which of the state's delays it is for.

    descriptors: the tokens of each, none for the wildcard (SCXML 3.12.1). exact: whether it is for that event alone,
    and not for those that begin with it: paths of states have dots of their own. internal: SCXML 3.5. domain: what all
    that it leaves and enters lies within, None: the chart; of one that leads to a history the step finds it.
    """

    source: "PlanState"
    trigger: Trigger
    on: str
    targets: tuple["PlanState", ...]
    guard: Template
    guard_text: str | None
    actions: tuple[PlanAction, ...]
    internal: bool
    descriptors: tuple[tuple[str, ...], ...] = ()
    exact: bool = False
    timer: int = -1
    domain: "PlanState | None" = None
    to_history: bool = False

    def __repr__(self) -> str:
        """Return where it leads: states and transitions name each other, so they are not written out."""
        return f"<{self.source.path} on {self.on} to {', '.join(each.path for each in self.targets) or 'itself'}>"

    def matches(self, tokens: tuple[str, ...]) -> bool:
        """Say whether its descriptor is a prefix of an event's name, token by token (SCXML 3.12.1)."""
        if self.trigger != "event":
            return False
        if self.exact:
            return tokens in self.descriptors
        return any(tokens[: len(each)] == each for each in self.descriptors)


@dataclass(eq=False, slots=True)
class PlanInvoke:
    """Work that goes on while a state is active; `call` is its name within its state, `id` the one in events."""

    call: str
    id: str
    given: Template


@dataclass(eq=False, slots=True, repr=False)
class PlanState:
    """A compiled state. `index`: its place in document order; `last`: that of the last state within it.

    error_type, error: of a final state that fails the execution, the type, and the template of message and data.
    """

    path: str
    kind: str
    index: int
    parent: "PlanState | None"
    last: int = 0
    children: list["PlanState"] = field(default_factory=list)
    histories: list["PlanState"] = field(default_factory=list)
    initial: tuple["PlanState", ...] = ()
    deep: bool = False
    entry: tuple[PlanAction, ...] = ()
    exit: tuple[PlanAction, ...] = ()
    transitions: list[PlanTransition] = field(default_factory=list)
    eventless: list[PlanTransition] = field(default_factory=list)
    delays: tuple[Template, ...] = ()
    invokes: tuple[PlanInvoke, ...] = ()
    output: Template = None
    error_type: str | None = None
    error: Template = None
    undoable: bool = False

    def __repr__(self) -> str:
        """Return its path: states and transitions name each other, so they are not written out."""
        return f"<state {self.path}>"

    @property
    def ancestors(self) -> Iterator["PlanState"]:
        """The states around it, inner ones first (SCXML D: getProperAncestors)."""
        around = self.parent
        while around is not None:
            yield around
            around = around.parent

    @property
    def is_atomic(self) -> bool:
        """Whether it has no states within (SCXML D: a final state is atomic)."""
        return self.kind in ("atomic", "final")

    def lies_in(self, outer: "PlanState | None") -> bool:
        """Say whether it is a descendant of another state, or of the whole chart (SCXML D: isDescendant)."""
        return outer is None or outer.index < self.index <= outer.last


@dataclass(frozen=True, eq=False)
class PlanChart:
    """A compiled statechart. `states` are in document order; `calls` has the calls of each state by their names."""

    states: Mapping[str, PlanState]
    initial: tuple[PlanState, ...]
    context: Template
    events: Mapping[str, dict[str, Any] | None] | None
    calls: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]

    def ever_takes(self, name: str) -> bool:
        """Say whether some state has a transition for an event of this name."""
        return _ever_takes(self, tuple(name.split(".")))


@lru_cache(maxsize=4096)
def _ever_takes(chart: PlanChart, tokens: tuple[str, ...]) -> bool:
    return any(way.matches(tokens) for state in chart.states.values() for way in state.transitions)


def compile_chart(model: Statechart) -> PlanChart:
    """Compile a statechart that `chart_findings` found sound."""
    chart = Chart(model)
    states: dict[str, PlanState] = {}
    for index, (path, each) in enumerate(chart.states.items()):
        parent = states[each.parent] if each.parent is not None else None
        states[path] = PlanState(path, each.kind, index, parent, index, deep=each.state.deep)
        if parent is not None:
            (parent.histories if each.kind == "history" else parent.children).append(states[path])
        for around in states[path].ancestors:
            around.last = index
    calls = {path: _Calls(each) for path, each in chart.states.items()}
    for path, each in chart.states.items():
        _complete(chart, states, each, calls[path])
    return PlanChart(
        states=states,
        initial=tuple(states[path] for path in chart.first_of(None)),
        context=compile_template(model.context),
        events=model.events,
        calls={path: each.models for path, each in calls.items()},
        names={name: paths[0] for name in chart.names() if len(paths := chart.resolve(name)) == 1},
    )


def _complete(chart: Chart, states: Mapping[str, PlanState], each: ChartState, calls: "_Calls") -> None:
    state, model = states[each.path], each.state
    if each.kind == "compound":
        state.initial = tuple(states[path] for path in chart.first_of(each.path))
    elif each.kind == "history":
        state.initial = tuple(states[chart.resolve(name)[0]] for name in model.default or [])
    state.entry = calls.actions(model.entry)
    state.exit = calls.actions(model.exit)
    state.invokes = calls.invokes()
    state.delays = tuple(compile_template(delay) for delay in model.after)
    state.output = compile_template(model.output)
    if model.fail is not None:
        state.error_type = model.fail.type
        state.error = compile_template({"message": model.fail.message, "data": model.fail.data})
    state.undoable = model.compensate is not None
    for on, listed, exact in _triggers(each):
        for way in listed:
            made = _transition(chart, states, state, way, on, calls)
            made.exact = exact
            (state.eventless if made.trigger == "always" else state.transitions).append(made)
    for number, (delay, listed) in enumerate(model.after.items()):
        for way in listed:
            made = _transition(chart, states, state, way, f"after {delay}", calls)
            made.trigger, made.timer = "timer", number
            state.transitions.append(made)


def _triggers(each: ChartState) -> Iterator[tuple[str | None, Iterable[Transition], bool]]:
    """Yield a state's transitions by what they are for: an event's descriptor (exactly?), or None without one.

    Those for one event alone come first: no `*` under `on` takes it away from them.
    """
    yield f"{DONE_STATE}{each.path}", each.state.on_done, True
    for invoke in each.state.invoke:
        yield f"{DONE_INVOKE}{invoke.id or each.path}", invoke.on_done, True
        yield f"{ERROR_INVOKE}{invoke.id or each.path}", invoke.on_error, True
    yield from ((on, listed, False) for on, listed in each.state.on.items())
    yield None, each.state.always, False


def domain_of(way: PlanTransition, targets: Iterable[PlanState]) -> PlanState | None:
    """Return the innermost compound state around all that a transition leaves and enters; None: the chart.

    `targets` are its targets with histories replaced by what they stand for (SCXML D: getTransitionDomain, findLCCA).
    """
    source, targets = way.source, list(targets)
    if way.internal and source.kind == "compound" and all(each.lies_in(source) for each in targets):
        return source
    around = (each for each in source.ancestors if each.kind == "compound")
    return next((each for each in around if all(target.lies_in(each) for target in targets)), None)


def _transition(
    chart: Chart, states: Mapping[str, PlanState], source: PlanState, way: Transition, on: str | None, calls: "_Calls"
) -> PlanTransition:
    guard = None if way.if_ is None else compile_condition(way.if_)
    made = PlanTransition(
        source=source,
        trigger="always" if on is None else "event",
        on="always" if on is None else on,
        targets=tuple(states[chart.resolve(target)[0]] for target in way.target),
        guard=guard,
        guard_text=None if way.if_ is None else str(way.if_),
        actions=calls.actions(way.do),
        internal=way.internal,
        descriptors=tuple(map(tokens_of, (on or "").split())),
    )
    made.domain = domain_of(made, made.targets)
    made.to_history = any(each.kind == "history" for each in made.targets)
    return made


def tokens_of(descriptor: str) -> tuple[str, ...]:
    """Return the tokens of an event descriptor; `order.*` is the same as `order`, and `*` has none (SCXML 3.12.1)."""
    prefix = descriptor.removesuffix("*").removesuffix(".")
    return tuple(prefix.split(".")) if prefix else ()


class _Calls:
    """The calls of one state in the making: each gets a name that no other call of the state has."""

    def __init__(self, each: ChartState) -> None:
        self._each = each
        self.models: dict[str, Any] = {ENTERED: each.state.compensate}

    def actions(self, actions: Iterable[Action]) -> tuple[PlanAction, ...]:
        return tuple(self._action(action) for action in actions)

    def invokes(self) -> tuple[PlanInvoke, ...]:
        listed = self._each.state.invoke
        names = [self._named(each.id or "invoke", each) for each in listed]
        return tuple(
            PlanInvoke(name, each.id or self._each.path, _given(each)) for name, each in zip(names, listed, strict=True)
        )

    def _action(self, action: Action) -> PlanAction:
        if action.set is not None:
            return PlanAction("set", "", compile_template(action.set))
        if action.raise_ is not None:
            return PlanAction("raise", action.raise_, compile_template(action.data))
        return PlanAction("call", self._named(name_of_call(action), action), _given(action))

    def _named(self, wanted: str, model: Any) -> str:
        plain = "".join(each if each.isalnum() or each in "._:-" else "_" for each in wanted)
        name, number = plain, 1
        while name in self.models:
            number += 1
            name = f"{plain}.{number}"
        self.models[name] = model
        return name


ENTERED = "entered"
"""What stands among a state's calls for its having been entered, so that its compensation can undo it."""


def name_of_call(action: Action) -> str:
    """Return the name of a call in `error.action.NAME`: its own, or else that of its tool or agent."""
    kind = next(kind for kind in CALLS if getattr(action, kind) is not None)
    return action.name or (getattr(action, kind) if kind in ("agent", "tool") else kind)


def _given(call: Any) -> Template:
    """Return the template of a call's input, or of the message that it sends."""
    if getattr(call, "send", None) is not None:
        return compile_template({"to": call.send.to, "event": call.send.event, "data": call.send.data})
    workflow = getattr(call, "start", None) or getattr(call, "workflow", None)
    if workflow is not None:
        return compile_template({"id": workflow.id, "input": call.with_})
    return compile_template(call.with_)

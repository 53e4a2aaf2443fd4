"""Checks a statechart: targets, reachability, histories, final states, events, and its expressions."""

from collections.abc import Iterable, Iterator
from typing import Any

from perdure.definitions.chart import Chart, ChartState, transitions_of
from perdure.definitions.durations import parse_duration
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Workflow
from perdure.definitions.states import Action, Statechart
from perdure.definitions.templates import compile_condition, compile_template, expressions
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

ROOTS = frozenset({"input", "execution", "context", "event"})
_WORK = ("on", "after", "always", "on_done", "invoke")
_OURS = ("done.", "error.")
"""Events that nobody declares: perdure raises them."""


def chart_findings(workflow: Workflow, model: Statechart, at: Path) -> Iterator[Finding]:
    """Yield every finding of a statechart whose document is at `at`."""
    chart = Chart(model)
    known = None if model.events is None else {*model.events, *raised_in(model)}
    found = [*_initial_findings(chart, None, ()), *_expressions(("context",), model.context)]
    for each in chart.states.values():
        found += _shape_findings(chart, each)
        found += _target_findings(chart, each)
        found += _event_findings(known, each)
        found += _work_findings(workflow, each)
        found += _expression_findings(each)
    if not any(not each.warning for each in found):
        found += _reach_findings(chart)
    for finding in found:
        yield Finding((*at, *finding.path), finding.message, finding.warning, finding.key)


def _shape_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    state, at = each.state, each.at
    if each.kind == "history":
        yield from _history_findings(chart, each)
    elif state.default is not None or state.deep:
        yield Finding(at, f"'default' and 'deep' belong to a state of `type: history`; {each.path!r} is none", key=True)
    if each.kind == "final":
        yield from _idle_findings(each, ("states", *_WORK))
    elif state.output is not None:
        yield Finding((*at, "output"), f"'output' belongs to a final state; {each.path!r} is none", key=True)
    yield from _substate_findings(chart, each)


def _substate_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    state, at = each.state, each.at
    if each.kind == "parallel" and not state.states:
        yield Finding(at, f"parallel state {each.path!r} has no states to be in", key=True)
    if each.kind in ("atomic", "parallel") and state.initial is not None:
        yield Finding((*at, "initial"), f"{each.kind} state {each.path!r} has no initial state", key=True)
    if state.initial is not None and each.kind == "compound":
        yield from _initial_findings(chart, each.path, at)
    if state.on_done and each.kind == "atomic":
        yield Finding((*at, "on_done"), f"atomic state {each.path!r} has no states that could be done", key=True)


def _idle_findings(each: ChartState, keys: Iterable[str]) -> Iterator[Finding]:
    for key in keys:
        if getattr(each.state, key):
            what = f"{each.kind} state {each.path!r} does nothing and is left by nothing; leave {key!r} out"
            yield Finding((*each.at, key), what, key=True)


def _history_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    if each.parent is None:
        yield Finding(each.at, "a history stands within the state that it remembers, not at the top", key=True)
    if each.state.default is None:
        what = f"history {each.path!r} has no 'default': where does it lead when there is nothing to remember yet?"
        yield Finding(each.at, what, key=True)
    yield from _idle_findings(each, ("states", "entry", "exit", *_WORK))
    yield from _targets(chart, each.state.default or [], (*each.at, "default"))


def _initial_findings(chart: Chart, path: str | None, at: Path) -> Iterator[Finding]:
    initial = chart.states[path].state.initial if path else chart.model.initial
    for target in initial or []:
        meant = chart.resolve(f"{path}.{target}") if path else []
        meant = meant or chart.resolve(target)
        if len(meant) == 1 and path and not meant[0].startswith(f"{path}."):
            yield Finding((*at, "initial"), f"initial state {target!r} does not lie within {path!r}")
        elif len(meant) != 1:
            yield Finding((*at, "initial"), _no_target(chart, target, meant))


def _target_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    for at, transition in transitions_of(each):
        yield from _targets(chart, transition.target, at)
        if not transition.target and not transition.do:
            yield Finding(at, "a transition has a 'target', something to 'do', or both", warning=transition.if_ is None)


def _targets(chart: Chart, targets: Iterable[str], at: Path) -> Iterator[Finding]:
    for target in targets:
        if len(meant := chart.resolve(target)) != 1:
            yield Finding((*at, "target") if at[-1] != "default" else at, _no_target(chart, target, meant))


def _no_target(chart: Chart, target: str, meant: list[str]) -> str:
    if meant:
        return f"there are several states {target!r}; name the path: {' or '.join(map(repr, meant))}"
    return f"there is no state {target!r}{did_you_mean(target, chart.names())}"


def _event_findings(known: set[str] | None, each: ChartState) -> Iterator[Finding]:
    for event in each.state.on:
        prefix = event.removesuffix("*").removesuffix(".")
        if not prefix or known is None or event.startswith(_OURS):
            continue
        if prefix not in known and not any(name.startswith(f"{prefix}.") for name in known):
            hint = did_you_mean(event, known) or "; declare it under 'events'"
            yield Finding((*each.at, "on", event), f"there is no event {event!r}{hint}", key=True)
    for text in each.state.after:
        if "${{" not in text:
            try:
                seconds = parse_duration(text)
            except ValueError as error:
                yield Finding((*each.at, "after", text), str(error), key=True)
            else:
                assert isinstance(seconds, int | float)  # noqa: S101 (text that is read is a number)


def raised_in(model: Statechart) -> set[str]:
    """Return the events that the chart raises itself."""
    return {action.raise_ for each in Chart(model).states.values() for _, action in actions_of(each) if action.raise_}


def actions_of(each: ChartState) -> Iterator[tuple[Path, Action]]:
    """Yield every action of a state with its place: on entry, on exit, and along its transitions."""
    for key in ("entry", "exit"):
        yield from (((*each.at, key, index), action) for index, action in enumerate(getattr(each.state, key)))
    for at, transition in transitions_of(each):
        yield from (((*at, "do", index), action) for index, action in enumerate(transition.do))


def _work_findings(workflow: Workflow, each: ChartState) -> Iterator[Finding]:
    called = [(at, action.agent) for at, action in actions_of(each)]
    called += [((*each.at, "invoke", number), invoke.agent) for number, invoke in enumerate(each.state.invoke)]
    if each.state.compensate is not None:
        called.append(((*each.at, "compensate"), each.state.compensate.agent))
    for at, agent in called:
        if agent is not None and agent not in workflow.agents:
            hint = did_you_mean(agent, workflow.agents) or "; declare it under 'agents'"
            yield Finding((*at, "agent"), f"state {each.path!r} asks agent {agent!r}, which does not exist{hint}")


def _expression_findings(each: ChartState) -> Iterator[Finding]:
    for at, transition in transitions_of(each):
        if transition.if_ is not None:
            yield from _expressions((*at, "if"), transition.if_, bare=True)
    for at, action in actions_of(each):
        yield from _expressions((*at, "set"), action.set)
        yield from _expressions((*at, "data"), action.data)
        yield from _expressions((*at, "with"), action.with_, secrets=True)
        if action.send is not None:
            yield from _expressions((*at, "send"), {"to": action.send.to, "data": action.send.data})
    for number, invoke in enumerate(each.state.invoke):
        yield from _expressions((*each.at, "invoke", number, "with"), invoke.with_, secrets=True)
    yield from _expressions((*each.at, "output"), each.state.output)
    for text in each.state.after:
        if "${{" in text:
            yield from _expressions((*each.at, "after", text), text)
    if each.state.compensate is not None:
        yield from _expressions((*each.at, "compensate", "with"), each.state.compensate.with_, secrets=True)


def _expressions(at: Path, value: Any, *, bare: bool = False, secrets: bool = False) -> Iterator[Finding]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _expressions((*at, key), item, secrets=secrets)
        return
    if value is None:
        return
    known = ROOTS | {"secrets"} if secrets else ROOTS | {"error"} if "compensate" in at else ROOTS
    try:
        template = compile_condition(value) if bare else compile_template(value)
    except ExpressionError as error:
        yield Finding(at, str(error))
        return
    from perdure.definitions.expression_checks import root_problem

    for expression in expressions(template):
        for root in sorted(expression.roots - known):
            yield Finding(at, root_problem(root, known, expression.text))


def _reach_findings(chart: Chart) -> Iterator[Finding]:
    """Find states that no transition leads into, and a chart that cannot come to its end."""
    reached = _reached(chart)
    for each in chart.states.values():
        if each.path not in reached and (each.parent is None or each.parent in reached):
            yield Finding(
                each.at, f"state {each.path!r} is unreachable: no transition or initial state leads to it", key=True
            )
    if not any(each.kind == "final" and each.parent is None for each in chart.states.values()):
        yield Finding(
            ("states",),
            "no final state at the top: an execution only ends when it is cancelled",
            warning=True,
            key=True,
        )
    elif not any(
        each.kind == "final" and each.parent is None and each.path in reached for each in chart.states.values()
    ):
        yield Finding(("states",), "no way leads to a final state at the top", warning=True, key=True)


def _reached(chart: Chart) -> set[str]:
    reached: set[str] = set()
    todo = [target for name in chart.model.initial or [] for target in chart.resolve(name)]
    todo = todo or [next(path for path, each in chart.states.items() if each.kind != "history")]
    while todo:
        path = todo.pop()
        if path in reached:
            continue
        reached.add(path)
        each = chart.states[path]
        todo += [each.parent] if each.parent else []
        todo += _entered(chart, each)
        todo += [
            meant
            for _, transition in transitions_of(each)
            for name in transition.target
            for meant in chart.resolve(name)
        ]
    return reached


def _entered(chart: Chart, each: ChartState) -> list[str]:
    """Return the states that are entered with this one."""
    if each.kind == "history":
        return [meant for name in each.state.default or [] for meant in chart.resolve(name)]
    children = [path for path in chart.children(each.path) if chart.states[path].kind != "history"]
    if each.kind == "parallel":
        return children
    if each.state.initial is not None:
        return [(chart.resolve(f"{each.path}.{name}") or chart.resolve(name))[0] for name in each.state.initial]
    # Whether its first state is entered by default or a transition leads past it: the default may always be taken.
    return children[:1]

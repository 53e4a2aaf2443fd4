"""Checks a statechart: targets, reachability, histories, final states, events, and its expressions."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from perdure.definitions.chart import Chart, ChartState, transitions_of
from perdure.definitions.chart_places import CHART_ROOTS, actions_of, chart_fields, delay_fields
from perdure.definitions.chart_rules import rule_findings
from perdure.definitions.durations import duration_in_bounds
from perdure.definitions.expression_checks import braces_findings, root_problems, states_asked
from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.model import Workflow
from perdure.definitions.places import Field
from perdure.definitions.states import Statechart
from perdure.definitions.templates import compile_condition, compile_template, expressions
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_WORK = ("on", "after", "always", "on_done", "invoke")
_OURS = ("done.", "error.", "progress.")
"""Events that nobody declares: perdure raises them."""


def chart_findings(workflow: Workflow, model: Statechart, at: Path) -> Iterator[Finding]:
    """Yield every finding of a statechart whose document is at `at`."""
    chart = Chart(model)
    known = None if model.events is None else {*model.events, *raised_in(model)}
    found = [*_initial_findings(chart, None, ()), *_expression_findings(chart), *_invocation_findings(chart)]
    for each in chart.states.values():
        found += _shape_findings(chart, each)
        found += _target_findings(chart, each)
        found += _event_findings(known, each)
        found += _work_findings(workflow, each)
    found += _raise_findings(chart)
    found += rule_findings(chart)
    if not any(not each.warning for each in found):
        found += _reach_findings(chart)
    for finding in found:
        yield replace(finding, path=(*at, *finding.path))


def _shape_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    state, at = each.state, each.at
    if each.kind == "history":
        yield from _history_findings(chart, each)
    elif state.default is not None or state.deep:
        given = "deep" if state.deep else "default"
        what = f"{given!r} belongs to a state of `type: history`; {each.path!r} is none"
        yield Finding((*at, given), what, key=True, lack=True)
    if each.kind == "final":
        yield from _idle_findings(each, ("states", *_WORK))
    elif state.output is not None:
        yield Finding((*at, "output"), f"'output' belongs to a final state; {each.path!r} is none", key=True, lack=True)
    if state.fail is not None and not (each.kind == "final" and each.parent is None):
        what = f"'fail' belongs to a final state at the top; {each.path!r} is none"
        yield Finding((*at, "fail"), what, key=True, lack=True)
    if state.compensate is not None and (each.kind == "history" or (each.kind == "final" and each.parent is None)):
        why = "is never entered itself" if each.kind == "history" else "ends the execution, which then is not aborted"
        what = f"{each.kind} state {each.path!r} {why}, so its 'compensate' never runs; leave it out"
        yield Finding((*at, "compensate"), what, key=True)
    yield from _substate_findings(chart, each)


def _substate_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    state, at = each.state, each.at
    if each.kind == "parallel" and not state.states:
        yield Finding(at, f"parallel state {each.path!r} has no states to be in; give it 'states'", key=True, lack=True)
    if each.kind in ("atomic", "parallel") and state.initial is not None:
        yield Finding(
            (*at, "initial"), f"{each.kind} state {each.path!r} has no initial state; leave it out", key=True, lack=True
        )
    if state.initial is not None and each.kind == "compound":
        yield from _initial_findings(chart, each.path, at)
    if state.on_done and each.kind == "atomic":
        yield Finding(
            (*at, "on_done"),
            f"atomic state {each.path!r} has no states that could be done; leave it out",
            key=True,
            lack=True,
        )


def _idle_findings(each: ChartState, keys: Iterable[str]) -> Iterator[Finding]:
    for key in keys:
        if getattr(each.state, key):
            what = f"{each.kind} state {each.path!r} does nothing and is left by nothing; leave {key!r} out"
            yield Finding((*each.at, key), what, key=True)


def _history_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    if each.parent is None:
        yield Finding(each.at, "a history stands within the state that it remembers, not at the top", key=True)
    if each.state.default is None:
        what = f"history {each.path!r} has no 'default', the state it leads to when there is nothing to remember yet"
        yield Finding(each.at, f"{what}; add it", key=True, lack=True)
    yield from _idle_findings(each, ("states", "entry", "exit", *_WORK))
    yield from _targets(chart, each.state.default or [], (*each.at, "default"))


def _initial_findings(chart: Chart, path: str | None, at: Path) -> Iterator[Finding]:
    initial = chart.states[path].state.initial if path else chart.model.initial
    for index, target in enumerate(initial or []):
        meant = chart.resolve(f"{path}.{target}") if path else []
        meant = meant or chart.resolve(target)
        if len(meant) == 1 and path and not meant[0].startswith(f"{path}."):
            yield Finding((*at, "initial", index), f"initial state {target!r} does not lie within {path!r}")
        elif len(meant) != 1:
            yield Finding((*at, "initial", index), _no_target(chart, target, meant))


def _target_findings(chart: Chart, each: ChartState) -> Iterator[Finding]:
    for at, transition in transitions_of(each):
        yield from _targets(chart, transition.target, (*at, "target"))
        if not transition.target and not transition.do:
            yield Finding(
                at, "a transition has a 'target', something to 'do', or both", warning=transition.if_ is None, lack=True
            )


def _targets(chart: Chart, targets: Iterable[str], at: Path) -> Iterator[Finding]:
    for index, target in enumerate(targets):
        if len(meant := chart.resolve(target)) != 1:
            yield Finding((*at, index), _no_target(chart, target, meant))


def _no_target(chart: Chart, target: str, meant: list[str]) -> str:
    if meant:
        return f"there are several states {target!r}; name the path: {' or '.join(map(repr, meant))}"
    return f"there is no state {target!r}{did_you_mean(target, chart.names())}"


def _event_findings(known: set[str] | None, each: ChartState) -> Iterator[Finding]:
    for at, event in [(key, event) for key in each.state.on for event in key.split()]:
        prefix = event.removesuffix("*").removesuffix(".")
        if not prefix or known is None or event.startswith(_OURS):
            continue
        if prefix not in known and not any(name.startswith(f"{prefix}.") for name in known):
            hint = did_you_mean(event, known) or "; declare it under 'events'"
            yield Finding((*each.at, "on", at), f"there is no event {event!r}{hint}", key=True, lack=True)
    for text in each.state.after:
        if "${{" not in text:
            try:
                duration_in_bounds(text)
            except ValueError as error:
                yield Finding((*each.at, "after", text), str(error), key=True)


def raised_in(model: Statechart) -> set[str]:
    """Return the events that the chart raises itself."""
    return {action.raise_ for each in Chart(model).states.values() for _, action in actions_of(each) if action.raise_}


def _invocation_findings(chart: Chart) -> Iterator[Finding]:
    """Find invocations of one name: their events could not be told apart."""
    seen: dict[str, str] = {}
    for each in chart.states.values():
        for number, invoke in enumerate(each.state.invoke):
            name = invoke.id or each.path
            if name in seen:
                what = f"an invocation named {name!r} stands in state {seen[name]!r} already; give this one an 'id'"
                yield Finding((*each.at, "invoke", number), what)
            seen.setdefault(name, each.path)


def _raise_findings(chart: Chart) -> Iterator[Finding]:
    """Find raised events that no state takes."""
    taken = {event for each in chart.states.values() for key in each.state.on for event in key.split()}
    prefixes = {event.removesuffix("*").removesuffix(".") for event in taken}
    for each in chart.states.values():
        for at, action in actions_of(each):
            event = action.raise_
            if event and not any(event == one or event.startswith(f"{one}.") or not one for one in prefixes):
                hint = did_you_mean(event, taken) or "; give a state a transition for it under 'on'"
                yield Finding((*at, "raise"), f"no state takes the raised event {event!r}{hint}", warning=True)


def _work_findings(workflow: Workflow, each: ChartState) -> Iterator[Finding]:
    called = [(at, action.agent) for at, action in actions_of(each)]
    called += [((*each.at, "invoke", number), invoke.agent) for number, invoke in enumerate(each.state.invoke)]
    if each.state.compensate is not None:
        called.append(((*each.at, "compensate"), each.state.compensate.agent))
    for at, agent in called:
        if agent is not None and agent not in workflow.agents:
            hint = did_you_mean(agent, workflow.agents) or "; declare it under 'agents'"
            yield Finding((*at, "agent"), f"state {each.path!r} asks agent {agent!r}, which does not exist{hint}")


def _expression_findings(chart: Chart) -> Iterator[Finding]:
    for field in chart_fields(chart):
        known = CHART_ROOTS | field.adds | (frozenset({"secrets"}) if field.secrets else frozenset())
        yield from _value_findings(chart, field.path, field.value, field, known)
    for field in delay_fields(chart):
        yield from _value_findings(chart, field.path, field.value, field, CHART_ROOTS, key=True)


def _value_findings(
    chart: Chart, at: Path, value: Any, field: Field, known: frozenset[str], *, key: bool = False
) -> Iterator[Finding]:
    if isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _value_findings(chart, (*at, part), item, field, known)
        return
    if value is None:
        return
    if isinstance(value, str) and not field.bare:
        yield from braces_findings(at, value, known)
    try:
        template = compile_condition(value) if field.bare else compile_template(value)
    except ExpressionError as error:
        yield Finding(at, str(error), key=key)
        return
    for expression in expressions(template):
        for problem in root_problems(expression, field, known):
            yield Finding(at, problem, key=key)
        for state in states_asked(expression):
            if state is not None and len(meant := chart.resolve(state)) != 1:
                yield Finding(at, f"in '{expression.text}': {_no_target(chart, state, meant)}", key=key)


def _reach_findings(chart: Chart) -> Iterator[Finding]:
    """Find states that no transition leads into, and a chart that cannot come to its end."""
    reached = _reached(chart)
    for each in chart.states.values():
        if each.path not in reached and (each.parent is None or each.parent in reached):
            what = f"state {each.path!r} is unreachable: no transition or initial state leads to it; add one"
            yield Finding(each.at, what, key=True, lack=True)
    if not any(each.kind == "final" and each.parent is None for each in chart.states.values()):
        yield Finding(
            ("states",),
            "no final state at the top: an execution only ends when it is cancelled; add one of `type: final`",
            warning=True,
            key=True,
            lack=True,
        )
    elif not any(
        each.kind == "final" and each.parent is None and each.path in reached for each in chart.states.values()
    ):
        yield Finding(
            ("states",), "no way leads to a final state at the top; add a transition", warning=True, key=True, lack=True
        )


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

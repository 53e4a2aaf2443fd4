"""Statecharts in a decision: which events reach them, and what is cancelled, armed and called because of a step."""

from collections.abc import Iterator

from perdure.actors import statechart
from perdure.actors.chart_calls import begin_call, call_path, calls_of, is_busy, next_call, start
from perdure.actors.chart_state import ChartEvent, ChartState
from perdure.actors.compensation import to_keep
from perdure.actors.containers import MANY
from perdure.actors.draft import Draft
from perdure.actors.ends import main_done
from perdure.actors.failures import leave, stop
from perdure.actors.inputs import Report, ReportFailure, ReportSuccess
from perdure.actors.macrostep import Macrostep, Surroundings
from perdure.actors.signals import misfit
from perdure.actors.state import SETTLED
from perdure.definitions.chart_plan import (
    DONE_INVOKE,
    ENTERED,
    ERROR_ACTION,
    ERROR_INVOKE,
    PROGRESS_INVOKE,
    PlanChart,
    PlanInvoke,
    name_of_call,
)
from perdure.definitions.paths import UNDO, body_of, chart_of, entry_of, name_of, node_in, owner_of
from perdure.events.vocabulary import (
    BodySucceeded,
    EventHeld,
    EventIgnored,
    MacrostepTaken,
    NodeCancelled,
    NodeFailed,
    NodeSkipped,
    NodeSucceeded,
    SignalTaken,
    TimerCancelled,
)


def begin(draft: Draft, body: str) -> None:
    """Enter a statechart."""
    step = statechart.begin(plan_of(draft, body), _surroundings(draft, body), state_of(draft, body))
    _follow(draft, body, statechart.BEGIN, step, held=False)
    _take_kept(draft, body)


def _take_kept(draft: Draft, body: str) -> None:
    """Give a chart that begins the signals that came before and that it knows, in their order."""
    plan, owner = plan_of(draft, body), owner_of(body)[0]
    for name in draft.state.signalled:
        if plan.ever_takes(name) and draft.is_live(body):
            data = draft.state.signals[name][0]
            draft.emit(SignalTaken(name, owner))
            if (problem := misfit((plan.events or {}).get(name), data)) is None:
                receive(draft, body, ChartEvent(name, data))
            else:
                draft.emit(EventIgnored(body, name, data, f"its data does not fit: {problem}"))


def receive(draft: Draft, body: str, event: ChartEvent, *, held: bool = False) -> None:
    """Let a statechart take an event, or ignore it; during a pause, and behind others that are held, it is held."""
    if not held and (draft.state.paused or state_of(draft, body).held):
        draft.emit(EventHeld(body, event.name, event.data, event.error, event.of, event.timer))
        return
    chart = state_of(draft, body)
    if (reason := _too_late(draft, body, chart, event)) is not None:
        draft.emit(EventIgnored(body, event.name, event.data, reason, held))
        return
    step = statechart.step(plan_of(draft, body), chart, event, _surroundings(draft, body))
    if step is not None:
        _follow(draft, body, event, step, held=held)
        return
    if event.error is not None:
        _break(draft, body, event, held=held)
    else:
        draft.emit(EventIgnored(body, event.name, event.data, _untaken(plan_of(draft, body), chart, event), held))


def _untaken(plan: PlanChart, chart: ChartState, event: ChartEvent) -> str:
    """Say why no transition takes an event: none is for it at all, or not now, or none whose guard holds."""
    if event.timer is None and not plan.ever_takes(event.name):
        return NEVER
    if event.timer is not None or statechart.takes(plan, chart, event.name):
        return f"no transition for it has a guard that holds in {', '.join(chart.configuration)}"
    return f"no transition takes it in {', '.join(chart.configuration)}"


NEVER = "no state of the chart ever takes it"
"""Why an event is ignored whose name is in no transition: whoever sent it may have meant another one."""


def _too_late(draft: Draft, body: str, chart: ChartState, event: ChartEvent) -> str | None:
    """Say why an event comes too late: its state was left, or the chart is at its end; None where it does not."""
    if event.timer is not None and not chart.is_active(event.timer[0], event.timer[1]):
        return f"state {event.timer[0]!r} was left before"
    if event.of and not event.name.startswith(ERROR_ACTION):
        owner, entry = owner_of(body_of(event.of))
        if not chart.is_active(name_of(owner), int(entry)):
            return f"state {name_of(owner)!r} was left before"
    if event.error is None and not draft.is_live(body):
        return "the execution is at its end"
    return "the chart has come to its end" if chart.ended and event.error is None else None


def _break(draft: Draft, body: str, event: ChartEvent, *, held: bool) -> None:
    """Fail a statechart by an error that no transition takes."""
    assert event.error is not None  # noqa: S101 (it is one)
    draft.emit(EventIgnored(body, event.name, event.data, "no transition takes this error", held))
    if draft.is_live(body):
        node = draft.state.node(event.of) if event.of else None
        leave(draft, body, event.error, event.of or None, node.attempt if node else 0)


def _follow(draft: Draft, body: str, event: ChartEvent, step: Macrostep, *, held: bool) -> None:
    """Record a step with all that follows of it; one that ends in an error has not happened."""
    if step.failed is not None:
        what = f"{step.failed.type}: {step.failed.message}"
        result_of = event.of if event.error is None else ""  # a call that failed is made again at a retry
        draft.emit(EventIgnored(body, event.name, event.data, f"the step failed: {what}", held, result_of))
        leave(draft, body, step.failed)
        return
    before = state_of(draft, body)
    _leave_states(draft, body, before, step)
    calls = [call_path(body, before, step.calls, number) for number in range(len(step.calls))]
    invokes = [node_in(entry_of(body, each.state, each.entry), each.name) for each in step.invokes]
    draft.emit(
        MacrostepTaken(
            body, event.name, None if event.of else event.data, event.error, event.of, held, step.steps,
            step.context, step.history, calls, invokes, list(_to_undo(draft, body, before, step)), step.ignored,
            step.ended, step.output, step.error,
        )
    )  # fmt: skip
    for path, call in zip(calls, step.calls, strict=True):
        begin_call(draft, body, path, call.input, call.secrets)
    for delay in step.delays:
        draft.arm("after", timer_path(body, delay.state, delay.entry, delay.number), delay.seconds)
    for path, invoke in zip(invokes, step.invokes, strict=True):
        begin_call(draft, body, path, invoke.input, invoke.secrets, invoked=True)
    draft.later("chart_end", body)


def timer_path(body: str, state: str, entry: int, number: int) -> str:
    """Return what a timer is named by: the state, which entry of it, and which of its delays."""
    return node_in(entry_of(body, state, entry), str(number))


def _leave_states(draft: Draft, body: str, before: ChartState, step: Macrostep) -> None:
    """Cancel the timers and the invocations of the states that a step leaves."""
    plan = plan_of(draft, body)
    for path in dict.fromkeys(each for micro in step.steps for each in micro.exited):
        if path not in before.configuration:
            continue  # entered in this step too: nothing of it has begun
        entry = before.entries[path]
        for number in range(len(plan.states[path].delays)):
            timer = f"after/{timer_path(body, path, entry, number)}"
            if timer in draft.state.timers:
                draft.emit(TimerCancelled(timer))
        for invoke in plan.states[path].invokes:
            call = node_in(entry_of(body, path, entry), invoke.call)
            node = draft.state.node(call)
            if node is not None and node.status not in SETTLED:
                stop(draft, call, f"state {path!r} was left", node=True)
                draft.emit(NodeCancelled(call, f"state {path!r} was left"))
                draft.disarm(call)


def _to_undo(draft: Draft, body: str, before: ChartState, step: Macrostep) -> Iterator[str]:
    """Yield what stands for the entries of states that a compensation can undo, in the order of entry."""
    plan, entries = plan_of(draft, body), dict[str, int]()
    for micro in step.steps:
        for path in micro.entered:
            entries[path] = entries.get(path, before.entries.get(path, 0)) + 1
            if plan.states[path].undoable:
                yield node_in(entry_of(body, path, entries[path]), ENTERED)


def settled(draft: Draft, path: str) -> None:
    """Tell a statechart how a call of it ended, and begin the next one."""
    body, invoked = chart_of(path), _invoked(draft, path)
    end = next(each for each in reversed(draft.events) if getattr(each, "node", None) == path)
    error = end.error if isinstance(end, NodeFailed) else None
    if invoked is not None and error is not None:
        receive(draft, body, ChartEvent(f"{ERROR_INVOKE}{invoked.id}", None, error, path))
    elif invoked is not None:
        output = end.output if isinstance(end, NodeSucceeded) else None
        receive(draft, body, ChartEvent(f"{DONE_INVOKE}{invoked.id}", output, None, path))
    elif error is not None:
        state, name = name_of(owner_of(body_of(path))[0]), name_of(path).partition(UNDO[0])[0]
        call = name_of_call(plan_of(draft, body).calls[state][name])
        receive(draft, body, ChartEvent(f"{ERROR_ACTION}{call}", None, error, path))
    if isinstance(end, NodeSkipped | NodeFailed | NodeSucceeded) and draft.is_live(body):
        next_call(draft, body)
        draft.later("chart_end", body)


def fire(draft: Draft, path: str) -> None:
    """Let a delay of a state be over."""
    owner, entry = owner_of(body_of(path))
    state = name_of(owner)
    receive(draft, body_of(owner), ChartEvent(f"after.{state}", timer=(state, int(entry), int(name_of(path)))))


def progress(draft: Draft, path: str, data: object) -> None:
    """Tell a statechart how far an invocation is, if some state of it ever wants to know."""
    invoked = _invoked(draft, path)
    if invoked is not None:
        event = f"{PROGRESS_INVOKE}{invoked.id}"
        if plan_of(draft, chart_of(path)).ever_takes(event):
            receive(draft, chart_of(path), ChartEvent(event, data))


def _invoked(draft: Draft, path: str) -> PlanInvoke | None:
    """Return the invocation that a node is; None for any other node."""
    if not draft.plan.body(body_of(path)).calls:
        return None
    state = plan_of(draft, chart_of(path)).states[name_of(owner_of(body_of(path))[0])]
    return next((each for each in state.invokes if each.call == name_of(path)), None)


def come_late(draft: Draft, report: Report) -> None:
    """Record that an invocation ended when its state had been left; for any other node there is nothing to record."""
    invoked = _invoked(draft, report.node)
    if invoked is None or not isinstance(report, ReportSuccess | ReportFailure):
        return
    if draft.state.node(report.node) is None:
        state = name_of(owner_of(body_of(report.node))[0])
        output = report.output if isinstance(report, ReportSuccess) else None
        event = f"{DONE_INVOKE if isinstance(report, ReportSuccess) else ERROR_INVOKE}{invoked.id}"
        draft.emit(EventIgnored(chart_of(report.node), event, output, f"state {state!r} was left before"))


def too_late(draft: Draft, timer: str) -> None:
    """Record that a delay of a state was over when the state had been left."""
    path = timer.partition("/")[2]
    state = name_of(owner_of(body_of(path))[0])
    draft.emit(EventIgnored(chart_of(path), f"after.{state}", None, f"state {state!r} was left before"))


def end(draft: Draft, body: str) -> None:
    """Let a statechart end that is in a final state, and whose calls are over."""
    chart = state_of(draft, body)
    if not chart.ended or chart.calls or chart.held or is_busy(draft, body) or not draft.is_live(body):
        return
    if chart.failed is not None:
        leave(draft, body, chart.failed)
        return
    if not body:
        main_done(draft)
        return
    draft.emit(BodySucceeded(body, chart.output, to_keep(draft, body)))
    draft.later("progress", owner_of(body)[0])


def wake(draft: Draft, body: str) -> None:
    """Go on with a statechart after a pause: with the events that came meanwhile, then with its calls."""
    state = draft.state.body(body)
    if state is None or state.chart is None or not state.chart.configuration:
        begin(draft, body)
    while not draft.state.paused and draft.is_live(body) and len(draft.events) <= MANY:
        chart = state_of(draft, body)
        if not chart.held:
            break
        receive(draft, body, chart.held[chart.turn], held=True)
    if draft.is_live(body):
        for path, node, _ in calls_of(draft, body):
            if node.status == "open":
                draft.later("wake", path)
        next_call(draft, body)
        draft.later("chart_end", body)


def again(draft: Draft, body: str) -> None:
    """Begin again what a failure broke off: the calls that failed or were cancelled, and the active states' delays."""
    state = draft.state.body(body)
    if state is None or state.chart is None:
        return
    for path, node, _ in list(calls_of(draft, body)):
        if node.status in ("failed", "cancelled"):
            start(draft, path, 1, node.input, node.secrets)
    for path, seconds in delays_of(draft, body, state.chart):
        draft.arm("after", path, seconds)


def delays_of(draft: Draft, body: str, chart: ChartState) -> Iterator[tuple[str, float]]:
    """Yield what the timers of the active states' delays are named by, and the seconds of each."""
    for delay in statechart.delays_again(plan_of(draft, body), chart, _surroundings(draft, body)).delays:
        yield timer_path(body, delay.state, delay.entry, delay.number), delay.seconds


def state_of(draft: Draft, body: str) -> ChartState:
    """Return where a statechart stands; one that has not begun is in no state."""
    state = draft.state.body(body)
    return (state.chart if state is not None else None) or ChartState()


def plan_of(draft: Draft, body: str) -> PlanChart:
    """Return the compiled statechart of a body."""
    chart = draft.plan.body(body).chart
    assert chart is not None  # noqa: S101 (it is a statechart's body)
    return chart


def _surroundings(draft: Draft, body: str) -> Surroundings:
    names = draft.names(body, ())
    seed = f"{draft.execution}/{body}/{state_of(draft, body).steps}/{len(draft.events)}"  # inputs may have one time
    return Surroundings({"input": names["input"], "execution": names["execution"]}, draft.at, seed)

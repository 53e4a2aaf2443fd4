"""The calls of statecharts: actions one after the other in the order of the steps, invocations at once."""

from collections.abc import Iterator, Sequence
from typing import Any

from perdure.actors import agent_turns, kinds
from perdure.actors.chart_state import ChartState
from perdure.actors.draft import Draft
from perdure.actors.failures import fail_attempt
from perdure.actors.macrostep import Asked
from perdure.actors.state import SETTLED, NodeState
from perdure.definitions.chart_plan import ENTERED
from perdure.definitions.paths import UNDO, entry_of, node_in
from perdure.errors import ExpressionError
from perdure.events.vocabulary import CallQueued, Error


def call_path(body: str, chart: ChartState, calls: Sequence[Asked], number: int) -> str:
    """Return the path of a call of a step; where it is asked for again while its state is active, with a number."""
    asked = calls[number]
    path = node_in(entry_of(body, asked.state, asked.entry), asked.name)
    times = chart.asked.get(path, 0) + sum(
        (each.state, each.entry, each.name) == (asked.state, asked.entry, asked.name) for each in calls[: number + 1]
    )
    return path if times == 1 else f"{path}{UNDO[0]}{times}"


def begin_call(draft: Draft, body: str, path: str, value: Any, secrets: list[str], *, invoked: bool = False) -> None:
    """Begin a call, or let it wait for its turn: what a state invokes waits for nothing."""
    if not invoked and (draft.state.paused or _queue(draft, body) or is_busy(draft, body)):
        draft.emit(CallQueued(path, value, secrets))
    else:
        start(draft, path, 1, value, secrets)


def next_call(draft: Draft, body: str) -> None:
    """Begin the call whose turn it is, if none is under way."""
    while (queue := _queue(draft, body)) and not draft.state.paused and draft.is_live(body):
        if is_busy(draft, body):
            return
        start(draft, queue[0].node, 1, queue[0].input, queue[0].secrets)


def start(draft: Draft, path: str, attempt: int, value: Any, secrets: list[str]) -> None:
    """Begin an attempt at a call; `value` is its input, of a workflow with the child's id."""
    node = draft.plan.node(path)
    if node.timeout is not None and (node.kind == "workflow" or node.takes_turns):
        draft.arm("timeout", path, node.timeout)
    if node.kind != "workflow":
        try:
            agent_turns.ask(draft, path, attempt, value, secrets)
        except ExpressionError as error:
            fail_attempt(draft, path, attempt, Error("ExpressionError", str(error)))
        return
    try:
        kinds.request_child(draft, path, attempt, value["input"], value["id"])
    except kinds.Failed as failure:
        fail_attempt(draft, path, attempt, failure.error)


def is_busy(draft: Draft, body: str) -> bool:
    """Say whether an action's call is under way."""
    return any(node.status not in SETTLED and not invoked for _, node, invoked in calls_of(draft, body))


def calls_of(draft: Draft, body: str) -> Iterator[tuple[str, NodeState, bool]]:
    """Yield the calls of a statechart that are not forgotten: path, node, and whether a state invokes it."""
    state, chart = draft.state.body(body), draft.plan.body(body).chart
    if state is None or chart is None:
        return
    for name, node in state.nodes.items():
        invoked = {each.call for each in chart.states[name].invokes}
        for entry, inner in node.bodies.items():
            for call, each in inner.nodes.items():
                if call != ENTERED and not call.endswith(UNDO):
                    yield node_in(entry_of(body, name, int(entry)), call), each, call in invoked


def _queue(draft: Draft, body: str) -> tuple[CallQueued, ...]:
    state = draft.state.body(body)
    return state.chart.calls if state is not None and state.chart is not None else ()

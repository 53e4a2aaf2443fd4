"""How a fork folds: the past of another execution, with what begins anew forgotten and the rest marked as reused."""

from collections.abc import Iterable, Iterator

import msgspec
from immutables import Map

from perdure.actors.chart_fold import around
from perdure.actors.chart_state import ChartState
from perdure.actors.state import SETTLED, BodyState, NodeState, Started
from perdure.actors.tree import with_body, without_node
from perdure.definitions.paths import UNDO, body_of, chart_of, name_of
from perdure.events.entry import Entry, from_data
from perdure.events.vocabulary import CallQueued, Event, ExecutionForked, ExecutionStarted

_replace = msgspec.structs.replace


def entries(event: ExecutionForked) -> list[Entry]:
    """Return the entries of the past; none where its blob was not read. Raises CorruptEntry."""
    return [from_data(data) for data in event.past or ()]


def with_past(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events, those of the past of a fork, and of that one's past, in their places."""
    for event in events:
        yield event
        if isinstance(event, ExecutionForked):
            yield from with_past(each for entry in entries(event) for each in entry.events)


def forked(started: ExecutionStarted, past: Started, anew: list[str]) -> Started:
    """Return the state in which a fork begins: what was done is kept, nothing is under way, and it has not ended."""
    state = Started(
        started, _begun_again(past.main), signals=past.signals, signalled=past.signalled, inputs=past.inputs,
        completed=past.completed,
    )  # fmt: skip
    for path in anew:
        state = _asked_again(_forgotten(state, path), past, path)
    return _replace(state, main=_reused(state.main))


def _begun_again(main: BodyState) -> BodyState:
    """Return the main body as one that has not ended."""
    return BodyState(nodes=main.nodes, settled=main.settled, chart=main.chart)


def _forgotten(state: Started, path: str) -> Started:
    """Forget a node; of a statechart's call nothing is left, of any other its place in its body."""
    if state.node(path) is None:
        return state
    if around(state, path) is not None:
        return without_node(state, path)
    at = body_of(path)
    body = state.body(at) or BodyState()
    node = body.nodes[name_of(path)]
    settled = body.settled - (node.status in SETTLED and not path.endswith(UNDO))
    return with_body(state, at, _replace(body, nodes=body.nodes.delete(name_of(path)), settled=settled))


def _asked_again(state: Started, past: Started, path: str) -> Started:
    """Put a call of a statechart, which nothing else would begin again, before those that wait for their turn."""
    node = past.node(path)
    if path.endswith(UNDO) or node is None or around(past, path) is None:
        return state
    body = state.body(chart_of(path)) or BodyState()
    chart = body.chart or ChartState()
    call = CallQueued(path, node.input, node.secrets)
    begun = sum(past.node(each.node) is not None for each in chart.calls)  # those that were put there before
    calls = (*chart.calls[:begun], call, *chart.calls[begun:])
    return with_body(state, chart_of(path), _replace(body, chart=_replace(chart, calls=calls)))


def _reused(body: BodyState) -> BodyState:
    """Return a body whose nodes that are done are marked as reused: no child of theirs, and nothing to undo."""
    nodes = Map({name: _node_reused(node) for name, node in body.nodes.items() if not name.endswith(UNDO)})
    return _replace(body, nodes=nodes)


def _node_reused(node: NodeState) -> NodeState:
    bodies = Map({key: _reused(body) for key, body in node.bodies.items()})
    done = node.status in ("succeeded", "caught")
    return _replace(node, bodies=bodies, child="", reused=done)

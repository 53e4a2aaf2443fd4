"""The tree of bodies and nodes in a state, and the one way to change it."""

from typing import Any

import msgspec
from immutables import Map

from perdure.actors.state import (
    SETTLED,
    BodyState,
    NodeState,
    Started,
)
from perdure.definitions.paths import UNDO, Step, body_of, name_of, owner_of, steps_to

_replace = msgspec.structs.replace


def known(state: Started, path: str) -> NodeState:
    """Return the node at a path; one that has not begun is as if it ran."""
    return state.node(path) or NodeState("running")


def with_node(state: Started, path: str, node: NodeState) -> Started:
    """Return the state with a node as given; a body counts those that will not change any more."""
    running = state.running.set(path, node) if node.status == "running" else without(state.running, path)
    waiting = state.waiting.set(path, node) if node.status == "waiting" else without(state.waiting, path)
    at, _, name = path.rpartition("/")
    body = (state.body(at) or BodyState()) if at else state.main
    settled = body.settled
    if not name.endswith(UNDO):
        before = body.nodes.get(name)
        settled += (node.status in SETTLED) - (before is not None and before.status in SETTLED)
    body = BodyState(body.status, body.nodes.set(name, node), settled, body.output, body.error, body.chart)
    if not at:
        return _replace(state, main=body, running=running, waiting=waiting)
    return with_body(_replace(state, running=running, waiting=waiting), at, body)


def with_body(state: Started, path: str, body: BodyState) -> Started:
    """Return the state with a body as given."""
    root, steps = steps_to(path)
    if root:
        return _replace(state, ends=state.ends.set(root, _put(state.ends.get(root, body), steps, body)))
    return _replace(state, main=_put(state.main, steps, body))


def _put(outer: BodyState, steps: tuple[Step, ...], body: BodyState) -> BodyState:
    """Return a body in which the one that the steps lead to is replaced."""
    if not steps:
        return body
    name, key = steps[0]
    node = outer.nodes.get(name) or NodeState("open")
    inner = _put(node.bodies.get(key) or BodyState(), steps[1:], body)
    return _replace(outer, nodes=outer.nodes.set(name, _replace(node, bodies=node.bodies.set(key, inner))))


def without(entries: Map[str, Any], key: str) -> Map[str, Any]:
    """Return a map without a key, which need not be there."""
    return entries.delete(key) if key in entries else entries


def without_node(state: Started, path: str) -> Started:
    """Return the state without a node, and without the scaffolding around it that nothing else needs."""
    running, waiting = without(state.running, path), without(state.waiting, path)
    state, (at, _, name) = _replace(state, running=running, waiting=waiting), path.rpartition("/")
    body = state.body(at)
    if body is None or name not in body.nodes:
        return state
    left = _replace(body, nodes=body.nodes.delete(name))
    if left.nodes:
        return with_body(state, at, left)
    owner, key = owner_of(at)
    node = known(state, owner)
    bodies = without(node.bodies, key)
    if bodies:
        return with_node(state, owner, _replace(node, bodies=bodies))
    outer = state.body(body_of(owner)) or BodyState()
    return with_body(state, body_of(owner), _replace(outer, nodes=without(outer.nodes, name_of(owner))))


def to_undo_anew(body: BodyState) -> BodyState:
    """Return a body without the calls that could not undo what is in it: they are made again."""
    nodes = Map[str, NodeState]()
    for name, node in body.nodes.items():
        if not (name.endswith(UNDO) and node.status == "failed"):
            inner = Map({key: to_undo_anew(each) for key, each in node.bodies.items()})
            nodes = nodes.set(name, _replace(node, bodies=inner) if inner else node)
    return _replace(body, nodes=nodes)

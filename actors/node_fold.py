"""How nodes and bodies fold: what each event of theirs makes of a state. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec
from immutables import Map

from perdure.actors import chart_fold
from perdure.actors.state import BodyState, NodeState, NodeStatus, Started
from perdure.actors.tree import known, with_body, with_node, without, without_node
from perdure.actors.usage import added
from perdure.definitions.paths import UNDO, is_within, owner_of
from perdure.events.vocabulary import (
    BodyFailed,
    BodyStarted,
    BodySucceeded,
    BranchTaken,
    CompensationStarted,
    NodeAttemptFailed,
    NodeCancelled,
    NodeCatching,
    NodeCaught,
    NodeCharged,
    NodeFailed,
    NodeOpened,
    NodePlaced,
    NodeQueued,
    NodeResumed,
    NodeScheduled,
    NodeSkipped,
    NodeStuck,
    NodeSucceeded,
    NodeWaiting,
)

_replace = msgspec.structs.replace
_NO_NODES = BodyState().nodes
"""The default itself, which snapshots leave out."""


def _scheduled(state: Started, event: NodeScheduled) -> Started:
    before = state.node(event.node)
    node = NodeState(
        "running", event.attempt, input=event.input, secrets=event.secrets, before=before.before if before else 0,
        limits=event.limits, usage=before.usage if before else None,
    )  # fmt: skip
    return with_node(chart_fold.call_begun(state, event.node), event.node, node)


def _waiting(state: Started, event: NodeWaiting) -> Started:
    node = NodeState("waiting", event.attempt, input=event.input, order=state.completed)
    return _replace(with_node(state, event.node, node), completed=state.completed + 1)


def _opened(state: Started, event: NodeOpened) -> Started:
    return with_node(state, event.node, NodeState("open", event.attempt, input=event.input, secrets=event.secrets))


def _resumed(state: Started, event: NodeResumed) -> Started:
    node = known(state, event.node)
    return with_node(state, event.node, _replace(node, resumed=node.resumed + 1, waits_for=""))


def _queued(state: Started, event: NodeQueued | NodePlaced) -> Started:
    waits_for = event.waits_for if isinstance(event, NodeQueued) else ""
    return with_node(state, event.node, _replace(known(state, event.node), waits_for=waits_for))


def _succeeded(state: Started, event: NodeSucceeded) -> Started:
    before = known(state, event.node)
    bodies = _to_keep(before.bodies)
    by_its_child = before.status == "waiting" and before.child not in state.children  # else by hand
    of_chart = not event.node.endswith(UNDO) and chart_fold.around(state, event.node) is not None
    if of_chart and not (by_its_child and before.child):
        return without_node(state, event.node)  # nobody reads it: its chart is told
    node = NodeState(
        "succeeded", event.attempt, output=event.output, order=state.completed, choice=before.choice,
        input=before.input if bodies or before.status != "open" else None, bodies=bodies, secrets=before.secrets,
        child=before.child if by_its_child else "", usage=added(before.usage, event.usage),
    )  # fmt: skip
    state = with_node(state, event.node, node)
    if event.node.endswith(UNDO):
        undone = event.node.removesuffix(UNDO)
        state = with_node(state, undone, _replace(known(state, undone), status="compensated", bodies=Map()))
        state = _replace(state, undone=state.undone.set(undone, state.undone.get(undone, 0) + 1))
        state = _tried_to_undo(state, undone)
    return _replace(state, completed=state.completed + 1)


def _to_keep(bodies: Map[str, BodyState]) -> Map[str, BodyState]:
    """Return a node's bodies that a later compensation would undo, and those before them, which `loop.last` reads."""
    if not bodies:
        return bodies
    kept = {key for key, body in bodies.items() if body.nodes}
    kept |= {str(int(key) - 1) for key in kept if key.isdecimal()}
    return Map({key: body for key, body in bodies.items() if key in kept})


def _tried_to_undo(state: Started, path: str) -> Started:
    """Strike a node off what is still to be compensated."""
    for within, started in state.undoing.items():
        if path in started.undo:
            rest = [each for each in started.undo if each != path]
            return _replace(state, undoing=state.undoing.set(within, _replace(started, undo=rest)))
    return state


def _charged(state: Started, event: NodeCharged) -> Started:
    before = known(state, event.node)
    return with_node(state, event.node, _replace(before, usage=added(before.usage, event.usage)))


def _attempt_failed(state: Started, event: NodeAttemptFailed) -> Started:
    return _with_error(state, event, "retrying")


def _failed(state: Started, event: NodeFailed) -> Started:
    state = _with_error(state, event, "failed")
    return _tried_to_undo(state, event.node.removesuffix(UNDO)) if event.node.endswith(UNDO) else state


def _catching(state: Started, event: NodeCatching) -> Started:
    return _with_error(state, event, "catching", choice=[event.handler])


def _caught(state: Started, event: NodeCaught) -> Started:
    return _with_error(state, event, "caught", output=event.output)


def _with_error(
    state: Started,
    event: NodeAttemptFailed | NodeFailed | NodeCatching | NodeCaught | NodeStuck,
    status: NodeStatus,
    **parts: Any,
) -> Started:
    """Put a failed attempt down; what was within the node is forgotten, for it has been compensated."""
    before = known(state, event.node)
    node = NodeState(
        status, event.attempt, input=before.input, error=event.error, before=before.before, secrets=before.secrets,
        limits=before.limits, usage=before.usage, **parts,
    )  # fmt: skip
    return with_node(_undone(state, event.node), event.node, node)


def _skipped(state: Started, event: NodeSkipped) -> Started:
    before = state.node(event.node)  # of one that is skipped by hand what is within may still be compensated
    bodies = _to_keep(before.bodies) if before is not None else Map[str, BodyState]()
    value = before.input if before is not None and bodies else None
    return with_node(state, event.node, NodeState("skipped", input=value, reason=event.reason, bodies=bodies))


def _cancelled(state: Started, event: NodeCancelled) -> Started:
    node = _replace(known(state, event.node), status="cancelled", reason=event.reason, waits_for="")
    return with_node(state, event.node, node)


def _branch_taken(state: Started, event: BranchTaken) -> Started:
    return with_node(state, event.node, _replace(known(state, event.node), choice=event.then))


def _body_started(state: Started, event: BodyStarted) -> Started:
    state = with_body(state, event.body, BodyState())
    if not event.forgets:
        return state
    owner, _ = owner_of(event.body)
    node = known(state, owner)
    return with_node(state, owner, _replace(node, bodies=without(node.bodies, event.forgets)))


def _body_succeeded(state: Started, event: BodySucceeded) -> Started:
    before = state.body(event.body) or BodyState()
    if not owner_of(event.body)[0]:  # the main one, or one of the end: its nodes are shown
        return with_body(state, event.body, _replace(before, status="succeeded", output=event.output))
    nodes = Map({name: before.nodes[name] for name in event.keep}) if event.keep else _NO_NODES
    chart = before.chart if nodes else None
    return _with_end(state, event.body, BodyState("succeeded", nodes, output=event.output, chart=chart))


def _with_end(state: Started, path: str, body: BodyState) -> Started:
    """Put a body down as ended, and count it in its node; one that had succeeded may fail by losing a race."""
    owner, key = owner_of(path)
    node = state.node(owner) or NodeState("open")
    before = node.bodies.get(key)
    ended = node.ended + (before is None or before.status == "running")
    failed, bodies = node.failed + (body.status == "failed"), node.bodies.set(key, body)
    return with_node(state, owner, _replace(node, ended=ended, failed=failed, bodies=bodies))


def _body_failed(state: Started, event: BodyFailed) -> Started:
    state = _undone(state, event.body)
    if owner_of(event.body)[0]:
        return _with_end(state, event.body, BodyState("failed", error=event.error))
    before = state.body(event.body) or BodyState()
    return with_body(state, event.body, _replace(before, status="failed", error=event.error))


def _compensating(state: Started, event: CompensationStarted) -> Started:
    state = _undone(state, event.within)
    return _replace(state, undoing=state.undoing.set(event.within, event))


def _undone(state: Started, within: str) -> Started:
    """End the compensation of a part, and of what lies within it."""
    undoing = state.undoing
    for key in undoing:
        if key == within or is_within(key, within):
            undoing = undoing.delete(key)
    return _replace(state, undoing=undoing)


def _stuck(state: Started, event: NodeStuck) -> Started:
    state = _with_error(state, event, "stuck")
    return with_node(state, event.node, _replace(known(state, event.node), before=event.attempt))


NODE_FOLD: dict[type, Callable[[Started, Any], Started]] = {
    NodeStuck: _stuck,
    NodeScheduled: _scheduled,
    NodeWaiting: _waiting,
    NodeOpened: _opened,
    NodeResumed: _resumed,
    NodeQueued: _queued,
    NodePlaced: _queued,
    NodeSucceeded: _succeeded,
    NodeCharged: _charged,
    NodeAttemptFailed: _attempt_failed,
    NodeFailed: _failed,
    NodeCatching: _catching,
    NodeCaught: _caught,
    NodeSkipped: _skipped,
    NodeCancelled: _cancelled,
    BranchTaken: _branch_taken,
    BodyStarted: _body_started,
    BodySucceeded: _body_succeeded,
    BodyFailed: _body_failed,
    CompensationStarted: _compensating,
}
"""The state after each event of a node, or of a body."""

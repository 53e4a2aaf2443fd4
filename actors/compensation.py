"""Compensation: what was completed within a part of the execution is undone, the last first, one after the other."""

from typing import Literal

from perdure.actors.draft import Draft
from perdure.actors.kinds import Failed, start
from perdure.actors.state import BodyState, NodeState
from perdure.definitions.paths import UNDO, inner_body, node_in
from perdure.errors import ExpressionError
from perdure.events.vocabulary import CompensationStarted, Error, ExecutionFailing, NodeFailed

_Found = tuple[bool, int, str]
"""A node to undo: whether that is under way, its place in the order of completion, its path."""


def compensate(
    draft: Draft,
    within: str,
    kind: Literal["execution", "node", "body"],
    error: Error,
    failing: ExecutionFailing | None = None,
) -> bool:
    """Begin to undo what was completed there; False where there is nothing to undo."""
    undo = to_undo(draft, within, kind)
    if not undo:
        return False
    if failing is not None:
        draft.emit(failing)
    draft.emit(CompensationStarted(within, kind, undo, error))
    go_on(draft, within)
    return True


def go_on(draft: Draft, within: str) -> None:
    """Undo the next node; when all are, go on with what the compensation was for."""
    while undo := draft.state.undoing[within].undo:
        call = undo[0] + UNDO
        if draft.state.paused or draft.state.node(call) is not None:  # it is under way
            return
        try:
            start(draft, call, 1)
        except ExpressionError as problem:
            draft.emit(NodeFailed(call, 1, Error("ExpressionError", str(problem))))
        except Failed as failure:
            draft.emit(NodeFailed(call, 1, failure.error))
    draft.later("undone", within)


def to_keep(draft: Draft, body: str) -> list[str]:
    """Return the nodes of a body that a later compensation would undo, or go through, or read."""
    nodes, kept = draft.plan.body(body).nodes, set[str]()
    for path in to_undo(draft, body, "body"):
        kept.add(path.removeprefix(f"{body}/").partition("/")[0].partition("[")[0])
        kept |= draft.plan.node(path + UNDO).reads & nodes.keys()
    return [name for name in nodes if name in kept]


def to_undo(draft: Draft, within: str, kind: Literal["execution", "node", "body"]) -> list[str]:
    """Return the completed nodes there that can be undone: those under way already, then the last completed first."""
    found: list[_Found] = []
    node = draft.state.node(within) if kind == "node" else None
    if node is not None:
        for key, body in node.bodies.items():
            found += _in_body(draft, inner_body(within, key), body)
    elif kind != "node" and (state := draft.state.body(within)) is not None:
        found += _in_body(draft, within, state)
    return [path for _, _, path in sorted(found, reverse=True)]


def _in_body(draft: Draft, at: str, body: BodyState) -> list[_Found]:
    found: list[_Found] = []
    for name, node in body.nodes.items():
        if not name.endswith(UNDO):
            found += _in_node(draft, node_in(at, name), node, body.nodes.get(name + UNDO))
    return found


def _in_node(draft: Draft, path: str, node: NodeState, call: NodeState | None) -> list[_Found]:
    if node.reused:
        return []
    undo = draft.plan.node(path).undo if node.status == "succeeded" else None
    if undo is not None and (undo.kind != "compensation" or node.child):  # which stands for what is within it
        # One that could not be undone is not tried again by an error that goes out further.
        return [] if call is not None and call.status == "failed" else [(call is not None, node.order, path)]
    return [each for key, body in node.bodies.items() for each in _in_body(draft, inner_body(path, key), body)]

"""Compensation: what was completed within a part of the execution is undone, the last first, one after the other."""

from typing import Literal

from perdure.actors.draft import Draft
from perdure.actors.kinds import start_undo
from perdure.actors.state import BodyState, NodeState
from perdure.definitions.paths import ENDS, UNDO, inner_body, node_in
from perdure.errors import ExpressionError
from perdure.events.vocabulary import CompensationStarted, Error, ExecutionFailing, NodeFailed


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
    for path in draft.state.undoing[within].undo:
        call = path + UNDO
        node = draft.state.node(call)
        if node is not None and node.status in ("succeeded", "failed"):
            continue
        if node is None or node.status == "cancelled":  # by an error that went out further meanwhile
            try:
                start_undo(draft, call)
            except ExpressionError as problem:
                draft.emit(NodeFailed(call, 1, Error("ExpressionError", str(problem))))
                continue
        return
    draft.later("undone", within)


def to_undo(draft: Draft, within: str, kind: Literal["execution", "node", "body"]) -> list[str]:
    """Return the nodes completed there that can be undone, the last completed first."""
    found: list[tuple[int, str]] = []
    node = draft.state.node(within) if kind == "node" else None
    if node is not None:
        for key, body in node.bodies.items():
            found += _in_body(draft, inner_body(within, key), body)
    elif kind != "node" and (state := draft.state.body(within)) is not None:
        found += _in_body(draft, within, state)
    return [path for _, path in sorted(found, reverse=True)]


def _in_body(draft: Draft, at: str, body: BodyState) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for name, node in body.nodes.items():
        if not name.endswith(UNDO) and name not in ENDS:
            found += _in_node(draft, node_in(at, name), node)
    return found


def _in_node(draft: Draft, path: str, node: NodeState) -> list[tuple[int, str]]:
    if node.status == "succeeded" and draft.plan.node(path).undo is not None:
        return [(node.order, path)]  # its own compensation stands for what is within it
    return [each for key, body in node.bodies.items() for each in _in_body(draft, inner_body(path, key), body)]

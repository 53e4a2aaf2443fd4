"""An execution that had succeeded, and is undone because the one that asked for it is."""

from perdure.actors.compensation import compensate
from perdure.actors.draft import Draft
from perdure.actors.inputs import CompensateExecution
from perdure.actors.state import ExecutionState, NotStarted, Purged
from perdure.definitions.paths import UNDO
from perdure.events.vocabulary import Error, ExecutionCompensated, ExecutionCompensating

TOLD = 10
"""Nodes that could not be undone of which the parent is told by name: its own log is to stay small."""


def refusal(execution: str, state: ExecutionState, given: CompensateExecution) -> str | None:
    """Say why an execution cannot be undone for this parent; None where it can be, or was for this command."""
    if isinstance(state, NotStarted):
        return f"there is no execution {execution!r}"
    if isinstance(state, Purged):
        return f"the past of child {execution!r} has been removed"
    if state.compensating is not None and state.compensating.command == given.id:
        return None
    parent = state.started.parent
    if parent is None or (parent.execution, parent.node + UNDO) != (given.parent.execution, given.parent.node):
        return f"execution {execution!r} is no child of that node"
    return None if state.status in ("succeeded", "compensated") else f"child {execution!r} is {state.status}"


def begin(draft: Draft, given: CompensateExecution) -> None:
    """Undo all that completed in it; what could not be undone once is tried again."""
    if refusal(draft.execution, draft.state, given) is None:
        draft.emit(ExecutionCompensating(given.id, given.error))
        if not compensate(draft, "", "execution", given.error):
            end(draft)


def end(draft: Draft) -> None:
    """Let it be undone, but for what could not be."""
    failed = {
        path.removesuffix(UNDO): node.error.type
        for path, node in sorted(draft.state.nodes.items())
        if path.endswith(UNDO) and node.error is not None
    }
    if not failed:
        draft.emit(ExecutionCompensated())
        return
    told = [f"{path!r} ({kind})" for path, kind in failed.items()][:TOLD]
    more = f", and {len(failed) - TOLD} more" if len(failed) > TOLD else ""
    message = f"child {draft.execution!r} could not undo {', '.join(told)}{more}"
    draft.emit(ExecutionCompensated(Error("CompensationFailed", message)))

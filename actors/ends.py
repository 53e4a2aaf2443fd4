"""How an execution ends: the bodies that run last, in their order, and then its outcome."""

from typing import Any

from perdure.actors.draft import Draft
from perdure.actors.failures import leave_root
from perdure.definitions.templates import render
from perdure.errors import ExpressionError
from perdure.events.vocabulary import (
    BodySucceeded,
    Error,
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionSucceeded,
)


def main_done(draft: Draft) -> None:
    """Let the main body succeed: all its nodes are settled, and none failed for good."""
    try:
        output = _output(draft)
    except ExpressionError as error:
        leave_root(draft, "", Error("ExpressionError", f"output: {error}"), None, 0)
        return
    draft.disarm("")  # its timeout
    if "finally" in draft.plan.ends:
        draft.emit(BodySucceeded("", output))
        draft.later("end")
    else:
        draft.emit(ExecutionSucceeded(output))


def end(draft: Draft) -> None:
    """Begin the next of the bodies that run at the end, or end."""
    state = draft.state
    first = "on_cancel" if state.cancelling else "on_failure" if state.failing else None
    for name in (first, "finally"):
        if name is None or name not in draft.plan.ends:
            continue
        body = state.ends.get(name)
        if body is None:
            draft.begin_body(name)
        if body is None or body.status == "running":
            return
    last = state.ends.get("finally")
    if state.cancelling:
        draft.emit(ExecutionCancelled(state.cancelling.reason))
    elif state.failing:
        draft.emit(ExecutionFailed(state.failing.error, state.failing.node, state.failing.attempt))
    elif last is not None and last.error is not None:
        draft.emit(ExecutionFailed(last.error, _failed_in(draft, "finally")))
    else:
        draft.emit(ExecutionSucceeded(state.main.output))


def _failed_in(draft: Draft, name: str) -> str | None:
    nodes = draft.state.ends[name].nodes
    failed = (each for each in draft.plan.ends[name].nodes if each in nodes and nodes[each].status == "failed")
    return next((f"{name}/{each}" for each in failed), None)


def _output(draft: Draft) -> Any:
    main = draft.plan.main
    if main.chart is not None and main.output is None:
        return draft.state.main.chart.output if draft.state.main.chart is not None else None
    if main.output is not None:
        return render(main.output, draft.names("", main.output_reads))
    return {name: draft.state.main.nodes[name].output for name in main.leaves}

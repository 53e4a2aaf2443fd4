"""Children: what their parent makes of what they say, and what it still owes to them."""

from collections.abc import Iterator

from perdure.actors import flow
from perdure.actors.draft import Draft
from perdure.actors.failures import fail_attempt
from perdure.actors.inputs import CompensateExecution, ReportChild, ReportCompensation
from perdure.actors.state import Started
from perdure.definitions.paths import UNDO
from perdure.events.vocabulary import ChildEnded, ChildRequested, Parent


def ended(draft: Draft, given: ReportChild) -> None:
    """Let the node that waits for a child go on with its output, or fail with its error."""
    request = draft.state.children.get(given.child)
    if request is None:
        return
    draft.emit(ChildEnded(given.child))
    if not is_awaited(draft.state, request):
        return
    if given.error is not None:
        fail_attempt(draft, request.node, request.attempt, given.error)
    else:
        flow.complete(draft, request.node, request.attempt, given.output)


def undone(draft: Draft, given: ReportCompensation) -> None:
    """Let the call that waits for a child to be undone go on, or fail with the reason why it is not."""
    node = draft.state.waiting.get(given.node)
    if node is None or node.input != {"compensation": given.child}:
        return
    if given.error is not None:
        fail_attempt(draft, given.node, node.attempt, given.error)
    else:
        flow.complete(draft, given.node, node.attempt, None)


def is_awaited(state: Started, request: ChildRequested) -> bool:
    """Say whether the node that asked for a child still waits for it."""
    node = state.node(request.node)
    return (
        state.outcome is None
        and node is not None
        and (node.status, node.attempt) == ("waiting", request.attempt)
        and node.input["child"] == request.child
    )


def to_start(state: Started) -> Iterator[ChildRequested]:
    """Yield the children that should have been started."""
    return (each for each in state.children.values() if each.detached or is_awaited(state, each))


def to_close(state: Started) -> Iterator[ChildRequested]:
    """Yield the children that nobody waits for any more, and that are not to go on alone."""
    for each in state.children.values():
        if not each.detached and each.on_close != "abandon" and not is_awaited(state, each):
            yield each


def to_compensate(execution: str, state: Started) -> Iterator[CompensateExecution]:
    """Yield the commands to children that are to undo what they did.

    Their ids say how often the parent was retried: a child that could not be undone then is told again now.
    """
    for started in state.undoing.values():
        for path in started.undo[:1]:  # one after the other
            node = state.waiting.get(path + UNDO)
            if node is not None and "compensation" in node.input:
                child = node.input["compensation"]
                often = f"+{state.retries}" if state.retries else ""
                parent = Parent(execution, path + UNDO, node.attempt, state.started.lane)
                yield CompensateExecution(f"{child}/compensate{often}", child, parent, started.error)

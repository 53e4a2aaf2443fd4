"""Children: what their parent makes of their end, and what it still owes to them."""

from collections.abc import Iterator

from perdure.actors import flow
from perdure.actors.draft import Draft
from perdure.actors.failures import fail_attempt
from perdure.actors.inputs import ReportChild
from perdure.actors.state import Started
from perdure.events.vocabulary import ChildEnded, ChildRequested


def ended(draft: Draft, given: ReportChild) -> None:
    """Let the node that waits for a child go on with its output, or fail with its error."""
    request = draft.state.children.get(given.child)
    if request is None:
        return
    draft.emit(ChildEnded(given.child))
    if draft.over or not is_awaited(draft.state, request):
        return
    if given.error is not None:
        fail_attempt(draft, request.node, request.attempt, given.error)
    else:
        flow.complete(draft, request.node, request.attempt, given.output)


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

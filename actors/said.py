"""What was said at an agent's node, found in its log: the transcript that an error leaves behind."""

from collections.abc import Iterable

from perdure.actors.evolve import evolve
from perdure.actors.state import INITIAL, ExecutionState, NodeState, Started
from perdure.actors.transcripts import Said, conversation
from perdure.events.vocabulary import Event


def said_in(events: Iterable[Event], path: str) -> list[Said]:
    """Return the last conversation at a node that the events tell of; nothing where it had none."""
    state: ExecutionState = INITIAL
    last: NodeState | None = None
    for event in events:
        state = evolve(state, event)
        node = state.node(path) if isinstance(state, Started) else None
        if node is not None and node.bodies:
            last = node
    return conversation(last, last.input) if last is not None else []

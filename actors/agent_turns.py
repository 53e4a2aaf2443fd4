"""How the work of an agent begins: one question to its model, or a conversation in turns."""

from typing import Any

from perdure.actors.draft import Draft
from perdure.definitions.agent_plan import agent_of
from perdure.events.vocabulary import NodeOpened


def ask(draft: Draft, path: str, attempt: int, value: Any, secrets: list[str]) -> None:
    """Have a worker do an attempt at a call, or open the node of an agent that takes turns."""
    node = draft.plan.node(path)
    if not node.takes_turns:
        draft.schedule(path, attempt, value, secrets)
        return
    budget = draft.plan.agents[agent_of(node)].budget
    if budget.time is not None:
        draft.arm("budget", path, budget.time)
    draft.emit(NodeOpened(path, attempt, value, secrets))
    draft.later("progress", path)

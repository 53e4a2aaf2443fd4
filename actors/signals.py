"""Signals: which of those that came before fits a node, and which node waits for one that comes now."""

from typing import Any

from perdure.actors.draft import Draft
from perdure.definitions.data_words import misfits


def next_signal(draft: Draft, signal: str, schema: dict[str, Any] | None) -> tuple[int | None, Any]:
    """Return the place and the data of the oldest signal that came before and fits; the place is None without one."""
    for number, data in enumerate(draft.state.signals.get(signal, ())):
        if misfit(schema, data) is None:
            return number, data
    return None, None


def waiting_for(draft: Draft, signal: str) -> list[str]:
    """Return the nodes that wait for a signal, who has waited longest first."""
    found = [(node.order, path) for path, node in draft.state.waiting.items() if node.input.get("signal") == signal]
    return [path for _, path in sorted(found)]


def misfit(schema: dict[str, Any] | None, data: Any, name: str = "data") -> str | None:
    """Say where data, which messages call by this name, breaks a JSON Schema; None where it does not."""
    return None if schema is None else "; ".join(misfits(schema, data, name)) or None

"""The joins: whether a node may run, given how its needs ended. The table is docs/joins.csv; tests hold us to it."""

from collections.abc import Collection

from perdure.actors.state import NodeStatus
from perdure.definitions.nodes import Join

GOOD: frozenset[NodeStatus] = frozenset({"succeeded", "caught"})
BAD: frozenset[NodeStatus] = frozenset({"failed", "cancelled", "compensated"})


def why_not(join: Join, needs: Collection[NodeStatus]) -> str | None:
    """Return why a node is skipped whose needs ended like this, or None where it runs."""
    if not needs or join == "all_done":
        return None
    if all(status == "skipped" for status in needs):
        return "everything it needs was skipped"
    if join == "any_succeeded":
        return None if any(status in GOOD for status in needs) else "nothing that it needs succeeded"
    if any(status in BAD for status in needs):
        return "something that it needs failed"
    if join == "all_succeeded" and any(status == "skipped" for status in needs):
        return "something that it needs was skipped"
    return None

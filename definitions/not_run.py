"""What this release loads and checks, and does not run yet: a start that needs it is refused, not half done."""

from collections.abc import Iterator

from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow
from perdure.definitions.nodes import Node
from perdure.definitions.places import bodies_of
from perdure.definitions.yaml_source import Path

_WORKFLOW = ("limits", "concurrency")
_NODE = ("limit", "priority")


def not_run(workflow: Workflow) -> Iterator[Finding]:
    """Yield every part of a sound workflow, or of those that it carries, that would be left undone."""
    for key in _WORKFLOW:
        if getattr(workflow, key):
            yield Finding((key,), f"{key!r} is checked, and has no effect yet", key=True)
    for body in bodies_of(workflow):
        for node, at in body.nodes.values():
            yield from _in_node(node, at)
    for name, child in workflow.workflows.items():
        yield from (Finding(("workflows", name, *each.path), each.message, key=each.key) for each in not_run(child))


def _in_node(node: Node, at: Path) -> Iterator[Finding]:
    for key in _NODE:
        if getattr(node, key) is not None:
            yield Finding((*at, key), f"{key!r} is checked, and has no effect yet", key=True)

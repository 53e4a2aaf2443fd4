"""What this release loads and checks, and does not run yet: a start that needs it is refused, not half done."""

from collections.abc import Iterator

from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow

_WORKFLOW = ("search",)


def not_run(workflow: Workflow) -> Iterator[Finding]:
    """Yield every part of a sound workflow, or of those that it carries, that would be left undone."""
    for key in _WORKFLOW:
        if getattr(workflow, key):
            yield Finding((key,), f"{key!r} is checked, and has no effect yet", key=True)
    for name, child in workflow.workflows.items():
        yield from (Finding(("workflows", name, *each.path), each.message, key=each.key) for each in not_run(child))

"""Checks what expressions read against the JSON Schemas that are known."""

from collections.abc import Iterator

from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow


def type_findings(workflow: Workflow) -> Iterator[Finding]:
    """Yield reads that cannot succeed by the schemas of what they read."""
    yield from ()

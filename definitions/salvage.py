"""What is left of a malformed document without its malformed parts, so that the rest is checked all the same."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from perdure.definitions.findings import Finding
from perdure.definitions.messages import document_path, keys_at
from perdure.definitions.model import Workflow
from perdure.definitions.other_words import meant
from perdure.definitions.yaml_source import Path

_ROUNDS = 4
_CALL = {"tool": "malformed"}
_PLACEHOLDERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("nodes", "do", "on_failure", "on_cancel", "finally", "branches"), _CALL),
    "agents": {"model": "malformed", "instructions": "", "output": {}},
    "limits": {"concurrency": 1},
    "signals": {},
}
"""What stands for a malformed part, so that its name is still known: by the mapping that holds such parts."""

_NEEDED = frozenset({*_PLACEHOLDERS, "workflows", "states", "events", "context", "input", "kind", "initial", "catch"})
"""Keys that are left out in vain: nearly every further finding would follow from that."""


@dataclass(frozen=True)
class Remains:
    """A workflow without its malformed parts, and the names that went with them."""

    workflow: Workflow
    names: set[str] = field(default_factory=set)

    def leaves(self, finding: Finding) -> bool:
        """Return whether a finding is there whatever the malformed parts should have been."""
        return not finding.lack and not any(repr(name) in finding.message for name in self.names)


def remains_of(data: dict[str, Any], error: ValidationError) -> Remains | None:
    """Leave out what is malformed until the rest is well-formed; None where too little would be left."""
    data, names = deepcopy(data), set[str]()
    for number in range(_ROUNDS):
        before = data
        for path, is_key in [document_path(before, item) for item in error.errors(include_url=False)]:
            if not _leave_out(data, path, names, is_key=is_key, whole=number > 0):
                return None
        try:
            return Remains(Workflow.model_validate(data), names)
        except ValidationError as following:
            error = following
    return None


def _leave_out(data: dict[str, Any], path: Path, names: set[str], *, is_key: bool, whole: bool) -> bool:
    """Leave out a value, or (`whole`, or where it is not there) put a placeholder for the part that holds it."""
    while path and isinstance(path[-1], int):
        path = path[:-1]  # the whole list: the places of what stands behind an entry depend on it
    holder = _holder(data, path[:-1])
    if not path:
        return False
    if is_key:
        names.add(str(path[-1]))
        if holder is not None:
            holder.pop(str(path[-1]), None)
        return True
    if _is_part(path) or whole or holder is None or path[-1] not in holder:
        return _replace(data, path)
    needed = _NEEDED - {"do"} if "states" in path else _NEEDED  # the actions of a transition are not a body
    if path[-1] in needed or meant(str(path[-1]), keys_at(Workflow, data, path[:-1])) in needed:
        return False
    del holder[str(path[-1])]
    return True


def _is_part(path: Path) -> bool:
    return len(path) > 1 and path[-2] in _PLACEHOLDERS


def _holder(data: Any, path: Path) -> dict[str, Any] | None:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data if isinstance(data, dict) else None


def _replace(data: dict[str, Any], path: Path) -> bool:
    """Put a placeholder for the innermost part on the way; False where there is none."""
    for length in range(len(path) - 1, 0, -1):
        kind, name = path[length - 1], path[length]
        holder = _holder(data, path[:length])
        if kind in _PLACEHOLDERS and holder is not None and isinstance(name, str):
            holder[name] = deepcopy(_PLACEHOLDERS[str(kind)])
            return True
    return False

"""How a registered workflow is named where it is started: `order`, `order@3`, `order@sha256:ab12cd34`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.errors import BadInput

DIGEST = "sha256:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(@[^\n/{]{0,99})?")
_WHICH = re.compile(r"(?P<version>[1-9][0-9]{0,8})|sha256:(?P<digest>[0-9a-f]{8,64})")
_OF_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Reference:
    """A workflow's name, and the version or the first hex digits of the digest where one is meant."""

    name: str
    version: int | None = None
    digest: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether it names one version, whichever is active."""
        return self.version is not None or self.digest is not None


def is_reference(workflow: Any) -> bool:
    """Say whether what is to be started is named as a registered workflow: a file of that name comes first."""
    return (
        isinstance(workflow, str)
        and _NAME.fullmatch(workflow) is not None
        and not workflow.lower().endswith(_OF_FILES)
        and not Path(workflow).is_file()
    )


def parse_reference(text: str) -> Reference:
    """Return what the text names. Raises BadInput with how to write it."""
    name, at, which = text.partition("@")
    found = _WHICH.fullmatch(which)
    if not _NAME.fullmatch(name) or (at and not found):
        raise BadInput(
            f"{text!r} names no registered workflow: write NAME, NAME@3 for a version, or NAME@sha256:... with at "
            "least 8 hex digits of the digest"
        )
    if found is None:
        return Reference(name)
    return Reference(name, int(found["version"]) if found["version"] else None, found["digest"])

"""Upcasting: entries of earlier formats become entries of today's, one version at a time, when they are read."""

from collections.abc import Callable
from typing import Any

from perdure.errors import CorruptEntry

FORMAT = 1
"""The version that is written. Raise it, with an upcast, when an entry or an event changes incompatibly.

A new event type, or a new field with a default, is compatible and needs neither.
"""

UPCASTS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version: the function that turns the plain JSON of an entry of this version into that of the next one."""


def upcast(raw: dict[str, Any]) -> dict[str, Any]:
    """Bring the plain JSON of an entry up to FORMAT; raise CorruptEntry for one of a newer or a forgotten version."""
    version = raw.get("v", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise CorruptEntry(f"it is of format {version}, and this release reads up to {FORMAT}; upgrade perdure")
    while version < FORMAT:
        if version not in UPCASTS:
            raise CorruptEntry(f"it is of format {version}, which this release cannot bring up to {FORMAT}")
        raw, version = UPCASTS[version](raw), version + 1
    return {**raw, "v": FORMAT}

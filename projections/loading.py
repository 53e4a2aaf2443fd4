"""Finds users' own projections: entry points of the group `perdure.projections`, and `module:Class` in settings."""

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from perdure.errors import BadInput
from perdure.projections.projection import Projection

GROUP = "perdure.projections"


def own_projections(named: Iterable[str]) -> list[Projection]:
    """Return a projection of each class that is installed or named; raise BadInput where one cannot be had."""
    found: dict[str, Any] = {}
    for entry in entry_points(group=GROUP):
        found[entry.value] = _imported(entry.value, f"the entry point {entry.name} of {GROUP}")
    for place in named:
        found.setdefault(place, _imported(place, "the setting projections"))
    return [_made(kind, place) for place, kind in found.items()]


def _imported(place: str, where: str) -> Any:
    module, colon, name = place.partition(":")
    if not colon:
        raise BadInput(f"{where}: {place!r} names no class; write it as module:Class")
    try:
        return getattr(import_module(module.strip()), name.strip())
    except Exception as error:  # whatever a module of somebody else's raises
        raise BadInput(f"{where}: {place} cannot be imported: {type(error).__name__}: {error}") from error


def _made(kind: Any, place: str) -> Projection:
    if not (isinstance(kind, type) and issubclass(kind, Projection)):
        raise BadInput(f"the projection {place} is no subclass of perdure.projections.projection.Projection")
    if not isinstance(getattr(kind, "name", None), str) or not kind.name:
        raise BadInput(f"the projection {place} has no name; set name = '...' in the class")
    if not isinstance(kind.version, int) or kind.version < 1:
        raise BadInput(f"the projection {place} has the version {kind.version!r}; it is a whole number from 1")
    try:
        return kind()
    except Exception as error:
        raise BadInput(f"the projection {place} cannot be made: {type(error).__name__}: {error}") from error

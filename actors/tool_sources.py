"""Where tools are found by name: registered in this process, in files, installed as entry points, or perdure's own."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from perdure.definitions.builtin_tools import BUILTINS
from perdure.errors import BadInput, PerdureError

_log = logging.getLogger("perdure.tools")
GROUP = "perdure.tools"
"""The group of the entry points: a tool (`module:attribute`) under its name, or a module that registers tools."""

VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")

Versions = dict[str, dict[str, str]]
"""The places of one tool by version, with the code that is there.

One file may be imported under two names; two pieces of code of one version are a mistake, told when that is called.
"""


class Shelf:
    """Tools by name and version."""

    def __init__(self) -> None:
        self._tools: dict[str, Versions] = {}

    def put(self, name: str, version: str, place: str, code: str = "") -> None:
        """Add a tool, or say again where it is; code: what names what is there, where the place is not enough."""
        self._tools.setdefault(name, {}).setdefault(version, {})[place] = code or place

    def only(self, name: str, place: str) -> None:
        """Say that a name means this place, in any version."""
        self._tools[name] = {"1": {place: place}}

    def take(self, name: str, version: str | None) -> str | None:
        """Return the place of a version, or of the newest one; None where there is none of this name.

        Raises BadInput for a version that is not there, and where two places have it.
        """
        versions = self._tools.get(name)
        if versions is None:
            return None
        chosen = max(versions, key=_as_numbers) if version is None else version
        if chosen not in versions:
            there = ", ".join(sorted(versions, key=_as_numbers))
            raise BadInput(f"tool {name!r} has no version {chosen}; there is {there}")
        found = versions[chosen]
        if len({*found.values()}) > 1:
            both = " and ".join(sorted(found))
            raise BadInput(
                f"{both} are both tool {name!r} in version {chosen}; give one of them another name or version"
            )
        return max(found, key=lambda each: not each.startswith("__main__:"))  # which others cannot import

    def names(self) -> list[str]:
        """Return the names of all tools."""
        return list(self._tools)

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, version and place of every tool."""
        for name, versions in self._tools.items():
            for version in sorted(versions, key=_as_numbers):
                yield from ((name, version, place) for place in sorted(versions[version]))


def named(name: str) -> tuple[str, str | None]:
    """Return the name and the version of a reference such as `payments.refund@2`."""
    plain, at, version = name.rpartition("@")
    return (plain, version) if at and VERSION.fullmatch(version) else (name, None)


def check_name(name: str, version: str) -> None:
    """Raise BadInput where a tool cannot be registered under a name and version."""
    if name in BUILTINS:
        raise BadInput(f"{name!r} is a tool of perdure's own; register yours under another name: @tool(name=...)")
    if not name or "@" in name or ":" in name:
        raise BadInput(f"{name!r} is no name of a tool: it has no ':' and no '@'")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise BadInput(f"the version {version!r} of tool {name!r} is not written as numbers with points, such as '2.1'")


def entry_point_tools(load: Callable[[str, str], object], version_at: Callable[[str], str]) -> Shelf:
    """Return the tools of entry points that name one; modules are loaded, so that they register theirs.

    One that cannot be loaded stands among them by its own name, under which it says why; it keeps no other from use.
    load: imports a module for a tool's place. version_at: the version of the tool at a place.
    """
    shelf = Shelf()
    for each in _entry_points():
        if each.attr:
            shelf.put(each.name, version_at(each.value), each.value)
            continue
        try:
            load(each.value, each.value)
        except PerdureError as error:
            _log.warning("the tools of the entry point %s are missing: %s", each.name, error)
            shelf.put(each.name, "1", f"{each.value}:{each.name}")
    return shelf


@lru_cache(maxsize=1)
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def builtin_tools() -> Shelf:
    """Return the tools of perdure's own."""
    shelf = Shelf()
    for each in BUILTINS.values():
        shelf.put(each.name, "1", each.place)
    return shelf


def split(given: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files and the modules among what the setting `tools` names."""
    files = [each for each in given if each.endswith(".py")]
    return files, [each for each in given if not each.endswith(".py")]


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

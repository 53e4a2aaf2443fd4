"""Files that a definition names: shared agents and tools by `include`, and child workflows by their path."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from perdure.definitions.yaml_source import Path, Source, parse_yaml
from perdure.errors import BadInput, DefinitionError, Problem

SHARED = ("tools", "mcp", "agents", "endpoints", "limits", "workflows")
_FILE = re.compile(r"\.(ya?ml|json)$")
_DATA = frozenset({"with", "set", "output", "input", "context", "initial", "data", "details", "form", "schema"})
"""Keys whose values are the user's own data, in which nothing is a workflow."""


def read_source(file: FilePath, shown: str) -> Source:
    """Read a definition with all that it names, as one document; positions keep their own files.

    Raises BadInput when the file cannot be read, and DefinitionError for what is wrong with its includes.
    """
    return _read(file, shown, (), file.resolve().parent)


def _read(file: FilePath, shown: str, trail: tuple[FilePath, ...], base: FilePath) -> Source:
    source = parse_yaml(read_text(file, shown), shown)
    if not isinstance(source.data, dict):
        return source
    trail = (*trail, file.resolve())
    _rebase_tools(source.data, file.resolve().parent, base)
    _include_all(source, file.parent, shown, trail, base)
    _take_in_children(source, file.parent, shown, trail, base)
    return source


def read_text(path: FilePath, shown: str) -> str:
    """Return the text of a file. Raises BadInput naming why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{shown}: there is no such file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{shown}: not a text file in UTF-8") from None
    except OSError as error:
        raise BadInput(f"{shown}: cannot be read: {error.strerror}") from None


def _rebase_tools(data: dict[str, Any], folder: FilePath, base: FilePath) -> None:
    """Write tool files relative to the main definition, from which they are looked for."""
    tools = data.get("tools")
    if folder != base and isinstance(tools, list):
        data["tools"] = [
            f"./{os.path.relpath(folder / tool, base)}" if isinstance(tool, str) else tool for tool in tools
        ]


def _include_all(source: Source, folder: FilePath, shown: str, trail: tuple[FilePath, ...], base: FilePath) -> None:
    names = source.data.pop("include", None) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DefinitionError([source.problem(("include",), "'include' is a list of file names")])
    for index, name in enumerate(names):
        included = _other(source, ("include", index), folder, name, shown, trail, base)
        for key in included.data:
            if key not in SHARED:
                what = f"an included file has {', '.join(SHARED)} (and 'include'); {key!r} belongs into the definition"
                raise DefinitionError([included.problem((key,), what, key=True)])
        _merge(source, included)


def _other(
    source: Source, at: Path, folder: FilePath, name: str, shown: str, trail: tuple[FilePath, ...], base: FilePath
) -> Source:
    """Read another file that is named at a place of this one."""
    file = folder / name
    beside = os.path.join(os.path.dirname(shown), name)  # noqa: PTH118, PTH120 (as the user wrote the first)
    if file.resolve() in trail:
        circle = " includes ".join(each.name for each in (*trail[trail.index(file.resolve()) :], file))
        raise DefinitionError([source.problem(at, f"the files include each other in a circle: {circle}")])
    try:
        other = _read(file, os.path.normpath(beside), trail, base)
    except DefinitionError:
        raise
    except BadInput as error:
        raise DefinitionError([source.problem(at, str(error))]) from None
    if not isinstance(other.data, dict):
        raise DefinitionError([Problem(other.name, "the file is empty, or not a mapping")])
    return other


def _merge(source: Source, included: Source) -> None:
    moved: dict[Path, Path] = {}
    for key, theirs in included.data.items():
        if key == "tools":
            ours = source.data.setdefault(key, [])
            for index, tool in enumerate(theirs if isinstance(theirs, list) else []):
                if tool not in ours:
                    moved[key, index] = (key, len(ours))
                    ours.append(tool)
            continue
        ours = source.data.setdefault(key, {})
        for name, part in theirs.items() if isinstance(theirs, dict) else ():
            if name in ours:
                what = f"{name!r} stands under {key!r} in {source.name} too; rename one of them"
                raise DefinitionError([included.problem((key, name), what, key=True)])
            ours[name] = part
            moved[key, name] = (key, name)
    _move(source, included, moved, 2)
    source.lines.update(included.lines)


def _move(source: Source, other: Source, moved: Mapping[Path, Path], depth: int) -> None:
    """Take over the places of parts of another file: `moved` is from old to new, and old paths are `depth` long."""
    for ours, theirs in ((source.values, other.values), (source.keys, other.keys)):
        for path, mark in theirs.items():
            if (new := moved.get(path[:depth])) is not None:
                ours[(*new, *path[depth:])] = mark


def _take_in_children(
    source: Source, folder: FilePath, shown: str, trail: tuple[FilePath, ...], base: FilePath
) -> None:
    """Put child workflows that are named by their file under `workflows`, so that the definition is whole."""
    taken: dict[FilePath, str] = {}
    for at, holder, key in list(_child_files(source.data, ())):
        file = (folder / holder[key]).resolve()
        if file not in taken:
            other = _other(source, at, folder, holder[key], shown, trail, base)
            workflows = source.data.setdefault("workflows", {})
            taken[file] = _free_name(file.stem, workflows)
            workflows[taken[file]] = other.data
            _move(source, other, {(): ("workflows", taken[file])}, 0)
            source.lines.update(other.lines)
        holder[key] = taken[file]


def _child_files(data: Any, at: Path) -> Iterator[tuple[Path, dict[str, Any], str]]:
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _child_files(item, (*at, index))
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if key in ("workflow", "start") and isinstance(value, str) and _FILE.search(value):
            yield (*at, key), data, key
        elif key in ("workflow", "start") and isinstance(value, dict) and _FILE.search(str(value.get("name", ""))):
            yield (*at, key, "name"), value, "name"
        elif key not in _DATA and (at or key != "workflows"):
            yield from _child_files(value, (*at, key))


def _free_name(stem: str, taken: dict[str, Any]) -> str:
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    name = name if re.match(r"[A-Za-z_]", name) else f"_{name}"
    while name in taken:
        name += "_"
    return name

"""Reads YAML 1.2 (and so JSON) into plain data and remembers the line and column of every value."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaml

from perdure.definitions.json_values import to_json_value
from perdure.errors import DefinitionError, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 100
MAX_NODES = 200_000
_SUSPECT = 1000
_SHOWN = 200  # characters of a line that a problem shows

Path = tuple[str | int, ...]
_STR, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CoreSchemaLoader(_Base):  # type: ignore[misc]
    """The YAML 1.2 core schema: `on`, `yes`, `1:30` and `0123` are not booleans, times and octals."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (PyYAML's own class-level registry)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    CoreSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


Mark = tuple[str, int, int]
"""A place: file, line and column, from 1."""


@dataclass(frozen=True)
class Source:
    """A parsed document: its plain data, its file name, where each value and key stands, and the lines of its files."""

    name: str
    data: Any
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def problem(self, path: Path, message: str, *, key: bool = False, warning: bool = False) -> Problem:
        """Return a problem at a value (or at its key), or at its nearest parent that is written down."""
        severity: Literal["error", "warning"] = "warning" if warning else "error"
        if not self.values:
            at = ".".join(map(str, path)) or "the top"
            return Problem(self.name, f"at {at}: {message}", severity=severity)
        file, line, column = self._mark_of(path, key=key)
        lines = self.lines.get(file, [])
        text = lines[line - 1] if line <= len(lines) else ""
        return Problem(file, message, line, column, text[:_SHOWN] if column <= _SHOWN else "", severity)

    def _mark_of(self, path: Path, *, key: bool) -> Mark:
        written: Path = ()
        found: Path = ()
        for part in path:
            here = (*written, part)
            if part == 0 and isinstance(part, int) and here not in self.values:
                continue  # one value may stand for a list of one
            written = here
            found = here if here in self.values else found
        marks = self.keys if key and found == written and found in self.keys else self.values
        return marks.get(found, (self.name, 1, 1))


def parse_yaml(text: str, name: str) -> Source:
    """Parse one YAML or JSON document.

    Raises DefinitionError when it is not YAML, too large, too deep, or has a key twice.
    """
    lines = text.splitlines()
    if strange := _UNPRINTABLE.search(text):
        raise DefinitionError([_strange_character(strange.start(), text, name)])
    if len(text.encode()) > MAX_BYTES:
        raise DefinitionError([Problem(name, f"the document is over {MAX_BYTES} bytes; move large data into input")])
    try:
        _check_depth(text, name)
        loader = CoreSchemaLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise DefinitionError([_yaml_problem(error, name, lines)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DefinitionError([Problem(name, f"not valid YAML: {error or 'nested too deeply'}")]) from None
    source = Source(name, None, lines={name: lines})
    data = _Builder(source).build(root, ()) if root is not None else None
    return replace(source, data=data)


_UNPRINTABLE: re.Pattern[str] = yaml.reader.Reader.NON_PRINTABLE


def _strange_character(at: int, text: str, name: str) -> Problem:
    lines = f"{text[:at]}x".splitlines()  # x: the line of the character is there even when it is empty before it
    what = f"the character {text[at]!r} may not stand in YAML; write it with an escape, in double quotes"
    return Problem(name, what, len(lines), len(lines[-1]))


_INDENT = "; is it indented as the lines above it, and are quotes and brackets closed?"
_MENDS = {
    "did not find expected key": _INDENT,
    "did not find expected '-' indicator": _INDENT,
    "could not find expected ':'": _INDENT,
    "mapping values are not allowed in this context": "; quote a text with ': ', and put a key on a line of its own",
    "found character that cannot start any token": "; quote a text that begins with it",
}
"""By what YAML's parser says, how to mend it."""


def _yaml_problem(error: yaml.MarkedYAMLError, name: str, lines: list[str]) -> Problem:
    mark: Any = error.problem_mark or error.context_mark
    what = f"not valid YAML: {error.problem or error.context}"
    if mark is None:
        return Problem(name, what)
    text = lines[mark.line] if mark.line < len(lines) else ""
    if "${{" in text:
        what += "; quote values with '${{ }}'"
    elif text[mark.column : mark.column + 1] == "\t":
        what += ": a tab; indent with blanks"
    else:
        what += _MENDS.get(error.problem or "", "")
    return Problem(name, what, mark.line + 1, mark.column + 1, text)


class _Builder:
    """Turns PyYAML's node graph into plain data, counting nodes so that aliases cannot explode."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.count = 0
        self.open: list[yaml.Node] = []

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        self.source.values[path] = (self.source.name, *_mark(node))
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise self.error(node, f"more than {MAX_NODES} values (or {MAX_DEPTH} levels) once aliases expand")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        if node in self.open:
            raise self.error(node, "this mapping contains itself")
        self.open.append(node)
        try:
            return self.parts(node, path)
        finally:
            self.open.pop()

    def parts(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self.count += 1
        if self.count > MAX_NODES:
            raise self.error(node, f"more than {MAX_NODES} values once aliases expand")
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self.merge(value_node, path), **merged}
                continue
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self.error(key_node, f"keys are strings; quote this one: {key_node.value!r}")
            if key in own:
                raise self.error(key_node, f"the key {key!r} stands twice in this mapping; keep one")
            own[key] = self.build(value_node, (*path, key))
            self.source.keys[(*path, key)] = (self.source.name, *_mark(key_node))
        return {**merged, **own}

    def merge(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise self.error(part, "'<<' merges mappings only")
            merged = {**self.mapping(part, path), **merged}
        return merged

    def scalar(self, node: yaml.Node) -> Any:
        text: str = node.value
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind in ("bool", "int", "float"):
            try:
                return to_json_value(_CONVERT[kind](text))
            except (ValueError, KeyError):
                raise self.error(node, f"{text[:40]} is not a JSON {kind}; quote it") from None
        if node.tag != _STR:
            raise self.error(node, f"the tag {node.tag!r} is not allowed; use plain YAML")
        return text

    def error(self, node: yaml.Node, what: str) -> DefinitionError:
        line, column = _mark(node)
        lines = self.source.lines[self.source.name]
        return DefinitionError([Problem(self.source.name, what, line, column, lines[line - 1])])


_CONVERT: dict[str, Callable[[str], Any]] = {
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
    "float": float,
}


def _check_depth(text: str, name: str) -> None:
    """Refuse a document so deep that composing it would break the C stack; a count of brackets clears most others."""
    if (
        text.count("[") + text.count("{") + max(line.count("- ") + line.count("? ") for line in text.split("\n"))
        < _SUSPECT
    ):
        return
    depth = 0
    for event in yaml.parse(text, Loader=CoreSchemaLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            mark: Any = event.start_mark
            what = f"nested more than {MAX_DEPTH} levels deep"
            raise DefinitionError([Problem(name, what, mark.line + 1, mark.column + 1)])


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1

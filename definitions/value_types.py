"""What is known of the type of a value: from a JSON Schema, a literal, or the kind of node that gives it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perdure.definitions.hints import did_you_mean
from perdure.definitions.reads import ITEM


@dataclass(frozen=True, slots=True)
class Simple:
    """A value of one JSON type without parts: `string`, `integer`, `number`, `boolean` or `null`."""

    kind: str


@dataclass(frozen=True, slots=True)
class Record:
    """An object; where it is open, it may have other keys too."""

    keys: Mapping[str, "Type"]
    open: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A list with items of one type."""

    item: "Type" = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of one of several types."""

    types: tuple["Type", ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """A value that keeps to a JSON Schema, a part of the document `root`."""

    schema: Any
    root: Any


Type = Simple | Record | Listing | Choice | Schema | None
"""What is known of a value; None: nothing."""

STRING, INTEGER, NUMBER, BOOLEAN, NULL = map(Simple, ("string", "integer", "number", "boolean", "null"))
ANY_ERROR = Record({"type": STRING, "message": STRING, "data": None})
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that is not there: it can never be, or (`surely` False) it is merely not declared."""

    why: str
    surely: bool


def of_schema(schema: Any) -> Type:
    """Return the type that a whole schema document says; None where there is no document."""
    return Schema(schema, schema) if isinstance(schema, dict) else None


def kind_of_value(value: Any) -> str:
    """Return the JSON type of a value."""
    return _KINDS.get(type(value), "null")


def kinds(known: Type, depth: int = 0) -> frozenset[str] | None:
    """Return the JSON types that a value may have; None where any is possible."""
    match known:
        case Simple(kind):
            return frozenset({kind})
        case Record():
            return frozenset({"object"})
        case Listing():
            return frozenset({"array"})
        case Choice(types):
            return _united([kinds(each, depth + 1) for each in types])
        case Schema():
            return _schema_kinds(known, depth) if depth < _DEEP else None
        case _:
            return None


_DEEP = 20


def _united(parts: list[frozenset[str] | None]) -> frozenset[str] | None:
    found: set[str] = set()
    for part in parts:
        if part is None:
            return None
        found |= part
    return frozenset(found)


def _schema_kinds(known: Schema, depth: int) -> frozenset[str] | None:
    schema = known.schema
    if not isinstance(schema, dict):
        return None
    if "type" in schema:
        listed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return frozenset(map(str, listed))
    for key, values in (("const", [schema.get("const")]), ("enum", schema.get("enum"))):
        if key in schema and isinstance(values, list):
            return frozenset(map(kind_of_value, values))
    if "$ref" in schema:
        return kinds(referred(known), depth + 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return _united([kinds(Schema(each, known.root), depth + 1) for each in schema[key]])
    return None


def referred(known: Schema) -> Type:
    """Follow a `$ref` within the document; None where it leads elsewhere."""
    reference = known.schema["$ref"]
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = known.root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return Schema(found, known.root)


def member(known: Type, key: str, depth: int = 0) -> Type | Missing:
    """Return the type of one part of a value: of a key, or of an item of a list."""
    match known:
        case Record(keys, open):
            if key in keys:
                return keys[key]
            return Missing(_not_there(key, keys), surely=True) if not open and key != ITEM else None
        case Listing(item):
            return item if key == ITEM else Missing(f"a list has no {key!r}", surely=True)
        case Simple(kind):
            if kind == "string" and key == ITEM:
                return STRING
            return Missing(f"{_A[kind]} has no {'items' if key == ITEM else repr(key)}", surely=True)
        case Choice(types):
            return _one_of([member(each, key, depth + 1) for each in types])
        case Schema(schema) if isinstance(schema, dict) and depth < _DEEP:
            return _schema_member(known, schema, key, depth)
        case _:
            return None


_A = {
    "string": "text", "integer": "a number", "number": "a number", "boolean": "true or false", "null": "null",
    "array": "a list", "object": "an object",
}  # fmt: skip


def described(names: frozenset[str]) -> str:
    """Name JSON types as people call them."""
    return " or ".join(dict.fromkeys(_A.get(name, name) for name in sorted(names)))


def _one_of(parts: list[Type | Missing]) -> Type | Missing:
    """Return what a part of one of several values may be; it is missing only where all of them lack it."""
    found = [part for part in parts if not isinstance(part, Missing)]
    lacking = [part for part in parts if isinstance(part, Missing)]
    if not found:
        # The alternative null says least about what is there.
        best = [part for part in lacking if not part.why.startswith("null ")] or lacking
        return Missing(best[0].why, all(part.surely for part in lacking)) if lacking else None
    return found[0] if len(found) == 1 else None if None in found else Choice(tuple(found))


def _schema_member(known: Schema, schema: dict[str, Any], key: str, depth: int) -> Type | Missing:
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and "properties" not in schema:
            return _one_of([member(Schema(each, known.root), key, depth + 1) for each in schema[word]])
    if "$ref" in schema and "properties" not in schema:
        return member(referred(known), key, depth + 1)
    names = _schema_kinds(known, depth)
    if key == ITEM:
        return _schema_item(known, schema, names)
    if names is not None and "object" not in names:
        return Missing(f"{described(names)} has no {key!r}", surely=True)
    return _schema_key(known, schema, key)


def _schema_item(known: Schema, schema: dict[str, Any], names: frozenset[str] | None) -> Type | Missing:
    if names is not None and not names & {"array", "string"}:
        return Missing(f"{described(names)} has no items", surely=True)
    return Schema(schema["items"], known.root) if isinstance(schema.get("items"), dict) and names else None


def _schema_key(known: Schema, schema: dict[str, Any], key: str) -> Type | Missing:
    declared = schema.get("properties")
    declared = declared if isinstance(declared, dict) else {}
    if key in declared:
        return Schema(declared[key], known.root)
    if any(word in schema for word in ("allOf", "anyOf", "oneOf", "if", "dependentSchemas", "$dynamicRef")):
        return None
    for pattern, each in (schema.get("patternProperties") or {}).items():
        try:
            if re.search(pattern, key):
                return Schema(each, known.root)
        except re.error:
            return None
    others = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
    if others is False:
        return Missing(_not_there(key, declared), surely=True)
    if isinstance(others, dict) and others:
        return Schema(others, known.root)
    return Missing(f"{key!r} is not declared{_instead(key, declared)}", surely=False) if declared else None


def _not_there(key: str, keys: Mapping[str, Any]) -> str:
    return f"there is no {'item' if key == ITEM else repr(key)}{_instead(key, keys)}"


def _instead(key: str, keys: Mapping[str, Any]) -> str:
    if hint := did_you_mean(key, keys):
        return hint
    shown = sorted(keys)[:10]
    return f"; there are {', '.join(shown)}{', ...' if len(keys) > len(shown) else ''}" if shown else "; it is empty"

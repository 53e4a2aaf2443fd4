"""The published form of what is stored: a JSON Schema for the entry and for each type of event."""

from typing import Any, get_args

import msgspec

from perdure.events.entry import Entry
from perdure.events.upcasting import FORMAT
from perdure.events.vocabulary import Event


def event_schemas() -> dict[str, dict[str, Any]]:
    """Return a JSON Schema (2020-12) by name: `Entry`, then every event type; all of the format that is written."""
    types = [Entry, *get_args(Event)]
    _, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return {kind.__name__: _schema(kind.__name__, parts) for kind in types}


def _schema(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    needed = _needed(name, parts)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"perdure.{name}.v{FORMAT}",
        **parts[name],
    }
    return {**schema, "$defs": {part: parts[part] for part in sorted(needed)}} if needed else schema


def _needed(name: str, parts: dict[str, Any]) -> set[str]:
    """Return the names of the parts that a part refers to, directly or through others."""
    needed: set[str] = set()
    todo = [parts[name]]
    for value in todo:
        if isinstance(value, dict):
            part = str(value.get("$ref", "")).rpartition("/")[2]
            if part and part not in needed:
                needed.add(part)
                todo.append(parts[part])
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return needed

"""What pydantic found wrong, in our words: the place within the document, what is wrong there, what was meant."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perdure.definitions.hints import did_you_mean
from perdure.definitions.nodes import KINDS, kind_of, kinds_in
from perdure.definitions.yaml_source import Path, Source
from perdure.errors import Problem


def problems_in(error: ValidationError, source: Source, model: type[BaseModel]) -> list[Problem]:
    """Return every problem of a document that does not fit its model, one for each place."""
    found: dict[tuple[Path, bool], list[str]] = {}
    for item in error.errors(include_url=False):
        path, message, key = _message(source.data, item, model)
        found.setdefault((path, key), []).append(message)
    return [
        source.problem(path, " or ".join(dict.fromkeys(messages)), key=key) for (path, key), messages in found.items()
    ]


def _message(data: Any, item: ErrorDetails, model: type[BaseModel]) -> tuple[Path, str, bool]:
    """Turn one pydantic error into a path within the document, a message, and whether the key is meant."""
    path, key = _document_path(data, item)
    last = path[-1] if path else ""
    match item["type"]:
        case "extra_forbidden":
            keys = _keys_at(model, data, path[:-1])
            return path, f"unknown key {last!r}{did_you_mean(str(last), keys) or _there_are(keys)}", True
        case "missing":
            return path[:-1], f"the key {last!r} is missing", False
        case "node_kind":
            return path, _kind_message(_at(data, path), item["msg"]), True
        case "string_pattern_mismatch":
            shown = last if key else item["input"]
            rule = "letters, digits and '_' (workflow names also '-' and '.'), no digit first"
            return path, f"{shown!r} is not a name: {rule}", key
        case "duration" | "condition" | "one_call" | "one_action":
            return path, item["msg"], key
    label = f"{last!r}: " if isinstance(last, str) and last else ""
    return path, label + item["msg"][:1].lower() + item["msg"][1:], key


def _kind_message(node: Any, message: str) -> str:
    if not isinstance(node, dict):
        return (
            f"a node is a mapping, not {type(node).__name__}; {message.removeprefix('a node does exactly one thing: ')}"
        )
    kinds = kinds_in(node)
    if len(kinds) > 1:
        return f"a node does exactly one thing, and this one has {' and '.join(map(repr, kinds))}; make it two nodes"
    for word in node:
        if hint := did_you_mean(str(word), KINDS):
            return f"{message}; it has {word!r}{hint}"
    return message


def _there_are(keys: list[str]) -> str:
    return f"; there are {', '.join(sorted(keys))}" if keys else ""


def _document_path(data: Any, item: ErrorDetails) -> tuple[Path, bool]:
    """Return the path without what pydantic puts into it: names of union members, and `[key]`."""
    path: list[str | int] = []
    loc = item["loc"]
    for number, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
            path.append(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
            path.append(part)
        elif number == len(loc) - 1 and item["type"] == "missing":
            path.append(part)
    return tuple(path), "[key]" in loc


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _keys_at(model: type[BaseModel], data: Any, path: Path) -> list[str]:
    """Return the keys that may stand in the mapping at `path`."""
    annotation: Any = model
    for part in path:
        annotation = _within(annotation, data, part)
        data = data[part]
    return sorted({name for each in _models(annotation, data) for name in aliases(each)})


def aliases(model: type[BaseModel]) -> list[str]:
    """Return the keys of a model as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _within(annotation: Any, data: Any, part: str | int) -> Any:
    """Return what may stand at one key or index of a value of this type."""
    found: list[Any] = []
    for each in _members(annotation):
        origin, arguments = get_origin(each), get_args(each)
        if origin is dict and isinstance(part, str):
            found.append(arguments[1])
        elif origin is list:
            found.append(arguments[0] if isinstance(part, int) else each)
    for each in _models(annotation, data):
        found += [field.annotation for name, field in each.model_fields.items() if (field.alias or name) == part]
        if isinstance(part, int):  # one that stands for a list of one
            found.append(each)
    return Union[tuple(found)] if found else Any  # noqa: UP007 (built at run time)


def _models(annotation: Any, data: Any) -> list[type[BaseModel]]:
    members = list(_members(annotation))
    inner = [each for member in members if get_origin(member) is list for each in _members(get_args(member)[0])]
    models = [each for each in (*members, *inner) if isinstance(each, type) and issubclass(each, BaseModel)]
    if len(models) > 1 and (kind := kind_of(data)) is not None:
        return [KINDS[kind]]
    return models


def _members(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _members(each)
    else:
        yield annotation

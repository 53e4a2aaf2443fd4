"""What pydantic found wrong, in our words: the place within the document, what is wrong there, what was meant."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from perdure.definitions.nodes import KINDS, NODE_KEYS, kind_of, kinds_in, written_kinds
from perdure.definitions.other_words import key_hint, meant
from perdure.definitions.type_words import is_wrong_type, out_of_bounds, shown_value, wrong_type
from perdure.definitions.yaml_source import Path, Source
from perdure.errors import Problem


def problems_in(error: ValidationError, source: Source, model: type[BaseModel]) -> list[Problem]:
    """Return every problem of a document that does not fit its model, one for each place."""
    items = [(document_path(source.data, item), item) for item in error.errors(include_url=False)]
    # A value that fits one member of a union in part is not meant as one of the others.
    deep = {path[:length] for (path, _), _ in items for length in range(len(path))}
    misspelt = {key for (path, _), item in items for key in _meant(source.data, item, model, path)}
    wrong: dict[Path, list[ErrorDetails]] = {}
    found: dict[tuple[Path, bool], str] = {}
    for (path, key), item in items:
        if is_wrong_type(item) and not key:
            if path not in deep:
                wrong.setdefault(path, []).append(item)
            continue
        if item["type"] == "missing" and path in misspelt:
            continue  # it is there, misspelt
        place, message = _message(source.data, item, model, path, key)
        found.setdefault(place, message)
    problems = [source.problem(path, message, key=key) for (path, key), message in found.items()]
    return problems + [source.problem(path, wrong_type(path, of_one)) for path, of_one in wrong.items()]


def _meant(data: Any, item: ErrorDetails, model: type[BaseModel], path: Path) -> Iterator[Path]:
    """Yield the key that was probably meant by an unknown one."""
    if item["type"] == "extra_forbidden":
        ours = meant(str(path[-1]), keys_at(model, data, path[:-1]))
        if ours is not None:
            yield (*path[:-1], ours)


def _message(
    data: Any, item: ErrorDetails, model: type[BaseModel], path: Path, key: bool
) -> tuple[tuple[Path, bool], str]:
    """Turn one pydantic error into its place and a message."""
    last = path[-1] if path else ""
    match item["type"]:
        case "extra_forbidden":
            keys = keys_at(model, data, path[:-1])
            return (path, True), f"unknown key {last!r}{key_hint(str(last), keys) or _there_are(keys)}"
        case "missing":
            return (path[:-1], False), _MISSING.get(str(last), f"the key {last!r} is missing; add it")
        case "node_kind":
            return (path, True), _kind_message(str(last), _at(data, path))
        case "string_pattern_mismatch":
            shown = last if key else item["input"]
            rule = "letters, digits and '_' (workflow names also '-' and '.'), no digit first"
            return (path, key), f"{shown!r} is not a name: {rule}"
        case "duration" | "condition" | "one_call" | "one_action":
            return (path, key), item["msg"]
    return (path, key), out_of_bounds(path, item)


_MISSING = {
    "max_iterations": "a loop without a bound is refused; add 'max_iterations', the number of passes after which it "
    "fails with LoopExhausted"
}


def _kind_message(name: str, node: Any) -> str:
    one_of = f"give it one of {', '.join(map(repr, written_kinds()))}"
    if not isinstance(node, dict) and name in NODE_KEYS:
        return f"a node is a mapping, and {name!r} is a key of one; indent it further, to stand within its node"
    if not isinstance(node, dict):
        return f"a node is a mapping, not {shown_value(node)}; {one_of}"
    kinds = kinds_in(node)
    if len(kinds) > 1:
        return f"a node does exactly one thing, and this one has {' and '.join(map(repr, kinds))}; make it two nodes"
    message = f"a node does exactly one thing: {one_of}"
    others = [str(word) for word in node if word not in NODE_KEYS]
    for word in others:
        if hint := key_hint(word, written_kinds()):
            return f"{message}; it has {word!r}{hint}"
    return f"{message}; it has {others[0]!r}, which is no key of a node" if others else message


def _there_are(keys: list[str]) -> str:
    return f"; there are {', '.join(sorted(keys))}" if keys else ""


def document_path(data: Any, item: ErrorDetails) -> tuple[Path, bool]:
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


def keys_at(model: type[BaseModel], data: Any, path: Path) -> list[str]:
    """Return the keys that may stand in the mapping at `path`."""
    annotation: Any = model
    for part in path:
        annotation = _within(annotation, data, part)
        data = data[part]
    models = _models(annotation, data)
    beside = {"foreach", "loop"} if any(KINDS[call] in models for call in ("agent", "tool", "workflow")) else set()
    return sorted({name for each in models for name in aliases(each)} | beside)


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
        elif origin is list and isinstance(part, int):
            found.append(arguments[0])
    for each in _models(annotation, data):
        found += [field.annotation for name, field in each.model_fields.items() if (field.alias or name) == part]
        if isinstance(part, int):  # one that stands for a list of one
            found.append(each)
    return Union[tuple(found)] if found else Any  # noqa: UP007 (built at run time)


def _models(annotation: Any, data: Any) -> list[type[BaseModel]]:
    members = list(_members(annotation))
    inner = [each for member in members if get_origin(member) is list for each in _members(get_args(member)[0])]
    models = [each for each in (*members, *inner) if isinstance(each, type) and issubclass(each, BaseModel)]
    if len(models) > 1 and (kind := kind_of(data)) is not None and KINDS[kind] in models:
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

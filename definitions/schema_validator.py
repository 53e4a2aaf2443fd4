"""The validator of JSON Schemas: no data can hold a process up, its patterns being RE2's and its sets looked up."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from perdure.definitions.patterns import compile_pattern
from perdure.errors import ExpressionError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


def validator(schema: Mapping[str, Any]) -> "Validator":
    """Return what checks data against a schema; it fetches nothing that the schema refers to."""
    from referencing.jsonschema import EMPTY_REGISTRY

    made: Validator = _kind()(schema, registry=EMPTY_REGISTRY)
    return made


@cache
def _kind() -> Any:
    from jsonschema import Draft202012Validator  # slow to import, and seldom needed
    from jsonschema.validators import extend

    checks = {
        "pattern": _pattern, "patternProperties": _properties, "additionalProperties": _others, "uniqueItems": _unique,
    }  # fmt: skip
    return extend(Draft202012Validator, checks)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=256)
def _finder(pattern: str) -> Callable[[str], Any]:
    """Return what looks for a pattern; Python's own way for what RE2 does not have, such as looking ahead."""
    try:
        return compile_pattern(pattern).first
    except ExpressionError:
        return re.compile(pattern).search


def _pattern(checked: Any, pattern: str, data: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if checked.is_type(data, "string") and not _finder(pattern)(data):
        yield ValidationError(f"{data!r} does not match {pattern!r}")


def _properties(checked: Any, patterns: dict[str, Any], data: Any, _schema: Any) -> Iterator[Any]:
    if checked.is_type(data, "object"):
        for pattern, inner in patterns.items():
            for key in filter(_finder(pattern), data):
                yield from checked.descend(data[key], inner, path=key, schema_path=pattern)


def _others(checked: Any, wanted: Any, data: Any, schema: Any) -> Iterator[Any]:
    """Check the properties that are neither named nor fit a pattern."""
    from jsonschema import Draft202012Validator, ValidationError

    patterns = schema.get("patternProperties", {})
    if not patterns:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](checked, wanted, data, schema)
    elif checked.is_type(data, "object"):
        named, finders = schema.get("properties", {}), [_finder(pattern) for pattern in patterns]
        rest = [key for key in data if key not in named and not any(find(key) for find in finders)]
        if wanted is False and rest:
            does = "does" if len(rest) == 1 else "do"
            told = ", ".join(map(repr, rest)), ", ".join(map(repr, sorted(patterns)))
            yield ValidationError(f"{told[0]} {does} not match any of the regexes: {told[1]}")
        elif isinstance(wanted, dict):
            for key in rest:
                yield from checked.descend(data[key], wanted, path=key)


def _unique(checked: Any, wanted: Any, data: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if wanted and checked.is_type(data, "array") and len({_hashed(each) for each in data}) < len(data):
        yield ValidationError(f"{data!r} has non-unique elements")


def _hashed(value: Any) -> Any:
    """Return what is the same for data that is the same to JSON Schema: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, list):
        return tuple(map(_hashed, value))
    if isinstance(value, dict):
        return frozenset((key, _hashed(each)) for key, each in value.items())
    return (type(value).__name__, value) if isinstance(value, bool) else value

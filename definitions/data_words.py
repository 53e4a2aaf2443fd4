"""Where data breaks a JSON Schema, in our words."""

import json
from collections.abc import Iterator
from typing import Any

from perdure.definitions.hints import did_you_mean
from perdure.definitions.type_words import shown_value

_NOUNS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def misfits(schema: dict[str, Any], data: Any, name: str) -> list[str]:
    """Return every place where data breaks a schema, such as `input.age is 'x', not a whole number`.

    name: what the data is called. Data that cannot be held against the schema is said to break it too: what decides
    may not fail of what a model, or a schema that nobody else has, makes of it.
    """
    from referencing.exceptions import Unresolvable  # slow to import, and seldom needed

    try:
        errors = list(validator(schema).iter_errors(data))
    except Unresolvable as error:
        return [f"{name} cannot be checked: its schema refers to {error.ref!r}, which is not in it"]
    except RecursionError:
        return [f"{name} cannot be checked: it is nested too deeply, or its schema is in a circle"]
    return list(dict.fromkeys(what for error in errors for what in said(error, name + error.json_path[1:])))


def validator(schema: Any) -> Any:
    """Return what validates data by a schema; it fetches nothing that the schema refers to."""
    from jsonschema import Draft202012Validator  # slow to import, and seldom needed
    from referencing.jsonschema import EMPTY_REGISTRY

    return Draft202012Validator(schema, registry=EMPTY_REGISTRY)


def said(error: Any, place: str) -> Iterator[str]:
    """Yield what one error of jsonschema says of the data at a place."""
    value, wanted = error.instance, error.validator_value
    match error.validator:
        case "required":
            yield from (f"{place}.{key} is missing" for key in wanted if key not in value)
        case "type":
            nouns = [_NOUNS[each] for each in ([wanted] if isinstance(wanted, str) else wanted)]
            yield f"{place} is {_shown(value)}, not {' or '.join(nouns)}"
        case "enum":
            hint = did_you_mean(value, [each for each in wanted if isinstance(each, str)]) if type(value) is str else ""
            yield f"{place} is {_shown(value)}, not one of {json.dumps(wanted, ensure_ascii=False)}{hint}"
        case "additionalProperties" if wanted is False and "patternProperties" not in error.schema:
            known = error.schema.get("properties", {})
            yield from (f"{place} takes no {key!r}{did_you_mean(key, known)}" for key in value if key not in known)
        case _:
            yield f"{place}: {error.message}"


def _shown(value: Any) -> str:
    return "an object" if isinstance(value, dict) else shown_value(value)

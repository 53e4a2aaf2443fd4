"""Where data breaks a JSON Schema, in our words."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from perdure.definitions.hints import did_you_mean
from perdure.definitions.schema_validator import validator
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

UNCHECKED = "cannot be checked:"
"""What is said of data where nobody can say whether it breaks its schema."""
_MOST = 50
"""Places that are named: data may come from anybody, and what is said of it is recorded."""
_LONGEST = 1000  # characters that are said of one place
_SHOWN = 40  # characters of a text that is shown; of a longer one no part is, which might be of a secret


def misfits(schema: dict[str, Any], data: Any, name: str) -> list[str]:
    """Return the places where data breaks a schema, the first 50: such as `input.age is 'x', not a whole number`.

    name: what the data is called. Data that cannot be held against the schema is said to break it too: what decides
    may not fail of what a model, or a schema that nobody else has, makes of it.
    """
    from referencing.exceptions import Unresolvable  # slow to import, and seldom needed

    told = (what for error in validator(schema).iter_errors(data) for what in _bounded(error, name))
    try:
        return list(dict.fromkeys(islice(told, _MOST)))
    except Unresolvable as error:
        return [f"{name} {UNCHECKED} its schema refers to {error.ref!r}, which is not in it"]
    except RecursionError:
        return [f"{name} {UNCHECKED} it is nested too deeply, or its schema is in a circle"]


def _bounded(error: Any, name: str) -> Iterator[str]:
    place = name + error.json_path[1:]
    for what in said(error, place):
        at = place if len(place) <= _LONGEST else name
        yield what if len(what) <= _LONGEST else f"{at} breaks {error.validator!r} of its schema"


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
    if isinstance(value, str) and len(repr(value)) > _SHOWN:
        return f"a text of {len(value)} characters"
    return "an object" if isinstance(value, dict) else shown_value(value)

"""The configs of node kinds of the user's own: checked before anything runs, and described for editors."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from perdure.definitions.findings import Finding
from perdure.definitions.hints import did_you_mean
from perdure.definitions.nodes import CustomNode
from perdure.definitions.own_kinds import own_kind, own_kinds
from perdure.definitions.parts import EXPRESSION
from perdure.definitions.type_words import is_wrong_type, out_of_bounds, wrong_type
from perdure.definitions.yaml_source import Path
from perdure.errors import BadInput, UnknownKind

_COMPUTED = {"$ref": "#/$defs/Expression"}
_EXPRESSION = {"type": "string", "pattern": EXPRESSION, "description": "A `${{ }}` expression that gives it."}


def config_findings(node: CustomNode, at: Path) -> Iterator[Finding]:
    """Yield what does not fit the kind's config, expressions aside: they are checked at the call."""
    where = (*at, node.kind)
    try:
        own_kind(node.kind).config.model_validate(node.custom[node.kind])
    except UnknownKind as error:
        yield Finding(where, f"{error}{did_you_mean(node.kind, own_kinds())}", key=True)
    except BadInput as error:
        yield Finding(where, str(error), key=True)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            if item["type"] == "missing" or not _has_expression(item["input"]):
                path = tuple(item["loc"])
                yield Finding(
                    (*where, *path), _problem_of(item, (*where, *path)), key=item["type"] == "extra_forbidden"
                )


def _problem_of(item: ErrorDetails, path: Path) -> str:
    if item["type"] == "missing":
        return f"the key {path[-1]!r} is missing; add it"
    if item["type"] == "extra_forbidden":
        return f"unknown key {path[-1]!r}"
    if item["type"] == "value_error":
        return f"{path[-1]!r}: {item['ctx']['error']}"
    return wrong_type(path, [item]) if is_wrong_type(item) else out_of_bounds(path, item)


def _has_expression(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_expression, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and "${{" in value


def own_schemas(plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas of all own kinds and what they refer to; `plain` is that of `custom` nodes."""
    found: dict[str, dict[str, Any]] = {}
    for name in own_kinds():
        kind = own_kind(name)
        config = kind.config.model_json_schema(by_alias=True, ref_template=f"#/$defs/{name}.{{model}}")
        found |= {f"{name}.{key}": _computable(each) for key, each in config.pop("$defs", {}).items()}
        about = {"description": kind.description or config.get("description") or f"A node kind of your own: {name}."}
        keys = {key: each for key, each in plain["properties"].items() if key != "custom"}
        value = {"anyOf": [_computable(config), _COMPUTED], "description": "Its config."}
        found[f"{name} node"] = {**plain, **about, "properties": {**keys, name: value}, "required": [name]}
    return found | ({"Expression": _EXPRESSION} if found else {})


def _computable(schema: Any) -> Any:
    """Return a schema in which an expression may stand in the place of each value within."""
    if not isinstance(schema, dict):
        return schema
    made = {"anyOf" if key == "oneOf" else key: each for key, each in schema.items() if key != "discriminator"}
    for key in ("properties", "patternProperties"):
        made |= {key: {name: _or_computed(each) for name, each in made[key].items()}} if key in made else {}
    for key in ("items", "additionalProperties"):
        made |= {key: _or_computed(made[key])} if isinstance(made.get(key), dict) else {}
    for key in ("anyOf", "allOf", "prefixItems"):
        made |= {key: [_computable(each) for each in made[key]]} if key in made else {}
    return made


def _or_computed(schema: dict[str, Any]) -> dict[str, Any]:
    about = {"description": schema.get("description") or schema.get("title") or "A value of the config."}
    return {"anyOf": [_computable(schema), _COMPUTED], **about}

"""Checks what expressions read, and what calls are given, against the types that are known."""

from collections.abc import Iterator
from typing import Any

from perdure.definitions.call_checks import call_findings
from perdure.definitions.chart_types import chart_type_findings
from perdure.definitions.expressions import Expression
from perdure.definitions.findings import Finding
from perdure.definitions.model import Workflow
from perdure.definitions.node_types import ERROR, Own, Types
from perdure.definitions.places import Body, Field, Place, places_of
from perdure.definitions.reads import Read, paths_in
from perdure.definitions.templates import compile_condition, compile_template, expressions
from perdure.definitions.value_types import INTEGER, Missing, Record, Type, described, kinds
from perdure.definitions.yaml_source import Path
from perdure.errors import ExpressionError

_EXPECTED = {"if": "boolean", "while": "boolean", "until": "boolean", "when": "boolean", "items": "array"}
_WANTED = {"boolean": "a condition gives true or false; compare it with something", "array": "'items' gives a list"}


def type_findings(workflow: Workflow, unsound: frozenset[int]) -> Iterator[Finding]:
    """Yield reads that cannot succeed, conditions that are none, and calls with arguments that do not fit.

    unsound: the ids of schemas that are none, of which nothing is known.
    """
    types = Types(workflow, unsound)
    for place in places_of(workflow):
        yield from field_findings(types, place.body, place.field, _own(types, place))
    yield from call_findings(types)
    yield from chart_type_findings(types, field_findings)


def _own(types: Types, place: Place) -> Own:
    """Return the types of the names that only this field has."""
    own: Own = {}
    if "error" in place.field.adds:
        own = {"error": ERROR}
    if "loop" in place.field.adds or "loop" in place.body.roots:
        own = {**own, "loop": Record({"index": INTEGER, "last": _last(types, place)})}
    if "output" in place.field.adds and place.node is not None:
        node, at = place.body.nodes[place.node]
        own = {**own, "output": types.result(place.body, place.node, node, at)}
    return own


def _last(types: Types, place: Place) -> Type:
    """Return the type of a loop's last pass, where there surely was one."""
    if place.node is None or place.field.path[-2:] != ("loop", "until"):
        return None
    node, at = place.body.nodes[place.node]
    return types.result(place.body, place.node, node, at)


def field_findings(types: Types, body: Body | None, field: Field, own: Own) -> Iterator[Finding]:
    """Yield what is wrong with the types in one field."""
    for at, expression in expressions_at(field.path, field.value, bare=field.bare):
        seen = [finding for read in paths_in(expression) for finding in _read_findings(types, body, at, read, own)]
        yield from seen
        if not seen and field.bare:
            yield from _condition_findings(types, body, at, expression, own)
    if field.bare and not isinstance(field.value, str) and field.path[-1] == "items":
        yield Finding(field.path, f"{_WANTED['array']}, and this is {field.value!r}")


def expressions_at(at: Path, value: Any, *, bare: bool) -> Iterator[tuple[Path, Expression]]:
    """Yield every expression within a value that can be read, with its place."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from expressions_at((*at, key), item, bare=False)
    elif isinstance(value, str):
        try:
            template = compile_condition(value) if bare else compile_template(value)
        except ExpressionError:
            return  # the expression checks say so
        yield from ((at, each) for each in expressions(template))


def _read_findings(types: Types, body: Body | None, at: Path, read: Read, own: Own) -> Iterator[Finding]:
    found = types.read(body, read.path, own)
    if not isinstance(found, Missing):
        return
    shown = ".".join(read.path).replace(".[]", "[]")
    if found.surely:
        yield Finding(at, f"'{shown}' can never be read: {found.why}")
    elif not read.guarded and not (read.path[0] == "nodes" and read.path[1] in read.tested):
        yield Finding(at, f"'{shown}' may be missing: {found.why}", warning=True)


def _condition_findings(
    types: Types, body: Body | None, at: Path, expression: Expression, own: Own
) -> Iterator[Finding]:
    expected = _EXPECTED.get(str(at[-1]))
    found = kinds(types.of_expression(body, expression, own)) if expected else None
    if expected and found is not None and expected not in found:
        yield Finding(at, f"'{expression.text}' is {described(found)}, and {_WANTED[expected]}")

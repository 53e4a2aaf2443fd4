"""Values with `${{ }}` in them: compiled once, rendered against the data of an execution."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.definitions.expressions import Expression, evaluate, parse
from perdure.errors import ExpressionError

Scope = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interpolation:
    """A string with expressions in its midst."""

    parts: tuple[str | Expression, ...]


Template = Any
"""Plain JSON data in which strings that hold `${{ }}` are Expression or Interpolation objects."""


def compile_template(value: Any) -> Template:
    """Compile a JSON value; raise ExpressionError where a `${{ }}` in it cannot be read."""
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, dict):
        return {key: compile_template(item) for key, item in value.items()}
    if isinstance(value, list):
        return [compile_template(item) for item in value]
    return value


def compile_condition(value: bool | str) -> Template:
    """Compile a bare expression, with or without `${{ }}` around it."""
    if isinstance(value, bool):
        return value
    text = value.strip()
    if text.startswith("${{"):
        template = _compile_text(text)
        if isinstance(template, Interpolation):
            raise ExpressionError(f"a condition is one expression, not text: {value!r}")
        return template
    return parse(text)


def render(template: Template, scope: Scope) -> Any:
    """Render to JSON data; raise ExpressionError where an expression fails or null is interpolated."""
    if isinstance(template, Expression):
        return evaluate(template, scope)
    if isinstance(template, Interpolation):
        return "".join(part if isinstance(part, str) else _text(part, scope) for part in template.parts)
    if isinstance(template, dict):
        return {key: render(item, scope) for key, item in template.items()}
    if isinstance(template, list):
        return [render(item, scope) for item in template]
    return template


def expressions(template: Template) -> Iterator[Expression]:
    """Yield every expression in a template."""
    if isinstance(template, Expression):
        yield template
    elif isinstance(template, Interpolation):
        yield from (part for part in template.parts if isinstance(part, Expression))
    elif isinstance(template, dict | list):
        for item in template.values() if isinstance(template, dict) else template:
            yield from expressions(item)


def _compile_text(text: str) -> str | Expression | Interpolation:
    parts: list[str | Expression] = []
    at = 0
    while (start := text.find("${{", at)) >= 0:
        if start > at:
            parts.append(text[at:start])
        expression, at = _expression_at(text, start)
        parts.append(expression)
    if not parts:
        return text
    if at < len(text):
        parts.append(text[at:])
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0]
    return Interpolation(tuple(parts))


def _expression_at(text: str, start: int) -> tuple[Expression, int]:
    """Read the expression that begins at `start`; its end is the first `}}` up to which it parses."""
    failure: ExpressionError | None = None
    end = text.find("}}", start)
    while end >= 0:
        try:
            return parse(text[start + 3 : end]), end + 2
        except ExpressionError as error:
            failure = failure or error
        end = text.find("}}", end + 1)
    raise failure or ExpressionError(f"'${{{{' without '}}}}' in {text!r}; quote this value")


def _text(expression: Expression, scope: Scope) -> str:
    value = evaluate(expression, scope)
    if value is None:
        raise ExpressionError(f"'{expression.text}' is null and cannot stand inside text")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

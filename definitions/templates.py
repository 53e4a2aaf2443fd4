"""Values with `${{ }}` in them: compiled once, rendered against the data of an execution."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.definitions.evaluation import MAX_LENGTH, MAX_RESULT, clipped
from perdure.definitions.expressions import Expression, evaluate, parse
from perdure.errors import ExpressionError

Scope = Mapping[str, Any]

Place = tuple[str | int, ...]
"""The keys that lead to a part of a template."""

_CONDITION: Place = ("if",)


@dataclass(frozen=True, slots=True)
class Interpolation:
    """A string with expressions in its midst."""

    parts: tuple[str | Expression, ...]

    @property
    def secret(self) -> bool:
        """Whether a secret stands in it."""
        return any(isinstance(part, Expression) and part.secret is not None for part in self.parts)


Template = Any
"""Plain JSON data in which strings that hold `${{ }}` are Expression or Interpolation objects."""


def compile_template(value: Any, place: Place = ()) -> Template:
    """Compile a JSON value; raise ExpressionError where a `${{ }}` in it cannot be read.

    `place` are the keys that lead to the value; its expressions know theirs.
    """
    if isinstance(value, str):
        return _compile_text(value, place)
    if isinstance(value, dict):
        return {key: compile_template(item, (*place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [compile_template(item, (*place, index)) for index, item in enumerate(value)]
    return value


def compile_condition(value: bool | str) -> Template:
    """Compile a bare expression, with or without `${{ }}` around it."""
    if isinstance(value, bool):
        return value
    if value.lstrip().startswith("${{"):
        text = value.rstrip()
        template = _compile_text(text, _CONDITION, len(text) - len(text.lstrip()))
        if isinstance(template, Interpolation):
            raise ExpressionError(f"a condition is one expression, not text: {value!r}")
        return template
    return parse(value, _CONDITION)


def render(template: Template, scope: Scope) -> Any:
    """Render to JSON data; raise ExpressionError where an expression fails or null is interpolated.

    Where a secret stands, the reference to it is given; see secret_references.
    """
    if isinstance(template, Expression):
        return evaluate(template, scope) if template.secret is None else _reference((template,), scope)
    if isinstance(template, Interpolation):
        if template.secret:
            return _reference(template.parts, scope)
        text = "".join(part if isinstance(part, str) else _text(part, scope) for part in template.parts)
        if len(text) > MAX_RESULT:
            raise ExpressionError(f"the text has more than {MAX_RESULT} characters")
        return text
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


def _compile_text(text: str, place: Place, at: int = 0) -> str | Expression | Interpolation:
    parts: list[str | Expression] = []
    while (start := text.find("${{", at)) >= 0:
        if start > at:
            parts.append(text[at:start])
        end = _end_of_expression(text, start + 3)
        parts.append(parse(text[start + 3 : end], place, start + 3))
        at = end + 2
    if not parts:
        return text
    if at < len(text):
        parts.append(text[at:])
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0]
    return Interpolation(tuple(parts))


_TOKEN = re.compile(r"""\\.|['"(){}\[\]]""", re.DOTALL)
"""What can hide the end of an expression: strings and brackets."""


def _end_of_expression(text: str, start: int) -> int:
    """Return the place of the `}}` that ends the expression: the first one outside of its strings and brackets."""
    depth, quote = 0, ""
    for found in _TOKEN.finditer(text, start, start + MAX_LENGTH + 2):
        mark = found.group()
        if mark in "'\"":
            quote = "" if mark == quote else quote or mark
        elif quote or mark.startswith("\\"):
            continue
        elif mark in "({[":
            depth += 1
        elif depth <= 0 and text.startswith("}}", found.start()):
            return found.start()
        else:
            depth -= 1
    end = text.find("}}", start)
    if end < 0:
        raise ExpressionError(f"'${{{{' without '}}}}' in {clipped(text)!r}; quote this value", start - 3)
    return end  # brackets or quotes do not match: the parser says where


def _reference(parts: tuple[str | Expression, ...], scope: Scope) -> dict[str, Any]:
    """Return what is recorded in the place of text with secrets in it: its text and their names, in order."""
    found: list[Any] = []
    for part in parts:
        if isinstance(part, Expression) and part.secret is not None:
            found.append({"name": part.secret})
            continue
        text = part if isinstance(part, str) else _text(part, scope)
        if found and isinstance(found[-1], str):
            found[-1] += text
        else:
            found.append(text)
    return {"secret": found}


def _text(expression: Expression, scope: Scope) -> str:
    value = evaluate(expression, scope)
    if value is None:
        raise ExpressionError(f"'{expression.text}' is null and cannot stand inside text")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

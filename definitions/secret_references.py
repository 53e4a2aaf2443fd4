"""References to secrets: what stands in the recorded input of a call, and where.

`"Bearer ${{ secrets.TOKEN }}"` is recorded as `{"secret": ["Bearer ", {"name": "TOKEN"}]}`, and beside the input stands
the JSON pointer (RFC 6901) to it. Only what a pointer leads to is a reference: data that looks like one stays data.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from perdure.definitions.expressions import Expression
from perdure.definitions.templates import Interpolation, Template, expressions, render


def pointers_in(template: Template) -> Iterator[str]:
    """Yield the JSON pointers to the references in what a template is rendered to."""
    return (pointer for pointer, _ in _references_in(template))


def pointers_kept(template: Template, given: Any) -> Iterator[str]:
    """Yield those to the references of a template that an input given in its place repeats exactly.

    The others are data, also where an expression stands beside the secret.
    """
    for pointer, part in _references_in(template):
        if all(each.secret for each in expressions(part)) and _at(given, _keys(pointer)) == render(part, {}):
            yield pointer


def names_in(template: Template) -> frozenset[str]:
    """Return the names of the secrets that stand in a template."""
    return frozenset(each.secret for each in expressions(template) if each.secret is not None)


def revealed(value: Any, pointers: Iterable[str], value_of: Callable[[str], str]) -> Any:
    """Return a recorded input with the values of the secrets in it; the recorded one stays as it is."""
    for pointer in pointers:
        value = _replaced(value, _keys(pointer), value_of)
    return value


def _replaced(value: Any, keys: list[str], value_of: Callable[[str], str]) -> Any:
    if not keys:
        return "".join(part if isinstance(part, str) else value_of(part["name"]) for part in value["secret"])
    copy, key = value.copy(), int(keys[0]) if isinstance(value, list) else keys[0]
    copy[key] = _replaced(value[key], keys[1:], value_of)
    return copy


def _references_in(template: Template, at: str = "") -> Iterator[tuple[str, Expression | Interpolation]]:
    if isinstance(template, Expression | Interpolation):
        if template.secret:
            yield at, template
    elif isinstance(template, dict | list):
        for key, item in template.items() if isinstance(template, dict) else enumerate(template):
            yield from _references_in(item, f"{at}/{_escaped(str(key))}")


def _at(value: Any, keys: list[str]) -> Any:
    for key in keys:
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _keys(pointer: str) -> list[str]:
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")

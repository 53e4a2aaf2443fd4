"""References to secrets: what stands in the recorded input of a call, and where.

`"Bearer ${{ secrets.TOKEN }}"` is recorded as `{"secret": ["Bearer ", {"name": "TOKEN"}]}`, and beside the input stands
the JSON pointer (RFC 6901) to it. Only what a pointer leads to is a reference: data that looks like one stays data.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from perdure.definitions.expressions import Expression
from perdure.definitions.templates import Interpolation, Template, expressions


def pointers_in(template: Template, at: str = "") -> Iterator[str]:
    """Yield the JSON pointers to the references in what a template is rendered to."""
    if isinstance(template, Expression | Interpolation):
        if template.secret:
            yield at
    elif isinstance(template, dict | list):
        for key, item in template.items() if isinstance(template, dict) else enumerate(template):
            yield from pointers_in(item, f"{at}/{_escaped(str(key))}")


def names_in(template: Template) -> frozenset[str]:
    """Return the names of the secrets that stand in a template."""
    return frozenset(each.secret for each in expressions(template) if each.secret is not None)


def revealed(value: Any, pointers: Iterable[str], value_of: Callable[[str], str]) -> Any:
    """Return a recorded input with the values of the secrets in it; the recorded one stays as it is."""
    for pointer in pointers:
        value = _replaced(value, [_plain(key) for key in pointer.split("/")[1:]], value_of)
    return value


def _replaced(value: Any, keys: list[str], value_of: Callable[[str], str]) -> Any:
    if not keys:
        return "".join(part if isinstance(part, str) else value_of(part["name"]) for part in value["secret"])
    copy, key = value.copy(), int(keys[0]) if isinstance(value, list) else keys[0]
    copy[key] = _replaced(value[key], keys[1:], value_of)
    return copy


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _plain(key: str) -> str:
    return key.replace("~1", "/").replace("~0", "~")

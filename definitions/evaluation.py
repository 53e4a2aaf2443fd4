"""One evaluation of an expression: its limits, what it has used of them, and the decision that it belongs to.

There is no clock here: the pure core may not read one. The budget of steps is the limit of time. Each visit of a part
of an expression is a step, and whatever takes longer with the size of its data is charged by that size before it is
done, so that no step takes long.
"""

import ast
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from perdure.definitions.hints import did_you_mean
from perdure.definitions.patterns import Pattern
from perdure.errors import ExpressionError

MAX_LENGTH = 10_000
"""Characters of an expression."""
MAX_DEPTH = 100
"""Parts of an expression within one another."""
MAX_STEPS = 500_000
"""Steps of one evaluation."""
MAX_TEXT = 1_000_000
"""Characters of a text that is computed."""
MAX_RESULT = 10_000_000
"""Characters of text in a result, in all."""
MAX_BITS = 256
"""Bits of a whole number that is computed."""
TEXT_PER_STEP = 50
"""Characters that are read or written in the time of one step."""

MOMENT = "$moment"
"""The key of a scope under which the caller puts a Moment; no expression can name it."""

CONFIGURATION = "$configuration"
"""The key of a scope under which a statechart puts what says whether a state of it is active."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The decision that an expression is part of: its UTC time, and a seed that no other decision's part has."""

    at: datetime
    seed: str

    def text(self) -> str:
        """Return the time as ISO 8601 in UTC."""
        return self.at.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def uuid(self, *position: object) -> str:
        """Return the UUID (version 8, RFC 9562) that belongs to one position within the decision's part."""
        digest = bytearray(sha256(repr((self.seed, self.text(), *position)).encode("utf-8", "replace")).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        parts = digest.hex()
        return f"{parts[:8]}-{parts[8:12]}-{parts[12:16]}-{parts[16:20]}-{parts[20:]}"


class Run:
    """One evaluation under way: its data, the values of its variables, and the steps that are left."""

    __slots__ = ("left", "place", "scope", "slots", "uuids")

    def __init__(self, scope: Mapping[str, Any], place: object, slots: int, left: int) -> None:
        self.scope = scope
        self.place = place
        self.slots: list[Any] = [None] * slots
        self.left = left
        self.uuids = 0

    def spend(self, steps: int) -> None:
        """Take steps from the budget; raise ExpressionError where it is used up."""
        self.left -= steps
        if self.left < 0:
            raise ExpressionError(f"it takes more than {MAX_STEPS} steps; do this in a tool")

    def make_text(self, length: int) -> None:
        """Take what it costs to make a text of this length."""
        if length > MAX_TEXT:
            raise ExpressionError(f"text of more than {MAX_TEXT} characters")
        self.spend(1 + length // TEXT_PER_STEP)

    def search(self, text: str, wanted: str) -> None:
        """Take what it costs at worst to look for one text in another."""
        here, there = len(wanted), len(text)
        steps = 1 + there // TEXT_PER_STEP
        if there < 2500 or (here < 100 and there < 30_000):  # here CPython compares at every position
            steps += max(there - here, 0) * here // 500
        self.spend(steps)

    def weigh(self, value: Any) -> int:
        """Take a step for each part of a value and what its text costs; return the characters of its text."""
        characters, todo = 0, [value]
        while todo:
            part = todo.pop()
            kind = type(part)
            self.left -= 1
            if kind is str:
                characters += len(part)
            elif kind is list:
                if len(part) > self.left:
                    self.spend(len(part))
                todo += part
            elif kind is dict:
                if len(part) > self.left:
                    self.spend(len(part))
                characters += sum(map(len, part))
                todo += part.values()
            if self.left < 0:
                break
        self.spend(characters // TEXT_PER_STEP)
        return characters

    def check_result(self, value: Any) -> None:
        """Refuse a result that is too large to be written."""
        before = self.left
        if self.weigh(value) > MAX_RESULT:
            raise ExpressionError(f"the result has more than {MAX_RESULT} characters of text")
        self.spend(before - self.left)  # writing it takes as long again

    def moment(self, function: str) -> Moment:
        """Return the decision that this is part of; raise ExpressionError where there is none."""
        moment = self.scope.get(MOMENT)
        if not isinstance(moment, Moment):
            raise ExpressionError(f"{function}() is not available here: there is no decision whose time is recorded")
        return moment


class Missing(ExpressionError):
    """Something that is read is not there; the message is put together only if it is shown."""

    def __init__(self, value: Any, key: str | int, part: ast.Attribute | ast.Subscript) -> None:
        super().__init__("")
        self.value = value
        self.key = key
        self.part = part

    @property
    def absent(self) -> bool:
        """Whether it could be there: text and numbers never have parts with names."""
        return self.value is None or isinstance(self.value, Mapping | list)

    def reason(self, text: str) -> str:
        """Return what is not there, and what is there instead."""
        path = clipped(ast.get_source_segment(text, self.part.value) or "it")
        if isinstance(self.value, list | str) and type(self.key) is int:
            return f"{path} has no [{self.key}]; it has {len(self.value)} {_UNITS[type(self.value)]}"
        if not isinstance(self.value, Mapping):
            return f"{path} is {describe(self.value)} and has no {self.key!r}"
        return f"{path} has no {self.key!r}; it has {listed(self.value)}{did_you_mean(str(self.key), self.value)}"


_UNITS: dict[type, str] = {list: "items", str: "characters"}


def bounded(value: Any) -> Any:
    """Return a computed number; raise ExpressionError where it is too large or not finite."""
    if type(value) is int:
        if value.bit_length() > MAX_BITS:
            raise ExpressionError(f"a number of more than {MAX_BITS} bits")
    elif type(value) is float and not math.isfinite(value):
        raise ExpressionError("the number is NaN or infinity, which JSON does not have")
    return value


KINDS: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "number": frozenset({int, float}),
    "integer": frozenset({int}),
    "boolean": frozenset({bool}),
    "list": frozenset({list}),
    "object": frozenset({dict}),
    "pattern": frozenset({str, Pattern}),
}
"""The kinds of data by the names that users know, and the types that hold them."""

_DESCRIPTIONS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}


def describe(value: Any) -> str:
    """Return what kind of data a value is, for messages."""
    fallback = "an object" if isinstance(value, Mapping) else f"no JSON data ({type(value).__name__})"
    return _DESCRIPTIONS.get(type(value), fallback)


def listed(words: Iterable[Any], most: int = 20) -> str:
    """Return the first words, each one cut to a readable length, for messages."""
    every = list(words)
    shown = ", ".join(clipped(str(word), 60) for word in every[:most]) or "nothing"
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def clipped(text: str, most: int = 200) -> str:
    """Return text cut to a readable length, for messages."""
    return text if len(text) <= most else f"{text[:most]}…"

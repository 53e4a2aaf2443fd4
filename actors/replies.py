"""Replies of models: what one says and calls, and whether it is what an agent's output schema asks for. Pure."""

import json
from collections import Counter
from typing import Any

import msgspec

from perdure.definitions.data_words import misfits
from perdure.definitions.json_values import to_json_value
from perdure.errors import PerdureError

_SHOWN = 200  # characters of a reply that an error shows


class InvalidReply(PerdureError):
    """The model's reply is not what the agent's output schema asks for."""


class AskedFor(msgspec.Struct, frozen=True):
    """A call that a reply asks for; `arguments` is the JSON text that the model gave."""

    id: str
    name: str
    arguments: str = "{}"


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model said: text, calls, or both. This is what is recorded of it."""

    text: str = ""
    calls: list[AskedFor] = []

    @classmethod
    def of(cls, recorded: Any) -> "Reply":
        """Return a recorded reply; what somebody gave in its place by hand counts as its text."""
        if isinstance(recorded, str):
            return cls(recorded)
        try:
            return msgspec.convert(recorded, cls)
        except msgspec.ValidationError:
            return cls(json.dumps(recorded, ensure_ascii=False))


def checked(name: str, text: str, schema: dict[str, Any]) -> Any:
    """Return the JSON data in a reply; raise InvalidReply when it is none, or not as the schema says."""
    try:
        value = to_json_value(json.loads(_without_fence(text)))
    except (ValueError, RecursionError) as error:
        shown = repr(text) if len(text) <= _SHOWN else f"{len(text)} characters"  # a part might be of a secret
        raise InvalidReply(f"agent {name!r} replied with text that is not JSON ({error}): {shown}") from None
    if problems := misfits(schema, value, "reply"):
        raise InvalidReply(f"agent {name!r}: the reply breaks its output schema: {'; '.join(problems)}")
    return value


def _without_fence(text: str) -> str:
    """Return the text without the ``` fence that models like to put around JSON."""
    stripped = text.strip()
    if not (stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped):
        return text
    return stripped.partition("\n")[2].removesuffix("```")


def arguments_of(call: AskedFor) -> dict[str, Any]:
    """Return the arguments of a call; raise InvalidReply where they are no JSON object."""
    try:
        value = to_json_value(json.loads(call.arguments or "{}"))
    except (ValueError, RecursionError) as error:
        raise InvalidReply(f"the arguments of {call.name[:64]!r} are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidReply(f"the arguments of {call.name[:64]!r} are no JSON object")
    return value


def numbered(calls: list[AskedFor]) -> list[str]:
    """Return what each call of a reply is named by: its tool's name, from the second on with a number behind."""
    names: list[str] = []
    times = Counter[str]()
    for call in calls:
        times[call.name] += 1
        names.append(call.name if times[call.name] == 1 else f"{call.name}~{times[call.name]}")
    return names

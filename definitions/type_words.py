"""Words for values of a wrong type, out of bounds, or of an unknown name."""

from typing import Any

from pydantic_core import ErrorDetails

from perdure.definitions.hints import did_you_mean
from perdure.definitions.yaml_source import Path

_NOUNS = {
    "string_type": "text",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "list_type": "a list", "dict_type": "a mapping", "mapping_type": "a mapping",
    "model_type": "a mapping", "model_attributes_type": "a mapping", "dataclass_type": "a mapping",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_LINES = {"a list": "; write `- ...` lines below it", "a mapping": "; write `key: value` lines below it"}
_MAIN = {"approval": "title", "foreach": "items", "loop": "max_iterations", "retry": "attempts"}
"""By the key of a mapping, the key within it that a single value in its place is meant for."""
_SHOWN = 40


def shown_value(value: Any) -> str:
    """Return a value as a message names it."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_wrong_type(item: ErrorDetails) -> bool:
    """Return whether a pydantic error says that a value is of a wrong type, or none of the allowed words."""
    return item["type"] in _NOUNS or item["type"] == "literal_error"


def wrong_type(path: Path, items: list[ErrorDetails]) -> str:
    """Say in one sentence what a value may be, from all errors at its place."""
    words = [item["ctx"]["expected"] for item in items if item["type"] == "literal_error"]
    nouns = [f"one of {each}" if " or " in each else each for each in words]
    nouns += [_NOUNS[item["type"]] for item in items if item["type"] in _NOUNS]
    value = items[0]["input"]
    mend = _mend(path, value, words, nouns)
    return f"{_name(path)} is {' or '.join(dict.fromkeys(nouns))}, not {shown_value(value)}{mend}"


def _mend(path: Path, value: Any, words: list[str], nouns: list[str]) -> str:
    known = [word.strip("'") for each in words for word in each.replace(" or ", ", ").split(", ")]
    if isinstance(value, str) and known:
        return did_you_mean(value, known)
    if value is None:
        return "; give it a value, or leave the key out"
    if "text" in nouns and isinstance(value, bool | int | float):
        return "; quote it"
    if nouns == ["a mapping"] and path and path[-1] in _MAIN and not isinstance(value, list):
        return f"; write `{path[-1]}: {{{_MAIN[str(path[-1])]}: {value}}}`"
    lines = _LINES.get(" ".join(nouns), "")
    return f"{lines}, not `- ...`" if lines and isinstance(value, list) else lines


def out_of_bounds(path: Path, item: ErrorDetails) -> str:
    """Say what a number or a length may be."""
    context = item.get("ctx", {})
    if item["type"] in _BOUNDS:
        key, words = _BOUNDS[item["type"]]
        return f"{_name(path)} is {words} {context[key]:g}, not {shown_value(item['input'])}"
    if item["type"] == "too_short":
        return f"{_name(path)} is empty; it has at least {context['min_length']}"
    return f"{_name(path)}: {item['msg'][:1].lower()}{item['msg'][1:]}"


def _name(path: Path) -> str:
    if not path:
        return "the definition"
    if isinstance(path[-1], int):
        holder = next((part for part in reversed(path) if isinstance(part, str)), "the list")
        return f"entry {path[-1] + 1} of {holder!r}"
    return repr(path[-1])

"""What may stand in the log: JSON data that reads back as exactly what was written."""

from typing import Any

import msgspec
from pydantic_core import to_json


def to_json_value(value: Any) -> Any:
    """Return a value as plain JSON data: models, dataclasses, tuples and sets become objects and lists.

    Raises ValueError saying what cannot be written: NaN, infinity, integers of thousands of digits, text that is not
    Unicode, circular or very deep data, objects of other kinds.
    """
    if value is None or isinstance(value, bool) or (type(value) is str and value.isascii()):
        return value
    if type(value) is int and value.bit_length() < 64:
        return value
    try:
        plain = msgspec.json.decode(to_json(value, inf_nan_mode="constants"))
        msgspec.json.encode(plain)  # the log's own encoder has the last word
    except msgspec.DecodeError:
        raise ValueError("it has NaN or infinity, which JSON does not") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(_reason(str(error))) from None
    return plain


def clean_text(text: str, limit: int = 10_000) -> str:
    """Return text that can be written: at most `limit` characters, what is not Unicode replaced."""
    kept = text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"
    return kept if kept.isascii() else kept.encode("utf-8", "replace").decode()


def _reason(text: str) -> str:
    if "UnicodeEncodeError" in text or "utf-8" in text:
        return "it has text that is not valid Unicode"
    if "depth" in text or "recursion" in text.lower():
        return "it is nested too deeply"
    if "digits" in text:
        return "it has an integer of too many digits"
    return text.removeprefix("Error serializing to JSON: ")

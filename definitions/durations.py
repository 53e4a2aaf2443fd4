"""Durations as people write them: `90s`, `5m`, `1h30m`, `2d`, or a number of seconds."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LONGEST = 100 * 365 * 86400.0
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


DURATION = r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$"
Written = Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=DURATION, examples=["30s", "5m", "1h30m", "2d"])]
"""A duration as it is written, for the JSON Schema."""


def parse_duration(value: Any) -> Any:
    """Return the seconds of `value`; leave numbers alone; raise a pydantic error for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    parts = _PART.findall(value) if isinstance(value, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise PydanticCustomError(
            "duration", "not a duration: {value}; write 500ms, 90s, 5m, 1h30m or 2d", {"value": repr(value)}
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def duration_in_bounds(value: Any) -> float:
    """Return the seconds of `value`; raise a pydantic error, a ValueError, for what is no duration or too long."""
    seconds = parse_duration(value)
    if not 0 <= seconds <= LONGEST:
        raise PydanticCustomError("duration", "a duration lies between 0 and 100 years")
    return float(seconds)


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=Written), Field(ge=0, le=LONGEST)]
"""Seconds, written as a number or as text such as `5m`."""

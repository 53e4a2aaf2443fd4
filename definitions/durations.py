"""Durations as people write them: `90s`, `5m`, `1h30m`, `2d`, or a number of seconds."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


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


def seconds_of(value: Any) -> float:
    """Return the seconds of a duration that an expression gave; raise ValueError where it is none."""
    seconds = parse_duration(value)
    if not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST:
        raise ValueError(f"{value!r} is not a duration between 0 and 100 years")
    return float(seconds)


_LONGEST = 100 * 365 * 86400.0

Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=_LONGEST)]
"""Seconds, written as a number or as text such as `5m`."""

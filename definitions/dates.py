"""Points in time as ISO 8601 text with a zone: their parts, and moving them by a duration."""

from datetime import datetime, timedelta
from typing import Any

from perdure.definitions.durations import parse_duration
from perdure.errors import ExpressionError

_LONGEST = 60
"""Characters that are looked at: no time and no duration has as many, and reading them takes longer with each."""


def date_parts(text: str) -> dict[str, Any]:
    """Return the parts of a point in time, as written in its own zone; `epoch` is in seconds since 1970 UTC."""
    at = _parse(text)
    epoch = at.timestamp()
    return {
        "year": at.year,
        "month": at.month,
        "day": at.day,
        "hour": at.hour,
        "minute": at.minute,
        "second": at.second,
        "weekday": at.isoweekday(),
        "epoch": int(epoch) if epoch == int(epoch) else epoch,
    }


def date_add(text: str, duration: str | float) -> str:
    """Return a point in time moved by a duration such as `2d` or `-90s`, or by a number of seconds."""
    at = _parse(text)
    if isinstance(duration, str):
        duration = duration[:_LONGEST]
    back = isinstance(duration, str) and duration.startswith("-")
    try:
        seconds = float(parse_duration(duration[1:] if isinstance(duration, str) and back else duration))
        return (at + timedelta(seconds=-seconds if back else seconds)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise ExpressionError(f"{text} moved by {duration!r} is out of range") from None
    except ValueError as error:
        raise ExpressionError(str(error)) from None


def _parse(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text[:_LONGEST])
    except ValueError:
        raise ExpressionError(f"{text[:60]!r} is not a time; write 2026-01-31T12:00:00Z") from None
    if at.tzinfo is None:
        raise ExpressionError(f"{text!r} has no time zone; add one, as in {at.isoformat()}Z")
    return at

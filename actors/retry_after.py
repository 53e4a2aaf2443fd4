"""How long somebody asks us to wait before the next try: read from HTTP headers and from what tools raise."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

LONGEST = 86400.0
"""Seconds: who asks for more than a day is asked again after one."""


def seconds_in(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a response asks to wait, by `retry-after-ms` or `Retry-After`; None where it does not."""
    milliseconds, after = _number(headers.get("retry-after-ms", "")), headers.get("retry-after", "")
    if milliseconds is not None:
        return milliseconds / 1000
    if (seconds := _number(after)) is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(after)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _number(text: str) -> float | None:
    try:
        return checked(float(text))
    except ValueError:
        return None


def checked(value: Any) -> float | None:
    """Return a number of seconds that can be waited for, at most LONGEST; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(value, LONGEST)) if value >= 0 else None  # NaN is not


def asked(data: Any) -> float:
    """Return the seconds that an error's data asks to wait; 0 where it does not ask."""
    return (checked(data.get("retry_after")) if isinstance(data, dict) else None) or 0.0

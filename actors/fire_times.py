"""When schedules fire: the times that a cron expression, an interval or a single time come to, in UTC."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from perdure.errors import BadInput
from perdure.events.schedules import Timing

_SHORTCUTS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}  # fmt: skip


def check_timing(timing: Timing, now: datetime) -> None:
    """Raise BadInput naming what keeps a schedule from ever firing so."""
    given = [name for name in ("cron", "every", "at") if getattr(timing, name)]
    if len(given) != 1:
        told = ", ".join(given) or "none (an interval is at least 1 second)"
        raise BadInput(f"say when it fires by one of cron, every and at; given: {told}")
    if timing.every < 0 or timing.jitter < 0:
        raise BadInput("an interval is at least 1 second, and a jitter not negative")
    _zone(timing.zone)
    if next_fire(timing, now) is None:
        raise BadInput(f"it would never fire: {timing.cron or timing.at} does not come after {now:%Y-%m-%d %H:%M:%S}")


def next_fire(timing: Timing, after: datetime) -> datetime | None:
    """Return the first fire time behind a UTC time, in whole seconds and without jitter; None where there is none.

    Raises BadInput where the cron expression or the time zone cannot be read.
    """
    if timing.cron:
        return _next_cron(timing, after)
    if timing.at is not None:
        return timing.at if timing.at > after else None
    assert timing.since is not None  # noqa: S101 (whoever makes a schedule by interval says since when)
    every = timedelta(seconds=timing.every)
    return timing.since + every * max(1, (after - timing.since) // every + 1)


def fires(timing: Timing, after: datetime) -> Iterator[datetime]:
    """Yield the fire times behind a UTC time."""
    at = next_fire(timing, after)
    while at is not None:
        yield at
        at = next_fire(timing, at)


def due(name: str, timing: Timing, at: datetime) -> datetime:
    """Return when a fire time is due: later by its jitter, which is the same whoever asks."""
    if not timing.jitter:
        return at
    digest = hashlib.sha256(f"{name}/{at.isoformat()}".encode()).digest()
    return at + timedelta(milliseconds=int.from_bytes(digest[:8]) % (timing.jitter * 1000))


def time_in(zone: str, value: datetime | str, what: str) -> datetime:
    """Return a moment in UTC, to the second; one that names no time zone is in this one. Raises BadInput."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise BadInput(f"{what}: {value!r} is no time; write 2026-01-31T12:00, or 2026-01-31T12:00+01:00") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=_zone(zone))
    return at.astimezone(UTC).replace(microsecond=0)


def _next_cron(timing: Timing, after: datetime) -> datetime | None:
    """Return the first cron time behind another; the library gives local times, and may give one that has passed.

    A job at a set time in the hour that a clock repeats is meant for the first of the two: seen from within the second
    one, that lies in the past.
    """
    expression = _SHORTCUTS.get(timing.cron.strip().lower(), timing.cron)
    _check_expression(expression)
    times = CronSim(expression, after.astimezone(_zone(timing.zone)))
    for local in times:
        at = local.astimezone(UTC)
        if at > after:
            return at
    return None


@lru_cache(maxsize=1024)
def _check_expression(expression: str) -> None:
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise BadInput(
            f"the cron expression {expression!r} cannot be read: {error}; write minute, hour, day of the month, month "
            "and day of the week, with seconds before them where you need them, such as '0 3 * * MON-FRI'"
        ) from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"there is no time zone {name!r}; write one such as Europe/Berlin, or UTC") from None

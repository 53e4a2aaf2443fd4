"""When schedules fire: through changes of clocks, from wherever one asks, and as the cron library says."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from perdure.actors.fire_times import check_timing, due, fires, next_fire, time_in
from perdure.errors import BadInput
from perdure.events.schedules import Timing

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns")
EXPRESSIONS = (
    "* * * * *", "*/15 * * * *", "30 2 * * *", "15,45 1-3 * * *", "0 0 * * *", "0 3 * * MON-FRI", "0 12 1 * *",
    "0 0 29 2 *", "*/20 * * * * *", "30 59 1 * * *", "5 0 * * SUN#2", "0 4 L * *", "0 */6 * * *", "59 23 31 12 *",
)  # fmt: skip
MOMENTS = st.integers(1_704_067_200_000, 1_861_919_999_999).map(lambda ms: datetime.fromtimestamp(ms / 1000, UTC))


def local(timing: Timing, first: str, count: int) -> list[str]:
    """Return fire times behind a local time as people there read them, with the distance to UTC."""
    found = islice(fires(timing, time_in(timing.zone, first, "first")), count)
    return [f"{at.astimezone(ZoneInfo(timing.zone)):%m-%d %H:%M%z}" for at in found]


def test_a_daily_fire_in_the_hour_that_a_clock_leaves_out_comes_when_the_clock_goes_on() -> None:
    berlin = Timing("30 2 * * *", "Europe/Berlin")
    assert local(berlin, "2026-03-28T00:00", 3) == ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]
    new_york = Timing("30 2 * * *", "America/New_York")
    assert local(new_york, "2026-03-07T00:00", 3) == ["03-07 02:30-0500", "03-08 03:00-0400", "03-09 02:30-0400"]


def test_a_daily_fire_in_the_hour_that_a_clock_repeats_comes_once() -> None:
    berlin = Timing("30 2 * * *", "Europe/Berlin")
    assert local(berlin, "2026-10-24T12:00", 2) == ["10-25 02:30+0200", "10-26 02:30+0100"]
    new_york = Timing("30 1 * * *", "America/New_York")
    assert local(new_york, "2026-10-31T12:00", 2) == ["11-01 01:30-0400", "11-02 01:30-0500"]


def test_a_fire_that_is_asked_for_from_within_the_repeated_hour_does_not_lie_in_the_past() -> None:
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 in Berlin for the second time
    assert next_fire(Timing("30 2 * * *", "Europe/Berlin"), second) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_two_fires_in_the_hour_that_is_left_out_come_together_once() -> None:
    both = Timing("15,45 2 * * *", "Europe/Berlin")
    assert local(both, "2026-03-29T00:00", 2) == ["03-29 03:00+0200", "03-30 02:15+0200"]


def test_fires_every_quarter_of_an_hour_come_through_both_changes_without_a_gap() -> None:
    for zone, day in (
        ("Europe/Berlin", "2026-03-29"),
        ("Europe/Berlin", "2026-10-25"),
        ("America/New_York", "2026-11-01"),
    ):
        times = list(islice(fires(Timing("*/15 * * * *", zone), time_in(zone, f"{day}T00:00", "first")), 40))
        assert {later - at for at, later in pairwise(times)} == {timedelta(minutes=15)}


def test_a_change_of_half_an_hour_is_followed() -> None:
    howe = Timing("15 2 * * *", "Australia/Lord_Howe")  # 02:00 becomes 02:30
    assert local(howe, "2026-10-03T12:00", 2) == ["10-04 02:30+1100", "10-05 02:15+1100"]


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), MOMENTS)
def test_fire_times_grow_and_are_the_same_from_wherever_one_asks(expression: str, zone: str, after: datetime) -> None:
    timing = Timing(expression, zone)
    first, second = islice(fires(timing, after), 2)
    assert after < first < second
    between = after + (first - after) / 2
    assert next_fire(timing, between) == first
    assert next_fire(timing, first - timedelta(seconds=1)) == first
    assert first.microsecond == 0


@given(st.sampled_from(EXPRESSIONS), MOMENTS)
def test_in_a_zone_without_changes_fire_times_are_the_librarys(expression: str, after: datetime) -> None:
    assert list(islice(fires(Timing(expression, "UTC"), after), 5)) == list(islice(CronSim(expression, after), 5))


@given(st.integers(1, 100_000), MOMENTS, MOMENTS)
def test_an_interval_keeps_its_beat_from_wherever_one_asks(every: int, since: datetime, after: datetime) -> None:
    since = since.replace(microsecond=0)
    at = next_fire(Timing(every=every, since=since), after)
    assert at is not None
    assert at > max(after, since)
    assert (at - since) % timedelta(seconds=every) == timedelta(0)
    assert at - timedelta(seconds=every) <= max(after, since)


@given(st.integers(1, 86_400), MOMENTS)
def test_a_jitter_puts_a_fire_off_by_less_than_itself_and_always_by_the_same(jitter: int, at: datetime) -> None:
    timing = Timing("* * * * *", jitter=jitter)
    assert at <= due("nightly", timing, at) < at + timedelta(seconds=jitter)
    assert due("nightly", timing, at) == due("nightly", timing, at)


def test_jitter_spreads_the_schedules_of_one_moment() -> None:
    at, timing = datetime(2026, 1, 1, tzinfo=UTC), Timing("0 0 * * *", jitter=600)
    late = sorted((due(f"tenant-{number}", timing, at) - at).total_seconds() for number in range(1000))
    assert all(abs(late[part * 100] - part * 60) < 30 for part in range(1, 10))


def test_a_single_time_comes_once() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    assert list(fires(Timing(at=at), at - timedelta(days=1))) == [at]
    assert next_fire(Timing(at=at), at) is None


@pytest.mark.parametrize(
    ("timing", "message"),
    [
        (Timing("99 * * * *"), "the cron expression '99 * * * *' cannot be read: Bad minute"),
        (Timing("* * *"), "cannot be read: Wrong number of fields"),
        (Timing("0 0 30 2 *"), "cannot be read: Bad day-of-month"),
        (Timing("0 0 * * *", "Europe/Berlln"), "there is no time zone 'Europe/Berlln'"),
        (Timing("0 0 * * *", "../../etc/passwd"), "there is no time zone"),
        (Timing(), "given: none"),
        (Timing("* * * * *", every=5), "given: cron, every"),
        (Timing(at=datetime(2020, 1, 1, tzinfo=UTC)), "it would never fire"),
    ],
)
def test_a_timing_that_never_fires_is_refused_and_says_why(timing: Timing, message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("*", r"\*")):
        check_timing(timing, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_time_without_a_zone_is_in_the_schedules() -> None:
    assert time_in("Europe/Berlin", "2026-07-01T12:00", "at") == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert time_in("Europe/Berlin", "2026-07-01T12:00Z", "at") == datetime(2026, 7, 1, 12, tzinfo=UTC)
    with pytest.raises(BadInput, match="at: 'noon' is no time"):
        time_in("UTC", "noon", "at")

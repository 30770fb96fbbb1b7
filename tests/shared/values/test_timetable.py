"""When things are due: change of clocks, catch-up of intervals, windows of hours."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest

from shared.errors import InvalidRequest
from shared.values.timetable import DailyHours, Timetable

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(line: str, timezone: str = BERLIN) -> Timetable:
    return Timetable(line, None, timezone, at("2026-01-01"))


def test_a_fixed_hour_that_is_skipped_fires_when_the_clock_has_jumped() -> None:
    """On 29 March 2026 at 2:00 the clocks of Berlin go to 3:00, which is 1:00 UTC."""
    slots = cron("30 2 * * *").next_slots(at("2026-03-28T12:00"), 2)
    assert slots == [at("2026-03-29T01:00"), at("2026-03-30T00:30")]


def test_a_fixed_hour_that_comes_twice_fires_once() -> None:
    """On 25 October 2026 at 3:00 the clocks go back to 2:00: half past two is 0:30 and 1:30 UTC."""
    slots = cron("30 2 * * *").next_slots(at("2026-10-24T12:00"), 2)
    assert slots == [at("2026-10-25T00:30"), at("2026-10-26T01:30")]


def test_every_half_hour_follows_the_real_hours() -> None:
    slots = cron("*/30 * * * *").next_slots(at("2026-10-24T23:30"), 6)
    assert slots == [at("2026-10-25T00:00") + timedelta(minutes=30 * n) for n in range(6)]


def test_an_interval_counts_real_time_from_its_anchor() -> None:
    table = Timetable(None, 3600, BERLIN, at("2026-03-29T00:10"))
    assert table.next_slots(at("2026-03-29T00:10"), 2) == [at("2026-03-29T01:10"), at("2026-03-29T02:10")]
    assert table.next_slot(at("2026-03-28T00:00")) == at("2026-03-29T00:10")
    assert table.next_slot(at("2026-03-29T05:09:59")) == at("2026-03-29T05:10")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nonsense", None, BERLIN), "bad_cron"),
        (("0 0 30 2 *", None, BERLIN), "bad_cron"),
        ((None, 5, BERLIN), "too_short"),
        ((None, None, BERLIN), "cron_or_interval"),
        (("0 0 * * *", 3600, BERLIN), "cron_or_interval"),
        (("0 0 * * *", None, "Mars/Olympus"), "unknown_timezone"),
        (("0 0 * * *", None, "../etc/passwd"), "unknown_timezone"),
    ],
)
def test_what_is_never_due_is_refused(arguments: tuple[str | None, int | None, str], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Timetable(*arguments, at("2026-01-01"))
    assert caught.value.errors[0].code == code


def test_hours_may_reach_over_midnight() -> None:
    night = DailyHours(time(22), time(6), BERLIN)  # in winter 21:00 to 5:00 UTC
    told = {text: night.is_open(at(f"2026-01-10T{text}")) for text in ("20:59", "21:00", "23:30", "04:59", "05:00")}
    assert told == {"20:59": False, "21:00": True, "23:30": True, "04:59": True, "05:00": False}
    day = DailyHours(time(8), time(17), "UTC")
    assert [day.is_open(at(f"2026-01-10T{text}")) for text in ("07:59", "08:00", "16:59", "17:00")] == [
        False, True, True, False
    ]  # fmt: skip
    assert DailyHours.from_dict(night.to_dict()) == night


@pytest.mark.parametrize("since", ["25:00", "night", "06:00"])
def test_hours_that_are_none_are_refused(since: str) -> None:
    with pytest.raises(InvalidRequest):
        DailyHours.from_dict({"since": since, "until": "06:00", "timezone": "UTC"})

"""When things are due: cron lines and intervals in a time zone, and windows of hours. All moments are aware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from shared.errors import FieldError, InvalidRequest

MIN_INTERVAL_S = 60
"""Seconds between two slots of an interval at least."""
CRON_FIELDS = 5
"""Of a cron line."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """A cron line, or an interval: one of the two.

    Cron is read in the zone, by Debian's rules at the change of clocks (a line for a fixed hour fires once on either
    day; one with `*` for the hour follows the real hours). An interval counts real time from its anchor.

    Args:
        cron: five fields; None for an interval.
        every_s: seconds; None for cron.
        timezone: name of a zone, such as `Europe/Berlin`.
        anchor: first moment of an interval.
    """

    cron: str | None
    every_s: int | None
    timezone: str
    anchor: datetime

    def __post_init__(self) -> None:
        load_zone(self.timezone)
        if (self.cron is None) == (self.every_s is None):
            raise _invalid_field("/cron", "cron_or_interval", "Give either cron or every_s.")
        if self.every_s is not None and self.every_s < MIN_INTERVAL_S:
            raise _invalid_field("/every_s", "too_short", f"An interval is {MIN_INTERVAL_S} s or more.")
        if self.cron is not None:
            if len(self.cron.split()) != CRON_FIELDS:  # with a sixth, the library would fire by the second
                raise _invalid_field(
                    "/cron", "bad_cron", "A cron line has five fields: minute, hour, day, month, weekday."
                )
            try:
                next(CronSim(self.cron, self.anchor))
            except CronSimError as error:
                raise _invalid_field("/cron", "bad_cron", f"Not a cron line: {error}.") from None
            except StopIteration:
                raise _invalid_field("/cron", "never", "This cron line is never due.") from None

    def slots_after(self, moment: datetime) -> Iterator[datetime]:
        """Every slot after a moment, in order, in UTC."""
        if self.cron is not None:
            for due in CronSim(self.cron, moment.astimezone(load_zone(self.timezone))):
                yield due.astimezone(UTC)
            return
        step = timedelta(seconds=self.every_s or MIN_INTERVAL_S)
        passed = max(0, (moment - self.anchor) // step + 1)
        while True:
            yield (self.anchor + passed * step).astimezone(UTC)
            passed += 1

    def next_slot(self, moment: datetime) -> datetime:
        """The first slot after a moment."""
        return next(self.slots_after(moment))

    def next_slots(self, moment: datetime, count: int) -> list[datetime]:
        """The next few slots."""
        return list(islice(self.slots_after(moment), count))


@dataclass(frozen=True, slots=True)
class DailyHours:
    """A window of hours each day, in a time zone; `since` later than `until` reaches over midnight."""

    since: time
    until: time
    timezone: str

    def __post_init__(self) -> None:
        load_zone(self.timezone)
        if self.since == self.until:
            raise _invalid_field("/hours", "empty", "The window is empty: since and until are the same.")

    def is_open(self, moment: datetime) -> bool:
        """Whether work may start: from `since` (inclusive) to `until` (exclusive), by the clock on the wall."""
        now = moment.astimezone(load_zone(self.timezone)).time()
        if self.since < self.until:
            return self.since <= now < self.until
        return now >= self.since or now < self.until

    def to_dict(self) -> dict[str, Any]:
        """JSON form; read back by `from_dict`."""
        return {"since": f"{self.since:%H:%M}", "until": f"{self.until:%H:%M}", "timezone": self.timezone}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> DailyHours:
        """Inverse of `to_dict`; InvalidRequest for hours that are none."""
        try:
            since, until = (time.fromisoformat(record[name]) for name in ("since", "until"))
        except ValueError:
            raise _invalid_field("/hours", "bad_time", "Hours are written HH:MM.") from None
        return DailyHours(since, until, record["timezone"])


def load_zone(name: str) -> ZoneInfo:
    """The time zone of that name; InvalidRequest."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _invalid_field("/timezone", "unknown_timezone", "There is no time zone of that name.") from None


def _invalid_field(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=(FieldError(pointer, code, detail),))

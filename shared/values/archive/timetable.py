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

LEAST_S = 60
"""Seconds between two slots of an interval at least."""
FIELDS = 5
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
        zone(self.timezone)
        if (self.cron is None) == (self.every_s is None):
            raise _refused("/cron", "cron_or_interval", "Give either cron or every_s.")
        if self.every_s is not None and self.every_s < LEAST_S:
            raise _refused("/every_s", "too_short", f"An interval is {LEAST_S} s or more.")
        if self.cron is not None:
            if len(self.cron.split()) != FIELDS:  # with a sixth, the library would fire by the second
                raise _refused("/cron", "bad_cron", "A cron line has five fields: minute, hour, day, month, weekday.")
            try:
                next(CronSim(self.cron, self.anchor))
            except CronSimError as error:
                raise _refused("/cron", "bad_cron", f"Not a cron line: {error}.") from None
            except StopIteration:
                raise _refused("/cron", "never", "This cron line is never due.") from None

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Every slot after a moment, in order, in UTC."""
        if self.cron is not None:
            for due in CronSim(self.cron, moment.astimezone(zone(self.timezone))):
                yield due.astimezone(UTC)
            return
        step = timedelta(seconds=self.every_s or LEAST_S)
        passed = max(0, (moment - self.anchor) // step + 1)
        while True:
            yield (self.anchor + passed * step).astimezone(UTC)
            passed += 1

    def next(self, moment: datetime) -> datetime:
        """The first slot after a moment."""
        return next(self.after(moment))

    def coming(self, moment: datetime, count: int) -> list[datetime]:
        """The next few slots."""
        return list(islice(self.after(moment), count))


@dataclass(frozen=True, slots=True)
class Hours:
    """A window of hours each day, in a time zone; `since` later than `until` reaches over midnight."""

    since: time
    until: time
    timezone: str

    def __post_init__(self) -> None:
        zone(self.timezone)
        if self.since == self.until:
            raise _refused("/hours", "empty", "The window is empty: since and until are the same.")

    def open_at(self, moment: datetime) -> bool:
        """Whether work may start: from `since` (inclusive) to `until` (exclusive), by the clock on the wall."""
        now = moment.astimezone(zone(self.timezone)).time()
        if self.since < self.until:
            return self.since <= now < self.until
        return now >= self.since or now < self.until

    def record(self) -> dict[str, Any]:
        """JSON form; read back by `Hours.read`."""
        return {"since": f"{self.since:%H:%M}", "until": f"{self.until:%H:%M}", "timezone": self.timezone}

    @staticmethod
    def read(record: dict[str, Any]) -> Hours:
        """Inverse of `record`; InvalidRequest for hours that are none."""
        try:
            since, until = (time.fromisoformat(record[name]) for name in ("since", "until"))
        except ValueError:
            raise _refused("/hours", "bad_time", "Hours are written HH:MM.") from None
        return Hours(since, until, record["timezone"])


def zone(name: str) -> ZoneInfo:
    """The time zone of that name; InvalidRequest."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _refused("/timezone", "unknown_timezone", "There is no time zone of that name.") from None


def _refused(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=(FieldError(pointer, code, detail),))

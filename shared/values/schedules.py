"""Schedules, and the slots at which they were due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.values.batches import Workload
from shared.values.time import format_timestamp
from shared.values.timetable import Timetable


@dataclass(frozen=True, slots=True)
class Schedule:
    """A workload that is repeated by a timetable.

    Args:
        timetable: when.
        work: what.
        catch_up: after a time without beat: `skip` what was missed, make up for it `once`, or for `all` of it.
        next_at: the next slot; while paused, the one that it would have.
        last_slots: the latest slots, newest first.
    """

    id: str
    name: str
    timetable: Timetable
    work: Workload
    catch_up: str
    next_at: datetime
    paused_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_slots: tuple[Slot, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "cron": self.timetable.cron,
            "every_s": self.timetable.every_s,
            "timezone": self.timetable.timezone,
            "catch_up": self.catch_up,
            **self.work.to_dict(),
            "paused_at": format_timestamp(self.paused_at),
            "next_at": None if self.paused_at else format_timestamp(self.next_at),
            "last_slots": [slot.to_dict() for slot in self.last_slots],
            "created_at": format_timestamp(self.created_at),
            "updated_at": format_timestamp(self.updated_at),
        }


@dataclass(frozen=True, slots=True)
class Slot:
    """A moment at which a schedule was due: `fired` (with its batch), or `skipped` (and why)."""

    due_at: datetime
    outcome: str
    reason: str | None
    batch_id: str | None
    fired_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "due_at": format_timestamp(self.due_at),
            "outcome": self.outcome,
            "reason": self.reason,
            "batch_id": self.batch_id,
            "fired_at": format_timestamp(self.fired_at),
        }

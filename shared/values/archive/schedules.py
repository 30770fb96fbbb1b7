"""Schedules, the moments at which they were due, and sources of films."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.values.archive.batches import Work
from shared.values.archive.timetable import Timetable
from shared.values.ledger import stamp


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an archive is worked on, and how.

    Args:
        timetable: when.
        work: what.
        catch_up: after a time without beat: `skip` what was missed, make up for it `once`, or for `all` of it.
        next_at: the next slot; while paused, the one that it would have.
        last: the latest slots, newest first.
    """

    id: str
    name: str
    timetable: Timetable
    work: Work
    catch_up: str
    next_at: datetime
    paused_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last: tuple[Slot, ...] = ()

    def record(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "cron": self.timetable.cron,
            "every_s": self.timetable.every_s,
            "timezone": self.timetable.timezone,
            "catch_up": self.catch_up,
            **self.work.record(),
            "paused_at": stamp(self.paused_at),
            "next_at": None if self.paused_at else stamp(self.next_at),
            "last_slots": [slot.record() for slot in self.last],
            "created_at": stamp(self.created_at),
            "updated_at": stamp(self.updated_at),
        }


@dataclass(frozen=True, slots=True)
class Slot:
    """A moment at which a schedule was due: `fired` (with its batch), or `skipped` (and why)."""

    due_at: datetime
    outcome: str
    reason: str | None
    batch_id: str | None
    fired_at: datetime

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "due_at": stamp(self.due_at),
            "outcome": self.outcome,
            "reason": self.reason,
            "batch_id": self.batch_id,
            "fired_at": stamp(self.fired_at),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """A folder, or a list of files, whose films stay where they are.

    Args:
        folder, files: where: one of the two, by kind.
        watch_s: seconds between two scans; None: on request only.
        labels: of the jobs on its films.
        wanted_at: when a scan was asked for that has not begun; None: none is.
        scan: what the last scan found: counts, and an error where it could not be done.
        counts: files by state: `present`, `gone`, `refused`.
    """

    id: str
    name: str
    kind: str
    folder: str | None
    files: tuple[str, ...]
    watch_s: float | None
    labels: Mapping[str, str]
    created_at: datetime
    wanted_at: datetime | None
    scanned_at: datetime | None
    scanning: bool
    scan: Mapping[str, Any]
    counts: Mapping[str, int]

    def record(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "folder": self.folder,
            "files": list(self.files),
            "watch_s": self.watch_s,
            "labels": dict(self.labels),
            "created_at": stamp(self.created_at),
            "wanted_at": stamp(self.wanted_at),
            "scanned_at": stamp(self.scanned_at),
            "scanning": self.scanning,
            "scan": dict(self.scan),
            "counts": dict(self.counts),
        }


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a source: the film that it is, or why it is none.

    Args:
        size, mtime_ns: as they were when it was looked at; a file that has others has changed.
        state: `present`, `gone` or `refused`.
    """

    source_id: str
    path: str
    size: int
    mtime_ns: int
    sha256: str | None
    video_id: str | None
    state: str
    error: dict[str, Any] | None
    seen_at: datetime

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "source_id": self.source_id,
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "video_id": self.video_id,
            "state": self.state,
            "error": self.error,
            "seen_at": stamp(self.seen_at),
        }

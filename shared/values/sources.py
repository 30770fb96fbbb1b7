"""Sources: folders or lists of files whose videos stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.values.time import format_timestamp


@dataclass(frozen=True, slots=True)
class Source:
    """A folder, or a list of files, whose films stay where they are.

    Args:
        folder, files: where: one of the two, by kind.
        watch_s: seconds between two scans; None: on request only.
        labels: of the jobs on its films.
        scan_requested_at: when a scan was asked for that has not begun; None: none is.
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
    scan_requested_at: datetime | None
    scanned_at: datetime | None
    scanning: bool
    scan: Mapping[str, Any]
    counts: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "folder": self.folder,
            "files": list(self.files),
            "watch_s": self.watch_s,
            "labels": dict(self.labels),
            "created_at": format_timestamp(self.created_at),
            "scan_requested_at": format_timestamp(self.scan_requested_at),
            "scanned_at": format_timestamp(self.scanned_at),
            "scanning": self.scanning,
            "scan": dict(self.scan),
            "counts": dict(self.counts),
        }


@dataclass(frozen=True, slots=True)
class SourceFile:
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

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "source_id": self.source_id,
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "video_id": self.video_id,
            "state": self.state,
            "error": self.error,
            "seen_at": format_timestamp(self.seen_at),
        }

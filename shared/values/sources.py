"""Sources: folders or lists of files whose videos stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from shared.errors import Problem
from shared.values.time import format_timestamp


class ScanReport(TypedDict, total=False):
    """Result of a scan so far; empty before the first scan.

    `found` counts the files met: the sum of `new`, `changed`, `unchanged`, `moved`, `refused` and `settling`, which
    are still being written. `error`: why the scan failed. `passed_over`: skipped files and folders, with the reason.
    """

    found: int
    new: int
    changed: int
    unchanged: int
    moved: int
    gone: int
    refused: int
    settling: int
    bytes_hashed: int
    seconds: float
    error: Problem | None
    passed_over: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """A folder, or a list of files, whose videos stay where they are.

    Args:
        folder, files: one of the two is set, by `kind` (`folder` or `list`).
        watch_s: seconds between two scans; None: on request only.
        labels: labels of the jobs on its videos.
        scan_requested_at: when a scan was requested that has not started; None without such a request.
        scan: report of the last scan, or of the one that is running.
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
    scan: ScanReport
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
    """A file of a source: the video that it holds, or why it was refused.

    Args:
        size, mtime_ns: as they were at the last scan; a file with other values has changed.
        state: `present`, `gone` or `refused`.
    """

    source_id: str
    path: str
    size: int
    mtime_ns: int
    sha256: str | None
    video_id: str | None
    state: str
    error: Problem | None
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

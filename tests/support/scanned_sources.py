"""A folder of videos as a source, and a scanner for it in this process. The fixtures are imported by conftests."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from api.localstack.demo import find_sample_clip
from shared.settings import Settings
from shared.store.videos import sources, videos
from shared.store.videos.sources import NewSource
from shared.values import StoredVideo
from shared.values.sources import SourceFile
from tests.support.sample_videos import run_ffmpeg
from worker.scanner import scan_next_source

SCAN_COUNTS = ("new", "changed", "unchanged", "moved", "refused", "settling")


def copy_with_tag(video_path: Path, out: Path, tag: str) -> Path:
    """Copy a video so that its bytes differ: a box at its end that players skip (ISO/IEC 14496-12, 8.1.2)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(video_path.read_bytes() + struct.pack(">I4s", 8 + len(tag), b"free") + tag.encode())
    return out


def set_mtime(path: Path, ago_s: float) -> None:
    """Set the modification time of a file to this many seconds ago."""
    mtime = time.time() - ago_s
    os.utime(path, (mtime, mtime))


@dataclass
class ScannedSource:
    """A folder of videos as a source, and a scanner for it."""

    database: Engine
    folder: Path
    clip: Path
    source_id: str
    settings: dict[str, Any] = field(default_factory=dict)

    def put_video(self, name: str, tag: str | None = None) -> Path:
        """Put a video into the folder; its bytes depend on the tag, by default the name."""
        return copy_with_tag(self.clip, self.folder / name, name if tag is None else tag)

    @property
    def config(self) -> Settings:
        """Settings that allow the folder, with the changes of the latest `run_scan`."""
        defaults = {"source_roots": str(self.folder.parent), "settle_s": 0}
        return Settings(**(defaults | self.settings))

    def run_scan(self, *, force: bool = False, **settings: Any) -> Mapping[str, Any]:
        """Request a scan and do it; return its report."""
        self.settings = settings
        sources.request_scan(self.database, self.source_id, force=force)
        assert scan_next_source(self.database, self.config, "scanner-1")
        return sources.get_source(self.database, self.source_id).scan

    def run_scan_counts(self, **options: Any) -> dict[str, int]:
        """Request a scan and do it; return the counts that are not zero."""
        stats = self.run_scan(**options)
        assert stats["error"] is None, stats
        assert stats["found"] == sum(stats[kind] for kind in SCAN_COUNTS)
        return {kind: stats[kind] for kind in (*SCAN_COUNTS, "gone") if stats[kind]}

    def list_files(self) -> dict[str, SourceFile]:
        """The recorded files, by path inside the folder."""
        files = sources.list_files(self.database, self.source_id, limit=100_000)
        return {os.path.relpath(file.path, self.folder): file for file in files}

    def list_states(self) -> dict[str, str]:
        """The states of the recorded files, by path inside the folder."""
        return {path: file.state for path, file in self.list_files().items()}

    def list_videos(self) -> list[StoredVideo]:
        """All videos of the database."""
        return videos.list_videos(self.database, limit=100)

    def get_video_id(self, name: str) -> str:
        """The id of the video of a file."""
        video_id = self.list_files()[name].video_id
        assert video_id is not None
        return video_id


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of the sample video, small."""
    out = tmp_path_factory.mktemp("clip") / "clip.mp4"
    run_ffmpeg("-ss", "10", "-t", "1", "-i", find_sample_clip(), "-vf", "scale=160:-2", "-an", out)
    return out


@pytest.fixture
def scanned_source(database: Engine, tmp_path: Path, clip: Path) -> ScannedSource:
    """An empty folder as a source."""
    folder = tmp_path / "share" / "films"
    folder.mkdir(parents=True)
    return ScannedSource(database, folder, clip, sources.add_source(database, NewSource("films", str(folder))).id)

"""Films in folders for the tests of the scanner, and the scanner in this process."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Mapping
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
from tests.api.conftest import make_video_file
from worker.scanner import scan_next_source

SCAN_COUNTS = ("new", "changed", "unchanged", "moved", "refused", "settling")


def copy_with_tag(film: Path, out: Path, tag: str) -> Path:
    """A copy of a film with other bytes: a box at its end that players skip (ISO/IEC 14496-12, 8.1.2)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(film.read_bytes() + struct.pack(">I4s", 8 + len(tag), b"free") + tag.encode())
    return out


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of the sample film, small."""
    out = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_video_file(out, "-ss", "10", "-t", "1", "-i", str(find_sample_clip()), "-vf", "scale=160:-2", "-an")


@dataclass
class ScannedSource:
    """A folder of films as a source, and a scanner for it."""

    database: Engine
    folder: Path
    clip: Path
    source_id: str
    settings: dict[str, Any] = field(default_factory=dict)

    def put_video(self, name: str, tag: str | None = None) -> Path:
        """A film of these bytes in the folder."""
        return copy_with_tag(self.clip, self.folder / name, name if tag is None else tag)

    @property
    def config(self) -> Settings:
        allowed = {"source_roots": str(self.folder.parent), "settle_s": 0}
        return Settings(**(allowed | self.settings))

    def run_scan(self, *, force: bool = False, **settings: Any) -> Mapping[str, Any]:
        """Ask for a scan, and do it; what it told."""
        self.settings = settings
        sources.request_scan(self.database, self.source_id, force=force)
        assert scan_next_source(self.database, self.config, "scanner-1")
        return sources.get_source(self.database, self.source_id).scan

    def run_scan_counts(self, **options: Any) -> dict[str, int]:
        """The same, as those counts that are not null."""
        stats = self.run_scan(**options)
        assert stats["error"] is None, stats
        assert stats["found"] == sum(stats[kind] for kind in SCAN_COUNTS)
        return {kind: stats[kind] for kind in (*SCAN_COUNTS, "gone") if stats[kind]}

    def list_files(self) -> dict[str, SourceFile]:
        """What is known, by path inside the folder."""
        files = sources.list_files(self.database, self.source_id, limit=100_000)
        return {os.path.relpath(place.path, self.folder): place for place in files}

    def list_states(self) -> dict[str, str]:
        return {path: place.state for path, place in self.list_files().items()}

    def list_videos(self) -> list[StoredVideo]:
        return videos.list_videos(self.database, limit=100)

    def get_video_id(self, name: str) -> str:
        video_id = self.list_files()[name].video_id
        assert video_id is not None
        return video_id


@pytest.fixture
def scanned_source(database: Engine, tmp_path: Path, clip: Path) -> ScannedSource:
    """An empty folder as a source."""
    folder = tmp_path / "share" / "films"
    folder.mkdir(parents=True)
    return ScannedSource(database, folder, clip, sources.add_source(database, NewSource("films", str(folder))).id)


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def set_mtime(path: Path, ago_s: float) -> None:
    mtime = time.time() - ago_s
    os.utime(path, (mtime, mtime))

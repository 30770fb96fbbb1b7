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

from api.archive.scanner import scan_next
from api.local.demo import sample
from shared.settings import Settings
from shared.store import videos
from shared.store.archive import sources
from shared.store.archive.sources import NewSource
from shared.values import StoredVideo
from shared.values.archive.schedules import Place
from tests.api.conftest import make_film

KINDS = ("new", "changed", "unchanged", "moved", "refused", "settling")


def tagged(film: Path, out: Path, tag: str) -> Path:
    """A copy of a film with other bytes: a box at its end that players skip (ISO/IEC 14496-12, 8.1.2)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(film.read_bytes() + struct.pack(">I4s", 8 + len(tag), b"free") + tag.encode())
    return out


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of the sample film, small."""
    out = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_film(out, "-ss", "10", "-t", "1", "-i", str(sample()), "-vf", "scale=160:-2", "-an")


@dataclass
class Archive:
    """A folder of films as a source, and a scanner for it."""

    database: Engine
    folder: Path
    clip: Path
    source_id: str
    settings: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, tag: str | None = None) -> Path:
        """A film of these bytes in the folder."""
        return tagged(self.clip, self.folder / name, name if tag is None else tag)

    @property
    def config(self) -> Settings:
        allowed = {"archive_roots": str(self.folder.parent), "settle_s": 0}
        return Settings(**(allowed | self.settings))

    def scan(self, *, force: bool = False, **settings: Any) -> Mapping[str, Any]:
        """Ask for a scan, and do it; what it told."""
        self.settings = settings
        sources.want(self.database, self.source_id, force=force)
        assert scan_next(self.database, self.config, "scanner-1")
        return sources.get(self.database, self.source_id).scan

    def counted(self, **options: Any) -> dict[str, int]:
        """The same, as those counts that are not null."""
        told = self.scan(**options)
        assert told["error"] is None, told
        assert told["found"] == sum(told[kind] for kind in KINDS)
        return {kind: told[kind] for kind in (*KINDS, "gone") if told[kind]}

    def places(self) -> dict[str, Place]:
        """What is known, by path inside the folder."""
        found = sources.places(self.database, self.source_id, limit=100_000)
        return {os.path.relpath(place.path, self.folder): place for place in found}

    def states(self) -> dict[str, str]:
        return {path: place.state for path, place in self.places().items()}

    def videos(self) -> list[StoredVideo]:
        return videos.page(self.database, limit=100)

    def video_of(self, name: str) -> str:
        video_id = self.places()[name].video_id
        assert video_id is not None
        return video_id


@pytest.fixture
def archive(database: Engine, tmp_path: Path, clip: Path) -> Archive:
    """An empty folder as a source."""
    folder = tmp_path / "share" / "films"
    folder.mkdir(parents=True)
    return Archive(database, folder, clip, sources.add(database, NewSource("films", str(folder))).id)


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def touch(path: Path, ago_s: float) -> None:
    then = time.time() - ago_s
    os.utime(path, (then, then))

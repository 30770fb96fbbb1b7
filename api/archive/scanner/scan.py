"""One scan of one source: every film met is known, new, changed, moved or refused, and what was not met is gone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from api.archive.scanner.reading import Digest, digest
from api.archive.scanner.walk import Met, Walk
from api.videos.intake import accepted, clean_name, media_type
from shared.errors import SceneworksError, SourceForbidden, SourceUnreachable, UnsupportedMedia
from shared.files import as_it_was, lies, roots
from shared.settings import Settings
from shared.store.archive import sources
from shared.store.archive.sources import Looked, Scan
from shared.values import Video
from shared.values.archive.schedules import Place, Source

CHUNK = 500
"""Files whose places are read, and written, by one statement."""
AGAIN_S = 1.0
"""Least pause before a scan that comes by itself, because some files were still being written."""
REST = 10
"""Such a pause is so many times as long as the scan took: a film that is recorded for hours costs next to nothing."""
TELL_EVERY_S = 2.0
"""So often at least it is told how far a scan is, while a long film is hashed too."""
TRIED_AGAIN = SourceUnreachable.code
"""A file that could not be opened is tried again; other reasons for a refusal last until the file changes."""


class Fenced(Exception):
    """Somebody else scans this source now, or it was removed."""


@dataclass(slots=True)
class Tally:
    """What a scan has found so far. Each file counts once: `found` is the sum of the others but `gone`."""

    found: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    moved: int = 0
    gone: int = 0
    refused: int = 0
    settling: int = 0
    bytes_hashed: int = 0

    def count(self, kind: str, by: int = 1) -> None:
        """So many files more of a kind."""
        setattr(self, kind, getattr(self, kind) + by)
        self.found += by


class Scanning:
    """A claimed scan, from the first file to the last.

    Args:
        engine: of the ledger.
        scan: the claim. Each write is fenced, and says that the scan goes on.
        config: where sources may lie, how long a lease is, when a file counts as written, what films are taken.
    """

    def __init__(self, engine: Engine, scan: Scan, config: Settings) -> None:
        self.tally = Tally()
        self._engine, self._scan, self._config = engine, scan, config
        self._began = time.monotonic()
        self._tell_at = self._began
        self._unread: set[str] = set()
        self._passed_over: list[dict[str, str]] = []

    def run(self) -> Source:
        """Look through the source and write down what lies there.

        Returns:
            The source as it is then known. Where it could not be looked through, `scan` has the error, and what was
            known of it stays.

        Raises:
            Fenced: the claim was lost; what was written before stands.
        """
        self._write([])
        try:
            walk = Walk(self._scan.source, roots(self._config.archive_roots), self._tick)
            self._passed_over = walk.passed_over
            for chunk in _chunks(walk.met()):
                self._take(chunk)
            self._check_not_empty(walk)
            walk.check()
        except (SourceUnreachable, SourceForbidden) as error:
            return _ours(sources.fail(self._engine, self._scan, self.told(error)))
        unread = sorted(walk.unread | self._unread)
        told = self.told()
        return _ours(sources.finish(self._engine, self._scan, told, unread=unread, again_s=self._again_s()))

    def _check_not_empty(self, walk: Walk) -> None:
        """An empty folder that had films is a share that is not mounted, until somebody says that it is not."""
        if walk.empty and self._scan.source.counts.get("present") and not self._scan.forced:
            raise SourceUnreachable("There is nothing where films were. If they are really gone, scan with force.")

    def _take(self, chunk: list[Met]) -> None:
        """Files as they are met: those that have not changed at once, the others one by one."""
        known = sources.known(self._engine, self._scan.source.id, [met.path for met in chunk])
        same = {met.path for met in chunk if self._is_same(met, known.get(met.path))}
        if same:
            self.tally.count("unchanged", len(same))
            self._hold(sources.unchanged(self._engine, self._scan, same, self.told(), self._config.lease_s))
        for met in chunk:
            if met.path not in same:
                self._look(met, known.get(met.path))

    def _is_same(self, met: Met, place: Place | None) -> bool:
        if self._scan.forced or met.error is not None or place is None:
            return False
        again = place.error is not None and place.error["code"] == TRIED_AGAIN
        return not again and (met.size, met.mtime_ns) == (place.size, place.mtime_ns)

    def _look(self, met: Met, place: Place | None) -> None:
        """A file that is new, or not what it was."""
        if isinstance(met.error, SourceUnreachable) and place is not None and place.sha256 is not None:
            return  # it was there once: at the end it is gone, or stays as it was if nobody can say
        if met.error is None and abs(time.time() - met.mtime_ns / 1e9) < self._config.settle_s:
            self._leave(met, place)  # the time of a copy may lie in the future by another machine's clock, or by years
            return
        try:
            looked = self._read(met)
        except FileNotFoundError:
            return
        except OSError as error:
            looked = _refused(met, SourceUnreachable(f"The file cannot be read: {error.strerror}."))
        if looked is None:
            self._leave(met, place)
        else:
            self.tally.count(_kind(looked, place))
            self._write([looked])

    def _leave(self, met: Met, place: Place | None) -> None:
        """It is still being written: the next scan looks at it, and until then what was known of it stays."""
        self.tally.count("settling")
        if place is not None:
            self._unread.add(met.path)

    def _read(self, met: Met) -> Looked | None:
        """What a file is; None when it did not hold still. OSError."""
        if met.error is not None:
            return _refused(met, met.error)
        try:
            found = digest(Path(met.path), self._hashed)
        except UnsupportedMedia as error:
            return _refused(met, error)
        if found is None:
            return None
        looked = self._film(met.path, found)
        return looked if lies(met.path, found.size, found.mtime_ns) else None

    def _film(self, path: str, found: Digest) -> Looked:
        """What bytes are: a film that is known, one that was deleted on purpose, a new one, or none."""
        known = sources.hashed(self._engine, self._scan.source.id, found.sha256)
        looked = Looked(path, found.size, found.mtime_ns, found.sha256, clean_name(path))
        moved = [place.path for place in known.places if place.state == "present" and not as_it_was(place)]
        looked = replace(looked, moved_from=next((other for other in moved if other != path), None))
        if known.facts is None and not self._scan.forced and any(map(_was_deleted, known.places)):
            return looked
        try:
            facts = known.facts or self._probe(Path(path))
        except SceneworksError as error:
            return replace(looked, error=error.problem())
        return replace(looked, video=facts, media_type=media_type(facts))

    def _probe(self, path: Path) -> Video:
        self._write([], self._config.lease_s + self._config.probe_timeout_s)
        return accepted(path, self._config)

    def _hashed(self, size: int) -> None:
        self.tally.bytes_hashed += size
        self._tick()

    def _tick(self) -> None:
        """Say now and then that the scan goes on."""
        if time.monotonic() > self._tell_at:
            self._write([])

    def _write(self, files: list[Looked], lease_s: float | None = None) -> None:
        lease_s = lease_s or self._config.lease_s
        self._hold(sources.seen(self._engine, self._scan, files, self.told(), lease_s))

    def _hold(self, ours: bool) -> None:
        if not ours:
            raise Fenced
        self._tell_at = time.monotonic() + min(TELL_EVERY_S, self._config.lease_s / 3)

    def told(self, error: SceneworksError | None = None) -> dict[str, Any]:
        """The counts as JSON, with the seconds so far, why it failed, and what was passed over."""
        seconds = round(time.monotonic() - self._began, 3)
        problem = None if error is None else error.problem()
        return asdict(self.tally) | {"seconds": seconds, "error": problem, "passed_over": list(self._passed_over)}

    def _again_s(self) -> float | None:
        if not self.tally.settling or self._scan.source.watch_s is not None:
            return None
        return max(AGAIN_S, self._config.settle_s, REST * (time.monotonic() - self._began))


def _refused(met: Met, error: SceneworksError) -> Looked:
    return Looked(met.path, met.size, met.mtime_ns, error=error.problem())


def _was_deleted(place: Place) -> bool:
    """It was a film, and somebody deleted its video."""
    return place.video_id is None and place.error is None


def _kind(looked: Looked, place: Place | None) -> str:
    if looked.error is not None:
        return "refused"
    if place is None or place.error is not None:
        return "moved" if looked.moved_from else "new"
    return "unchanged" if place.sha256 == looked.sha256 else "changed"


def _ours(source: Source | None) -> Source:
    if source is None:
        raise Fenced
    return source


def _chunks(files: Iterable[Met]) -> Iterator[list[Met]]:
    left = iter(files)
    while chunk := list(islice(left, CHUNK)):
        yield chunk

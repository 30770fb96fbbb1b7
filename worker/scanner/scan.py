"""Scan one source: each file found is unchanged, new, changed, moved or refused; known files not found are gone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from shared.errors import SceneworksError, SourceForbidden, SourceUnreachable, UnsupportedMedia
from shared.media.intake import clean_file_name, detect_media_type, probe_accepted_video
from shared.settings import Settings
from shared.source_roots import parse_roots
from shared.storage import is_unchanged, matches_stat
from shared.store.videos import sources
from shared.store.videos.sources import ScanClaim, ScannedFile
from shared.values import VideoFacts
from shared.values.sources import Source, SourceFile
from worker.scanner.digest import FileDigest, digest_file
from worker.scanner.walk import CandidateFile, SourceWalk

CHUNK_FILES = 500
"""Number of files that one SQL statement reads or writes."""
MIN_RESCAN_S = 1.0
"""Shortest pause before the automatic rescan of files that were still being written."""
RESCAN_PAUSE_FACTOR = 10
"""The pause is at least this many times the duration of the scan: a video that is recorded for hours costs little."""
REPORT_EVERY_S = 2.0
"""Longest time between two progress reports, also while a long video is hashed."""
RETRIED_CODE = SourceUnreachable.code
"""A file that was refused because it could not be opened is tried again; other refusals last until the file changes."""


class ScanFenced(Exception):
    """The claim was lost: another scanner has this source now, or it was removed."""


@dataclass(slots=True)
class ScanCounts:
    """Counts of a scan so far. Each file counts once: `found` is the sum of the others but `gone`.

    The names of the fields are the keys of the public scan report.
    """

    found: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    moved: int = 0
    gone: int = 0
    refused: int = 0
    settling: int = 0
    bytes_hashed: int = 0

    def add_files(self, kind: str, count: int = 1) -> None:
        """Count more files of a kind."""
        setattr(self, kind, getattr(self, kind) + count)
        self.found += count


class SourceScanner:
    """Executes a claimed scan.

    Args:
        engine: of the database.
        scan: the claim. Each write checks its fence and renews its lease.
        config: folders that sources may be in, length of the lease, settle time of files, limits for videos.
    """

    def __init__(self, engine: Engine, scan: ScanClaim, config: Settings) -> None:
        self.counts = ScanCounts()
        self._engine, self._scan, self._config = engine, scan, config
        self._started_at = time.monotonic()
        self._next_report_at = self._started_at
        self._unreadable_paths: set[str] = set()
        self._skipped_paths: list[dict[str, str]] = []

    def run_scan(self) -> Source:
        """Scan the source and record what is there.

        Returns:
            The source after the scan. If it could not be scanned, its `scan` has the error, and its files stay as they
            were recorded before.

        Raises:
            ScanFenced: the claim was lost; what was written before stays.
        """
        self._write_files([])  # reports the start, and fails early if the claim was lost already
        try:
            walk = SourceWalk(self._scan.source, parse_roots(self._config.source_roots), self._report_if_due)
            self._skipped_paths = walk.skipped_paths
            for chunk in _split_chunks(walk.iter_candidates()):
                self._process_chunk(chunk)
            # A share that was unmounted looks like a folder whose files were all deleted: without these two checks the
            # end of the scan would record every video as gone.
            self._check_not_empty(walk)
            walk.check_unchanged()
        except (SourceUnreachable, SourceForbidden) as error:
            return _require_lease(sources.fail_scan(self._engine, self._scan, self.build_stats(error)))
        unreadable_paths = sorted(walk.unreadable_paths | self._unreadable_paths)
        stats = self.build_stats()
        return _require_lease(
            sources.finish_scan(
                self._engine, self._scan, stats, unreadable=unreadable_paths, rescan_after_s=self._rescan_delay_s()
            )
        )

    def _check_not_empty(self, walk: SourceWalk) -> None:
        """SourceUnreachable if the folder had videos and is empty now, unless the scan is forced."""
        if walk.is_empty and self._scan.source.counts.get("present") and not self._scan.forced:
            raise SourceUnreachable("The folder had videos and is empty now. If they are really gone, scan with force.")

    def _process_chunk(self, candidates: list[CandidateFile]) -> None:
        """Record a chunk of files: unchanged ones with one statement, the others one by one."""
        known_files = sources.get_known_files(
            self._engine, self._scan.source.id, [candidate.path for candidate in candidates]
        )
        unchanged_paths = {
            candidate.path for candidate in candidates if self._is_unchanged(candidate, known_files.get(candidate.path))
        }
        if unchanged_paths:
            self.counts.add_files("unchanged", len(unchanged_paths))
            self._check_fence(
                sources.record_unchanged(
                    self._engine, self._scan, unchanged_paths, self.build_stats(), self._config.lease_s
                )
            )
        for candidate in candidates:
            if candidate.path not in unchanged_paths:
                self._process_file(candidate, known_files.get(candidate.path))

    def _is_unchanged(self, candidate: CandidateFile, known_file: SourceFile | None) -> bool:
        if self._scan.forced or candidate.error is not None or known_file is None:
            return False
        retry_refused = known_file.error is not None and known_file.error["code"] == RETRIED_CODE
        return not retry_refused and (candidate.size, candidate.mtime_ns) == (known_file.size, known_file.mtime_ns)

    def _process_file(self, candidate: CandidateFile, known_file: SourceFile | None) -> None:
        """Record a file that is new or has changed."""
        if isinstance(candidate.error, SourceUnreachable) and known_file is not None and known_file.sha256 is not None:
            return  # it had been a video: the end of the scan marks it as gone, or keeps it if its folder is unreadable
        # The absolute difference, because a modification time may be in the future: by another machine's clock, or by
        # years. Only a time near now, on either side, suggests that the file is being written.
        if candidate.error is None and abs(time.time() - candidate.mtime_ns / 1e9) < self._config.settle_s:
            self._note_settling(candidate, known_file)
            return
        try:
            scanned_file = self._inspect_file(candidate)
        except FileNotFoundError:
            return
        except OSError as error:
            scanned_file = _refuse_file(candidate, SourceUnreachable(f"The file cannot be read: {error.strerror}."))
        if scanned_file is None:
            self._note_settling(candidate, known_file)
        else:
            self.counts.add_files(_classify_change(scanned_file, known_file))
            self._write_files([scanned_file])

    def _note_settling(self, candidate: CandidateFile, known_file: SourceFile | None) -> None:
        """Count a file that is still being written: its record stays as it is until the next scan."""
        self.counts.add_files("settling")
        if known_file is not None:
            self._unreadable_paths.add(candidate.path)

    def _inspect_file(self, candidate: CandidateFile) -> ScannedFile | None:
        """Hash and identify a file; None if it changed meanwhile. OSError if it cannot be read."""
        if candidate.error is not None:
            return _refuse_file(candidate, candidate.error)
        try:
            file_digest = digest_file(Path(candidate.path), self._add_hashed_bytes)
        except UnsupportedMedia as error:
            return _refuse_file(candidate, error)
        if file_digest is None:
            return None
        scanned_file = self._identify_file(candidate.path, file_digest)
        # Probing opened the file once more, by its path: the facts belong to the hash only if it is still that file.
        return scanned_file if matches_stat(candidate.path, file_digest.size, file_digest.mtime_ns) else None

    def _identify_file(self, path: str, file_digest: FileDigest) -> ScannedFile:
        """Identify the content: a known video, one whose record was deleted on purpose, a new one, or not a video."""
        known_content = sources.find_content(self._engine, self._scan.source.id, file_digest.sha256)
        scanned_file = ScannedFile(
            path, file_digest.size, file_digest.mtime_ns, file_digest.sha256, clean_file_name(path)
        )
        missing_paths = [
            known_file.path
            for known_file in known_content.files
            if known_file.state == "present" and not is_unchanged(known_file)
        ]
        scanned_file = replace(
            scanned_file,
            moved_from=next((missing_path for missing_path in missing_paths if missing_path != path), None),
        )
        # Somebody deleted this video from the service: registering it again would undo that at every scan.
        if known_content.facts is None and not self._scan.forced and any(map(_was_deleted, known_content.files)):
            return scanned_file
        try:
            facts = known_content.facts or self._probe_file(Path(path))
        except SceneworksError as error:
            return replace(scanned_file, error=error.to_problem())
        return replace(scanned_file, facts=facts, media_type=detect_media_type(facts))

    def _probe_file(self, path: Path) -> VideoFacts:
        # Probing reports no progress, so the lease is extended by its time limit beforehand.
        self._write_files([], self._config.lease_s + self._config.probe_timeout_s)
        return probe_accepted_video(path, self._config)

    def _add_hashed_bytes(self, size: int) -> None:
        self.counts.bytes_hashed += size
        self._report_if_due()

    def _report_if_due(self) -> None:
        """Report progress and renew the lease, if it is time."""
        if time.monotonic() > self._next_report_at:
            self._write_files([])

    def _write_files(self, files: list[ScannedFile], lease_s: float | None = None) -> None:
        lease_s = lease_s or self._config.lease_s
        self._check_fence(sources.record_files(self._engine, self._scan, files, self.build_stats(), lease_s))

    def _check_fence(self, lease_held: bool) -> None:
        if not lease_held:
            raise ScanFenced
        # A third of the lease leaves time for two more attempts before it expires.
        self._next_report_at = time.monotonic() + min(REPORT_EVERY_S, self._config.lease_s / 3)

    def build_stats(self, error: SceneworksError | None = None) -> dict[str, Any]:
        """Build the scan report: counts, seconds so far, the error, and the entries that were skipped."""
        seconds = round(time.monotonic() - self._started_at, 3)
        problem = None if error is None else error.to_problem()
        return asdict(self.counts) | {"seconds": seconds, "error": problem, "passed_over": list(self._skipped_paths)}

    def _rescan_delay_s(self) -> float | None:
        if not self.counts.settling or self._scan.source.watch_s is not None:
            return None
        return max(MIN_RESCAN_S, self._config.settle_s, RESCAN_PAUSE_FACTOR * (time.monotonic() - self._started_at))


def _refuse_file(candidate: CandidateFile, error: SceneworksError) -> ScannedFile:
    return ScannedFile(candidate.path, candidate.size, candidate.mtime_ns, error=error.to_problem())


def _was_deleted(known_file: SourceFile) -> bool:
    """Whether the file was a video whose record somebody deleted: it is not registered again by itself."""
    return known_file.video_id is None and known_file.error is None


def _classify_change(scanned_file: ScannedFile, known_file: SourceFile | None) -> str:
    if scanned_file.error is not None:
        return "refused"
    if known_file is None or known_file.error is not None:
        return "moved" if scanned_file.moved_from else "new"
    return "unchanged" if known_file.sha256 == scanned_file.sha256 else "changed"


def _require_lease(source: Source | None) -> Source:
    if source is None:
        raise ScanFenced
    return source


def _split_chunks(entries: Iterable[CandidateFile]) -> Iterator[list[CandidateFile]]:
    remaining = iter(entries)
    while chunk := list(islice(remaining, CHUNK_FILES)):
        yield chunk

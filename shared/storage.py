"""Files by content: written to a temporary name, synced, then renamed to their hash, so a name never lies."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from shared.errors import MediaCorrupt, SourceUnreachable, StorageFull
from shared.values.sources import SourceFile

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store: hash and size."""

    sha256: str
    size: int


class ContentStorage:
    """A folder of files named by their SHA-256.

    Args:
        root: the folder; made when missing. `objects/` holds the files, `incoming/` what is being written.
    """

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._objects.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(parents=True, exist_ok=True)

    def object_path(self, sha256: str) -> Path:
        """Where the file of that hash lies (whether or not it is there)."""
        return self._objects / sha256[:2] / sha256

    def free_bytes(self) -> int:
        """Bytes free on the disk of the store."""
        return shutil.disk_usage(self._objects).free

    def locate_video(self, sha256: str, source_files: Iterable[SourceFile], *, stored: bool = True) -> Path:
        """The bytes of a video: in the store, else in a place where they lie as they lay when they were hashed.

        Args:
            sha256: of the bytes.
            source_files: where scans have found them.
            stored: whether they were ever put into the store.

        Raises:
            SourceUnreachable: it has gone from all its places, or has changed; says which.
            MediaCorrupt: it has no place, and the store has lost it.
        """
        if (path := self.object_path(sha256)).exists():
            return path
        source_files = list(source_files)
        if not source_files:
            raise _missing_file_error(stored)
        for source_file in source_files:
            if is_unchanged(source_file):
                return Path(source_file.path)
        changed = any(os.path.lexists(source_file.path) for source_file in source_files)
        reason = "has changed since it was scanned" if changed else "is not where it was"
        raise SourceUnreachable(f"The video {reason}: scan its source again.")

    @contextmanager
    def open_incoming(self, tag: str = "upload") -> Iterator[Path]:
        """A name for a file being written; what is left there at the end is removed. `tag` holds a run's fence."""
        path = self._incoming / f"{tag}.{uuid4().hex}"
        try:
            yield path
        except OSError as error:
            raise _convert_disk_full(error) from error
        finally:
            path.unlink(missing_ok=True)

    def write_chunks(self, path: Path, chunks: Iterable[bytes]) -> StoredFile:
        """Write chunks to an `open_incoming` path, hashing on the way: memory is flat at any size."""
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return StoredFile(digest.hexdigest(), size)

    def commit_file(self, path: Path, stored: StoredFile) -> Path:
        """Move a written file to its hash, durably. The same bytes again change nothing but the date."""
        final = self.object_path(stored.sha256)
        final.parent.mkdir(exist_ok=True)
        _fsync_path(path)
        path.replace(final)
        _fsync_path(final.parent)
        return final

    def put_file(self, source: Path, tag: str = "artifact") -> StoredFile:
        """Copy a file into the store."""
        with self.open_incoming(tag) as path:
            stored = self.write_chunks(path, _read_chunks(source))
            self.commit_file(path, stored)
        return stored

    def list_stale_incoming(self, older_than_s: float) -> list[Path]:
        """Half-written files that nobody can still be writing."""
        limit = time.time() - older_than_s
        return [path for path in self._incoming.iterdir() if _read_mtime(path) < limit]

    def list_hashes(self, older_than_s: float) -> Iterator[str]:
        """Hashes of the files that were last put longer ago than that."""
        limit = time.time() - older_than_s
        for folder in self._objects.iterdir():
            for path in folder.iterdir():
                if _read_mtime(path) < limit:
                    yield path.name

    def remove_file(self, sha256: str) -> None:
        """Delete one file; nothing happens when it is gone."""
        self.object_path(sha256).unlink(missing_ok=True)


def _read_chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _fsync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _convert_disk_full(error: OSError) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("There is no room left to store the file.")
    return error


def is_unchanged(source_file: SourceFile) -> bool:
    """Whether a file has the size and the time that it had when it was looked at."""
    return matches_stat(source_file.path, source_file.size, source_file.mtime_ns)


def matches_stat(path: str, size: int, mtime_ns: int) -> bool:
    """Whether there is an ordinary file (no link: it could be turned elsewhere) of that size and time."""
    try:
        current = Path(path).lstat()
    except OSError:
        return False
    return stat.S_ISREG(current.st_mode) and (current.st_size, current.st_mtime_ns) == (size, mtime_ns)


def _missing_file_error(stored: bool) -> Exception:
    if stored:
        return MediaCorrupt("The bytes of this video are no longer in the store.")
    return SourceUnreachable("No source has this video: its file was changed or replaced, or the source was removed.")

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
from shared.values.archive.schedules import Place

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in the store: hash and size."""

    sha256: str
    size: int


class Files:
    """A folder of files named by their SHA-256.

    Args:
        root: the folder; made when missing. `objects/` holds the files, `incoming/` what is being written.
    """

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._objects.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the file of that hash lies (whether or not it is there)."""
        return self._objects / sha256[:2] / sha256

    def free(self) -> int:
        """Bytes free on the disk of the store."""
        return shutil.disk_usage(self._objects).free

    def film(self, sha256: str, places: Iterable[Place], *, stored: bool = True) -> Path:
        """The bytes of a video: in the store, else in a place where they lie as they lay when they were hashed.

        Args:
            sha256: of the bytes.
            places: where scans have found them.
            stored: whether they were ever put into the store.

        Raises:
            SourceUnreachable: it has gone from all its places, or has changed; says which.
            MediaCorrupt: it has no place, and the store has lost it.
        """
        if (path := self.path(sha256)).exists():
            return path
        places = list(places)
        if not places:
            raise _without_place(stored)
        for place in places:
            if as_it_was(place):
                return Path(place.path)
        changed = any(os.path.lexists(place.path) for place in places)
        why = "has changed since it was scanned" if changed else "is not where it was"
        raise SourceUnreachable(f"The film {why}: scan its source again.")

    @contextmanager
    def incoming(self, tag: str = "upload") -> Iterator[Path]:
        """A name for a file being written; what is left there at the end is removed. `tag` holds a run's fence."""
        path = self._incoming / f"{tag}.{uuid4().hex}"
        try:
            yield path
        except OSError as error:
            raise _full(error) from error
        finally:
            path.unlink(missing_ok=True)

    def write(self, path: Path, chunks: Iterable[bytes]) -> Stored:
        """Write chunks to an `incoming` path, hashing on the way: memory is flat at any size."""
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return Stored(digest.hexdigest(), size)

    def keep(self, path: Path, stored: Stored) -> Path:
        """Move a written file to its hash, durably. The same bytes again change nothing but the date."""
        final = self.path(stored.sha256)
        final.parent.mkdir(exist_ok=True)
        _sync(path)
        path.replace(final)
        _sync(final.parent)
        return final

    def put(self, source: Path, tag: str = "artifact") -> Stored:
        """Copy a file into the store."""
        with self.incoming(tag) as path:
            stored = self.write(path, _chunks(source))
            self.keep(path, stored)
        return stored

    def stale_incoming(self, older_than_s: float) -> list[Path]:
        """Half-written files that nobody can still be writing."""
        limit = time.time() - older_than_s
        return [path for path in self._incoming.iterdir() if _mtime(path) < limit]

    def objects(self, older_than_s: float) -> Iterator[str]:
        """Hashes of the files that were last put longer ago than that."""
        limit = time.time() - older_than_s
        for folder in self._objects.iterdir():
            for path in folder.iterdir():
                if _mtime(path) < limit:
                    yield path.name

    def remove(self, sha256: str) -> None:
        """Delete one file; nothing happens when it is gone."""
        self.path(sha256).unlink(missing_ok=True)


def _chunks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _full(error: OSError) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("There is no room left to store the file.")
    return error


def roots(setting: str) -> tuple[Path, ...]:
    """The folders of SCENEWORKS_ARCHIVE_ROOTS, resolved; what is not an absolute path is left out."""
    named = (Path(part.strip()) for part in setting.split(":") if part.strip())
    return tuple(path.resolve() for path in named if path.is_absolute())


def within(path: Path, allowed: Iterable[Path]) -> Path | None:
    """The path with every link resolved, where it then lies in one of the folders; None where it leads out of them."""
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return None
    return real if any(real.is_relative_to(root) for root in allowed) else None


def as_it_was(place: Place) -> bool:
    """Whether a file has the size and the time that it had when it was looked at."""
    return lies(place.path, place.size, place.mtime_ns)


def lies(path: str, size: int, mtime_ns: int) -> bool:
    """Whether there is an ordinary file (no link: it could be turned elsewhere) of that size and time."""
    try:
        now = Path(path).lstat()
    except OSError:
        return False
    return stat.S_ISREG(now.st_mode) and (now.st_size, now.st_mtime_ns) == (size, mtime_ns)


def _without_place(stored: bool) -> Exception:
    if stored:
        return MediaCorrupt("The bytes of this video are no longer in the store.")
    return SourceUnreachable("No source has this film: its file was changed or replaced, or the source was removed.")

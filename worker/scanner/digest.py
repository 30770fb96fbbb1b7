"""One file read through: its hash, and whether it held still meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UnsupportedMedia
from shared.storage import CHUNK, matches_stat

# A pipe that calls itself a film must not be waited for, and a link put there meanwhile not be followed.
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The bytes of a file: how many, from when, and their SHA-256."""

    sha256: str
    size: int
    mtime_ns: int


def digest_file(path: Path, on_chunk: Callable[[int], None]) -> FileDigest | None:
    """The hash of a file, read in pieces: memory is flat at any size.

    Args:
        path: the file.
        on_chunk: called after each piece with its length.

    Returns:
        None when the file was written to, or put in place of another, while it was read.

    Raises:
        OSError: it has gone (FileNotFoundError), or cannot be read.
        UnsupportedMedia: no ordinary file.
    """
    sha256, size = hashlib.sha256(), 0
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb", buffering=0) as file:
        initial_stat = os.fstat(file.fileno())
        if not stat.S_ISREG(initial_stat.st_mode):
            raise UnsupportedMedia("This is no ordinary file.")
        while size <= initial_stat.st_size and (chunk := file.read(CHUNK)):  # what grows is not run after
            sha256.update(chunk)
            size += len(chunk)
            on_chunk(len(chunk))
    unchanged = size == initial_stat.st_size and matches_stat(str(path), initial_stat.st_size, initial_stat.st_mtime_ns)
    return FileDigest(sha256.hexdigest(), size, initial_stat.st_mtime_ns) if unchanged else None

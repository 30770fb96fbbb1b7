"""Hash a file, and detect whether it changed meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UnsupportedMedia
from shared.storage import CHUNK, matches_stat

# NONBLOCK: opening a pipe named like a video must not wait for a writer. NOFOLLOW: the path was checked to be no link,
# and must not have become one since.
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileDigest:
    """SHA-256, size in bytes and modification time of a file."""

    sha256: str
    size: int
    mtime_ns: int


def digest_file(path: Path, on_chunk: Callable[[int], None]) -> FileDigest | None:
    """Hash a file in chunks: memory use does not depend on its size.

    Args:
        path: the file.
        on_chunk: called after each chunk with its length.

    Returns:
        None if the file was written to, or replaced, while it was read.

    Raises:
        OSError: it is gone (FileNotFoundError), or cannot be read.
        UnsupportedMedia: not a regular file.
    """
    sha256, size = hashlib.sha256(), 0
    with os.fdopen(os.open(path, OPEN_FLAGS), "rb", buffering=0) as file:
        initial_stat = os.fstat(file.fileno())
        if not stat.S_ISREG(initial_stat.st_mode):
            raise UnsupportedMedia("This is not a regular file.")
        while size <= initial_stat.st_size and (chunk := file.read(CHUNK)):  # a growing file is not read to its end
            sha256.update(chunk)
            size += len(chunk)
            on_chunk(len(chunk))
    unchanged = size == initial_stat.st_size and matches_stat(str(path), initial_stat.st_size, initial_stat.st_mtime_ns)
    return FileDigest(sha256.hexdigest(), size, initial_stat.st_mtime_ns) if unchanged else None

"""One file read through: its hash, and whether it held still meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UnsupportedMedia
from shared.files import CHUNK, lies

# A pipe that calls itself a film must not be waited for, and a link put there meanwhile not be followed.
FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Digest:
    """The bytes of a file: how many, from when, and their SHA-256."""

    sha256: str
    size: int
    mtime_ns: int


def digest(path: Path, tick: Callable[[int], None]) -> Digest | None:
    """The hash of a file, read in pieces: memory is flat at any size.

    Args:
        path: the file.
        tick: called after each piece with its length.

    Returns:
        None when the file was written to, or put in place of another, while it was read.

    Raises:
        OSError: it has gone (FileNotFoundError), or cannot be read.
        UnsupportedMedia: no ordinary file.
    """
    sha256, size = hashlib.sha256(), 0
    with os.fdopen(os.open(path, FLAGS), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise UnsupportedMedia("This is no ordinary file.")
        while size <= before.st_size and (chunk := file.read(CHUNK)):  # what grows is not run after
            sha256.update(chunk)
            size += len(chunk)
            tick(len(chunk))
    held_still = size == before.st_size and lies(str(path), before.st_size, before.st_mtime_ns)
    return Digest(sha256.hexdigest(), size, before.st_mtime_ns) if held_still else None

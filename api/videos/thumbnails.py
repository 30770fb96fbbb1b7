"""Small pictures of a film: decoded by a process of its own, a few at a time, and kept for a while."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from threading import BoundedSemaphore, Lock

from api.service.health import THREADS
from api.videos.probing import answer, read
from shared.errors import RateLimited
from shared.values import StoredVideo, Video

TIMEOUT_S = 20.0
AT_ONCE = 2
"""Processes that decode pictures at any time."""
WAITING = THREADS // 2
"""Requests that may wait for these: each holds a thread."""
KEPT_BYTES = 16 * 2**20
ROUNDING = Fraction(1, 1_000_000)
"""Seconds by which a time in JSON may lie before the frame it means: it has six decimals."""


def moment(video: Video, at: float) -> int:
    """The time `at` (seconds since the first frame, as JSON gives them) in ticks of the film's clock."""
    return video.clock.start_pts + int((Fraction(at) + ROUNDING) / video.clock.time_base)


@dataclass(slots=True)
class Kept:
    """The pictures asked for lately, by name, up to a number of bytes; the one used longest ago goes first."""

    limit: int = KEPT_BYTES
    _pictures: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _size: int = 0
    _lock: Lock = field(default_factory=Lock)

    def get(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The picture of that name, made where it is not there."""
        with self._lock:
            if name in self._pictures:
                self._pictures.move_to_end(name)
                return self._pictures[name]
        picture = make()
        with self._lock:
            self._size += len(picture) - len(self._pictures.get(name, b""))
            self._pictures[name] = picture
            while self._size > self.limit:
                self._size -= len(self._pictures.popitem(last=False)[1])
        return picture


_kept = Kept()
_working = BoundedSemaphore(AT_ONCE)
_waiting = BoundedSemaphore(WAITING)


def thumbnail(
    name: str, path: Path, video: StoredVideo, pts: int, width: int, check: Callable[[], None] = lambda: None
) -> bytes:
    """The frame shown at `pts` as a JPEG of at most `width` pixels.

    Args:
        name: under which it is kept: what it shows, and nothing else, must follow from it.
        path: the film.
        video: its facts.
        pts: in ticks of its clock.
        width: in pixels.
        check: called before a new picture is kept; raises when the bytes there are no longer the film.

    Raises:
        RateLimited: too many requests wait for pictures. DeadlineExceeded: it took too long.
        MediaCorrupt: nothing can be decoded there.
    """

    def decode() -> bytes:
        picture = _decoded(path, video.video, pts, width)
        check()
        return picture

    return _kept.get(name, decode)


def _decoded(path: Path, video: Video, pts: int, width: int) -> bytes:
    if not _waiting.acquire(blocking=False):
        raise RateLimited("Too many pictures are asked for at once.")
    try:
        asked = json.dumps({"video": video.record(), "pts": pts, "width": width}).encode() + b"\n"
        with _working:
            done = read("worker.video.pictures.thumbnail", path, TIMEOUT_S, asked=asked)
    finally:
        _waiting.release()
    if done.returncode:
        answer(done)
    return done.stdout

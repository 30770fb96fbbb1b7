"""Thumbnails of a video: decoded in a process of their own, a few at a time, and cached."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import BoundedSemaphore, Lock

from cachetools import LRUCache

from api.http.context import THREADS
from shared.errors import RateLimited
from shared.media.sandbox import parse_reader_output, run_reader
from shared.values import StoredVideo, VideoFacts

TIMEOUT_S = 20.0
MAX_DECODING = 2
"""Processes that decode thumbnails at a time."""
MAX_WAITING = THREADS // 2
"""Requests that may wait for these. Each holds a thread, and others must stay free."""
CACHE_BYTES = 16 * 2**20
ROUNDING = Fraction(1, 1_000_000)
"""Seconds by which a time in JSON may lie before its frame, as it has six decimals."""


def seconds_to_pts(video: VideoFacts, at: float) -> int:
    """Convert a time in seconds since the first frame to ticks of the video's clock."""
    return video.clock.start_pts + int((Fraction(at) + ROUNDING) / video.clock.time_base)


class ThumbnailCache:
    """Thumbnails by name, up to a number of bytes; the least recently used one goes first."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._thumbnails: LRUCache[str, bytes] = LRUCache(limit_bytes, getsizeof=len)
        self._lock = Lock()

    def get_or_make(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Get the thumbnail of that name; it is made where it is absent."""
        with self._lock:
            if (cached := self._thumbnails.get(name)) is not None:
                return cached
        # Outside the lock: decoding takes long, and other thumbnails need not wait for it. Two requests may decode the
        # same frame, which costs time and nothing else.
        thumbnail_bytes = make()
        with self._lock:
            if len(thumbnail_bytes) <= self._thumbnails.maxsize:
                self._thumbnails[name] = thumbnail_bytes
        return thumbnail_bytes


_cache = ThumbnailCache()
_decoding_slots = BoundedSemaphore(MAX_DECODING)
_waiting_slots = BoundedSemaphore(MAX_WAITING)


def make_thumbnail(
    name: str, path: Path, video: StoredVideo, pts: int, width: int, check: Callable[[], None] = lambda: None
) -> bytes:
    """Decode the frame shown at `pts` as a JPEG of at most `width` pixels, or take it from the cache.

    Args:
        name: key of the cache; it must determine video, frame and width.
        path: the video.
        video: its facts.
        pts: in ticks of its clock.
        width: in pixels.
        check: called before a new thumbnail is cached; raises when the file at `path` is no longer the video.

    Raises:
        RateLimited: too many requests wait for thumbnails. DeadlineExceeded: it took too long.
        MediaCorrupt: nothing can be decoded there.
    """

    def decode_checked() -> bytes:
        thumbnail_bytes = _decode_thumbnail(path, video.facts, pts, width)
        check()
        return thumbnail_bytes

    return _cache.get_or_make(name, decode_checked)


def _decode_thumbnail(path: Path, video: VideoFacts, pts: int, width: int) -> bytes:
    if not _waiting_slots.acquire(blocking=False):
        raise RateLimited("Too many thumbnails are requested at once.")
    try:
        request_line = json.dumps({"video": video.to_dict(), "pts": pts, "width": width}).encode() + b"\n"
        with _decoding_slots:
            completed = run_reader("worker.video.thumbnail", path, TIMEOUT_S, stdin=request_line)
    finally:
        _waiting_slots.release()
    if completed.returncode:
        parse_reader_output(completed)
    return completed.stdout

"""Keeping pictures that can be named only later: the keyframes of a shot, known when the shot is over.

The frames are there while the film is read the first time, so nothing is decoded twice as long as they can be held.
What is held has three tiers, each with a limit, so memory is flat in the length of the film:

1. the decoder's own pictures, by reference, not converted;
2. beyond that the oldest of them as small pictures, as they would be stored;
3. beyond that nothing: those are read again by number at the end.

A picture goes through the same conversion in every tier, so its JPEG does not depend on the tier.
"""

from __future__ import annotations

import io
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from shared.values import Video
from worker.video.reader import Frame
from worker.video.transform import Picture, View, see

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member (the earliest that ZIP has), so that the same pictures make the same archive."""

QUALITY = 90
"""Of the JPEGs, as libjpeg counts."""

SMALL_SHARE = 4
"""The second tier may take this part (one n-th) of the budget beside the first."""

Reread = Callable[[Sequence[int]], Iterable[Frame]]
"""Frames by number in ascending order: `Reader.at`."""


class Keeper:
    """Pictures of a film that is being read, into an archive of JPEGs (ZIP, stored, members in order of frames).

    `push` belongs to the thread that decodes, `take` may be called from another one.

    Args:
        archive: the file to write.
        video: facts of the film.
        short_side: size of the pictures; never enlarged.
        budget_bytes: how much the pictures held may take; a quarter more for small ones.

    Attributes:
        reread: how many pictures had to be read again.
    """

    def __init__(self, archive: Path, video: Video, short_side: int, budget_bytes: int = 256 * 2**20) -> None:
        self._video, self._view = video, View.short_side(short_side)
        self._archive = archive
        self._zip = zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED)
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Frame] = OrderedDict()
        self._small: OrderedDict[int, Picture] = OrderedDict()
        self._held_bytes = self._small_bytes = 0
        self._budget, self._small_budget = budget_bytes, budget_bytes // SMALL_SHARE
        self._horizon = 0
        self._order: dict[str, int] = {}
        self._missed: dict[int, list[str]] = {}
        self.reread = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of pictures held now, in both tiers."""
        return self._held_bytes + self._small_bytes

    def push(self, frame: Frame) -> None:
        """One more frame, in order, each once; it may be let go at once if nobody can want it any more."""
        with self._lock:
            if frame.index < self._horizon:
                return
            self._held[frame.index] = frame
            self._held_bytes += _weight(frame)
            while self._held_bytes > self._budget:
                self._shrink_oldest()

    def take(self, pictures: Sequence[tuple[int, str]], horizon: int) -> None:
        """Store frames under file names, then let go of all frames before `horizon`.

        A frame may be asked for by several names and more than once. One that is no longer held is noted for `close`.
        """
        for index, name in pictures:
            seen = self._find(index)
            self._order[name] = index
            if seen is None:
                self._missed.setdefault(index, []).append(name)
            else:
                self._write(name, seen)
        with self._lock:
            self._horizon = max(self._horizon, horizon)
            self._forget()

    def close(self, reread: Reread) -> Path:
        """Fetch what was missed, finish the archive and give its path. KeyError for a frame that `reread` lacks."""
        for frame in reread(sorted(self._missed)) if self._missed else ():
            seen = see(self._view, frame, self._video)
            self.reread += 1
            for name in self._missed.pop(frame.index):
                self._write(name, seen)
        if self._missed:
            raise KeyError(f"frames that cannot be read again: {sorted(self._missed)}")
        self._zip.close()
        self._held.clear()
        self._small.clear()
        self._sort()
        return self._archive

    def discard(self) -> None:
        """Let go of everything and remove the archive: the run was given up."""
        self._zip.close()
        self._held.clear()
        self._small.clear()
        self._archive.unlink(missing_ok=True)

    def _find(self, index: int) -> Picture | None:
        """The frame as it is to be stored, where it is held."""
        with self._lock:
            frame, small = self._held.get(index), self._small.get(index)
            if frame is None:
                return small
            return see(self._view, frame, self._video)

    def _shrink_oldest(self) -> None:
        """Move the oldest picture to the second tier, or let it go where that is full: what was converted stays."""
        index, frame = self._held.popitem(last=False)
        self._held_bytes -= _weight(frame)
        if self._small_bytes >= self._small_budget:
            return
        seen = see(self._view, frame, self._video)
        self._small[index] = seen
        self._small_bytes += seen.nbytes

    def _forget(self) -> None:
        """Let go of all frames before the horizon."""
        while self._held and next(iter(self._held)) < self._horizon:
            self._held_bytes -= _weight(self._held.popitem(last=False)[1])
        while self._small and next(iter(self._small)) < self._horizon:
            self._small_bytes -= self._small.popitem(last=False)[1].nbytes

    def _write(self, name: str, seen: Picture) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, EPOCH), jpeg(seen))

    def _sort(self) -> None:
        """Bring the members into the order of their frames: which were late depends on the timing of threads."""
        with zipfile.ZipFile(self._archive) as archive:
            names = archive.namelist()
            wanted = sorted(names, key=lambda name: (self._order[name], name))
            if names == wanted:
                return
            sorted_path = self._archive.with_name(self._archive.name + ".sorted")
            with zipfile.ZipFile(sorted_path, "w", zipfile.ZIP_STORED) as target:
                for name in wanted:
                    target.writestr(zipfile.ZipInfo(name, EPOCH), archive.read(name))
        sorted_path.replace(self._archive)


def jpeg(picture: Picture) -> bytes:
    """A picture (RGB) as JPEG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _weight(frame: Frame) -> int:
    """Bytes that a decoder's picture takes."""
    return sum(plane.buffer_size for plane in frame.picture.planes)

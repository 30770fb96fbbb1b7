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

from shared.values import VideoFacts
from worker.video.reader import Frame
from worker.video.transform import ImageArray, View, apply_view

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member (the earliest that ZIP has), so that the same pictures make the same archive."""

JPEG_QUALITY = 90
"""Of the JPEGs, as libjpeg counts."""

SMALL_BUDGET_DIVISOR = 4
"""The second tier may take this part (one n-th) of the budget beside the first."""

FetchFrames = Callable[[Sequence[int]], Iterable[Frame]]
"""Frames by number in ascending order: `Reader.at`."""


class KeyframeStore:
    """Pictures of a film that is being read, into an archive of JPEGs (ZIP, stored, members in order of frames).

    `add_frame` belongs to the thread that decodes, `save_frames` may be called from another one.

    Args:
        path: the file to write.
        video: facts of the film.
        short_side_pixels: size of the pictures; never enlarged.
        budget_bytes: how much the pictures held may take; a quarter more for small ones.

    Attributes:
        reread_count: how many pictures had to be read again.
    """

    def __init__(self, path: Path, video: VideoFacts, short_side_pixels: int, budget_bytes: int = 256 * 2**20) -> None:
        self._video, self._view = video, View.short_side(short_side_pixels)
        self._path = path
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._lock = threading.Lock()
        self._full_frames: OrderedDict[int, Frame] = OrderedDict()
        self._small_frames: OrderedDict[int, ImageArray] = OrderedDict()
        self._full_bytes = self._small_bytes = 0
        self._budget, self._small_budget = budget_bytes, budget_bytes // SMALL_BUDGET_DIVISOR
        self._horizon = 0
        self._frame_by_name: dict[str, int] = {}
        self._missed_names: dict[int, list[str]] = {}
        self.reread_count = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes of pictures held now, in both tiers."""
        return self._full_bytes + self._small_bytes

    def add_frame(self, frame: Frame) -> None:
        """One more frame, in order, each once; it may be let go at once if nobody can want it any more."""
        with self._lock:
            if frame.index < self._horizon:
                return
            self._full_frames[frame.index] = frame
            self._full_bytes += _frame_bytes(frame)
            while self._full_bytes > self._budget:
                self._shrink_oldest()

    def save_frames(self, frames: Sequence[tuple[int, str]], horizon: int) -> None:
        """Store frames under file names, then let go of all frames before `horizon`.

        A frame may be asked for by several names and more than once. One that is no longer held is noted for `finish_file`.
        """
        for index, name in frames:
            image = self._find_image(index)
            self._frame_by_name[name] = index
            if image is None:
                self._missed_names.setdefault(index, []).append(name)
            else:
                self._write_image(name, image)
        with self._lock:
            self._horizon = max(self._horizon, horizon)
            self._drop_before_horizon()

    def finish_file(self, fetch_frames: FetchFrames) -> Path:
        """Fetch what was missed, finish the archive and give its path. KeyError for a frame that `reread_count` lacks."""
        for frame in fetch_frames(sorted(self._missed_names)) if self._missed_names else ():
            image = apply_view(self._view, frame, self._video)
            self.reread_count += 1
            for name in self._missed_names.pop(frame.index):
                self._write_image(name, image)
        if self._missed_names:
            raise KeyError(f"frames that cannot be read again: {sorted(self._missed_names)}")
        self._zip.close()
        self._full_frames.clear()
        self._small_frames.clear()
        self._sort_members()
        return self._path

    def discard_file(self) -> None:
        """Let go of everything and remove the archive: the run was given up."""
        self._zip.close()
        self._full_frames.clear()
        self._small_frames.clear()
        self._path.unlink(missing_ok=True)

    def _find_image(self, index: int) -> ImageArray | None:
        """The frame as it is to be stored, where it is held."""
        with self._lock:
            frame, small = self._full_frames.get(index), self._small_frames.get(index)
            if frame is None:
                return small
            return apply_view(self._view, frame, self._video)

    def _shrink_oldest(self) -> None:
        """Move the oldest picture to the second tier, or let it go where that is full: what was converted stays."""
        index, frame = self._full_frames.popitem(last=False)
        self._full_bytes -= _frame_bytes(frame)
        if self._small_bytes >= self._small_budget:
            return
        image = apply_view(self._view, frame, self._video)
        self._small_frames[index] = image
        self._small_bytes += image.nbytes

    def _drop_before_horizon(self) -> None:
        """Let go of all frames before the horizon."""
        while self._full_frames and next(iter(self._full_frames)) < self._horizon:
            self._full_bytes -= _frame_bytes(self._full_frames.popitem(last=False)[1])
        while self._small_frames and next(iter(self._small_frames)) < self._horizon:
            self._small_bytes -= self._small_frames.popitem(last=False)[1].nbytes

    def _write_image(self, name: str, image: ImageArray) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), encode_jpeg(image))

    def _sort_members(self) -> None:
        """Bring the members into the order of their frames: which were late depends on the timing of threads."""
        with zipfile.ZipFile(self._path) as archive:
            names = archive.namelist()
            sorted_names = sorted(names, key=lambda name: (self._frame_by_name[name], name))
            if names == sorted_names:
                return
            sorted_path = self._path.with_name(self._path.name + ".sorted")
            with zipfile.ZipFile(sorted_path, "w", zipfile.ZIP_STORED) as target:
                for name in sorted_names:
                    target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), archive.read(name))
        sorted_path.replace(self._path)


def encode_jpeg(image: ImageArray) -> bytes:
    """A picture (RGB) as JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _frame_bytes(frame: Frame) -> int:
    """Bytes that a decoder's picture takes."""
    return sum(plane.buffer_size for plane in frame.av_frame.planes)

"""Store frames that are known to be needed only later: the keyframes of a shot, known when the shot has ended.

The frames pass by while the video is read the first time, so they are not decoded twice as long as they are buffered.
The buffer has three tiers, each with a limit, so memory does not grow with the length of the video:

1. the decoder's own frames, by reference, not converted;
2. beyond that the oldest of them as small images, as they would be stored;
3. beyond that nothing: those frames are read again by number at the end.

A frame goes through the same conversion in every tier, so its JPEG does not depend on the tier.
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
"""Date of every member (the earliest that ZIP can express), so that equal images give an equal file."""

JPEG_QUALITY = 90
"""Quality of the JPEGs on libjpeg's scale."""

SMALL_BUDGET_DIVISOR = 4
"""The second tier may use this part (one n-th) of the budget in addition to the first."""

FetchFrames = Callable[[Sequence[int]], Iterable[Frame]]
"""Reads frames by number in ascending order: `VideoReader.read_frames_at`."""


class KeyframeStore:
    """Writes frames of a video that is being read to a ZIP file of JPEGs (not compressed, in order of frames).

    `add_frame` belongs to the thread that decodes, `save_frames` may be called from another one.

    Args:
        path: the file to write.
        video: facts of the video.
        short_side_pixels: size of the images; never enlarged.
        budget_bytes: memory for the buffered frames; a quarter more for small images.

    Attributes:
        reread_count: how many frames had to be read again.
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
        """Bytes of frames and images that are buffered now, in both tiers."""
        return self._full_bytes + self._small_bytes

    def add_frame(self, frame: Frame) -> None:
        """Buffer one more frame, in order, each once; a frame before the horizon is dropped at once."""
        with self._lock:
            if frame.index < self._horizon:
                return
            self._full_frames[frame.index] = frame
            self._full_bytes += _frame_bytes(frame)
            while self._full_bytes > self._budget:
                self._shrink_oldest()

    def save_frames(self, frames: Sequence[tuple[int, str]], horizon: int) -> None:
        """Write frames under file names, then drop all frames before `horizon`.

        A frame may be written under several names. One that is no longer buffered is noted for `finish_file`.
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
        """Read the missed frames again, finish the file and return its path.

        Raises:
            KeyError: `fetch_frames` did not return a missed frame.
        """
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
        """Drop all frames and remove the file: the run was given up."""
        self._zip.close()
        self._full_frames.clear()
        self._small_frames.clear()
        self._path.unlink(missing_ok=True)

    def _find_image(self, index: int) -> ImageArray | None:
        """Return the frame as it is written, if it is buffered."""
        # The conversion happens under the lock: `add_frame` may otherwise move this frame to the second tier, which
        # converts it too, and one decoder frame must not be converted by two threads at once.
        with self._lock:
            frame, small = self._full_frames.get(index), self._small_frames.get(index)
            if frame is None:
                return small
            return apply_view(self._view, frame, self._video)

    def _shrink_oldest(self) -> None:
        """Move the oldest frame to the second tier, or drop it if that is full: images already converted stay."""
        index, frame = self._full_frames.popitem(last=False)
        self._full_bytes -= _frame_bytes(frame)
        if self._small_bytes >= self._small_budget:
            return
        image = apply_view(self._view, frame, self._video)
        self._small_frames[index] = image
        self._small_bytes += image.nbytes

    def _drop_before_horizon(self) -> None:
        """Drop all frames before the horizon."""
        while self._full_frames and next(iter(self._full_frames)) < self._horizon:
            self._full_bytes -= _frame_bytes(self._full_frames.popitem(last=False)[1])
        while self._small_frames and next(iter(self._small_frames)) < self._horizon:
            self._small_bytes -= self._small_frames.popitem(last=False)[1].nbytes

    def _write_image(self, name: str, image: ImageArray) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), encode_jpeg(image))

    def _sort_members(self) -> None:
        """Sort the members by frame: which of them were written late depends on the timing of threads."""
        with zipfile.ZipFile(self._path) as unsorted_zip:
            names = unsorted_zip.namelist()
            sorted_names = sorted(names, key=lambda name: (self._frame_by_name[name], name))
            if names == sorted_names:
                return
            sorted_path = self._path.with_name(self._path.name + ".sorted")
            with zipfile.ZipFile(sorted_path, "w", zipfile.ZIP_STORED) as target:
                for name in sorted_names:
                    target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), unsorted_zip.read(name))
        sorted_path.replace(self._path)


def encode_jpeg(image: ImageArray) -> bytes:
    """Encode an image (RGB) as JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _frame_bytes(frame: Frame) -> int:
    """Bytes that a decoder's frame occupies."""
    return sum(plane.buffer_size for plane in frame.av_frame.planes)

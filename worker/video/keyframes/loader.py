"""Load keyframes of shots from the ZIP file that `worker.video.keyframes.store` writes, cropped for a network.

Each shot has three: its first frame, the middle one and its last, named as in MovieNet. In a shot of one or two frames
some of them are the same frame; such a frame is read once and counts for each of its positions.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from shared.values import TimeRange
from worker.video.transform import ImageArray
from worker.video.windows import Window

KEYFRAMES_PER_SHOT = 3
"""Keyframes of a shot."""

RESIZE_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class CenterCrop:
    """Resizes the short side of an image (Pillow, antialiased), then crops a square from its centre.

    Args:
        short_side: pixels of the short side after resizing; smaller images are enlarged.
        filter: Pillow's resampling filter.
        side: pixels of the square, at most `short_side`.
        rounding: what happens to half pixels. `long_down`: the long side is rounded down and the corner of the square
            to the nearest pixel, as torchvision's Resize and CenterCrop do. `corner_down`: the other way round, as
            CMD's released code does (R(2+1)D). Ties are rounded to the even number.
    """

    short_side: int
    filter: Literal["bilinear", "bicubic"]
    side: int = 224
    rounding: Literal["long_down", "corner_down"] = "long_down"

    def __post_init__(self) -> None:
        if not 0 < self.side <= self.short_side:
            raise ValueError(f"impossible crop: {self}")

    def apply_to(self, pixels: ImageArray) -> ImageArray:
        """Crop an image: RGB uint8 (H, W, 3) -> (side, side, 3)."""
        height, width = pixels.shape[:2]
        rounds_corner = self.rounding == "corner_down"
        size = (
            _size_rounded_nearest(width, height, self.short_side)
            if rounds_corner
            else _size_rounded_down(width, height, self.short_side)
        )
        image = Image.fromarray(pixels)
        if size != (width, height):
            image = image.resize(size, RESIZE_FILTERS[self.filter])
        left, top = ((length - self.side) // 2 if rounds_corner else round((length - self.side) / 2) for length in size)
        return np.array(image.crop((left, top, left + self.side, top + self.side)))


@dataclass(frozen=True, slots=True)
class KeyframeWindow:
    """Keyframes that go through a network as one window, and the positions `start` to `stop` that they cover."""

    names: tuple[str, ...]
    start: int
    stop: int


def keyframe_name(shot: int, image: int) -> str:
    """File name of a keyframe, as in MovieNet."""
    return f"shot_{shot:04d}_img_{image}.jpg"


def middle_frame(start: int, end: int) -> int:
    """Number of the middle frame of a shot (end exclusive), rounded down as in LGSS."""
    return start + (end - 1 - start) // 2


def keyframe_numbers(start: int, end: int) -> tuple[int, int, int]:
    """Frame numbers of a shot's keyframes: the first, the middle one and the last; `end` is exclusive."""
    return start, middle_frame(start, end), end - 1


def one_window_per_keyframe(shots: Sequence[TimeRange]) -> tuple[KeyframeWindow, ...]:
    """Plan one window for each distinct keyframe. Keyframe k of shot n has position 3n + k; equal ones are adjacent."""
    windows = []
    for shot, span in enumerate(shots):
        frames = keyframe_numbers(span.start.frame, span.end.frame)
        first = [image for image in range(KEYFRAMES_PER_SHOT) if image == 0 or frames[image] != frames[image - 1]]
        for image, stop in zip(first, [*first[1:], KEYFRAMES_PER_SHOT], strict=True):
            windows.append(
                KeyframeWindow(
                    (keyframe_name(shot, image),), shot * KEYFRAMES_PER_SHOT + image, shot * KEYFRAMES_PER_SHOT + stop
                )
            )
    return tuple(windows)


def one_window_per_shot(shots: int) -> tuple[KeyframeWindow, ...]:
    """Plan one window with the three keyframes of each shot; shot n has position n."""
    return tuple(
        KeyframeWindow(tuple(keyframe_name(shot, image) for image in range(KEYFRAMES_PER_SHOT)), shot, shot + 1)
        for shot in range(shots)
    )


def read_keyframes(path: Path, names: Iterable[str]) -> Iterator[ImageArray]:
    """Yield the images of a ZIP file by name, RGB uint8 (H, W, 3). KeyError for a missing name."""
    with zipfile.ZipFile(path) as zip_file:
        for name in names:
            with zip_file.open(name) as file, Image.open(file) as image:
                yield np.array(image.convert("RGB"))


def load_windows(path: Path, keyframe_windows: Sequence[KeyframeWindow], crop: CenterCrop) -> Iterator[Window]:
    """Yield a window of cropped images for each planned window, in order."""
    images = read_keyframes(path, (name for keyframe_window in keyframe_windows for name in keyframe_window.names))
    for keyframe_window in keyframe_windows:
        cropped = [crop.apply_to(next(images)) for _ in keyframe_window.names]
        yield Window(np.stack(cropped), keyframe_window.start, keyframe_window.stop)


def _size_rounded_down(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) with that short side; the long one rounded down."""
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def _size_rounded_nearest(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) with that short side; both rounded to the nearest number after one scaling in floating point."""
    scale = short / min(width, height)
    return round(width * scale), round(height * scale)

"""Keyframes of shots, out of the archive that `worker.video.keyframes.store` writes, as a network sees them.

Each shot has three: its first frame, the middle one and its last, named as MovieNet names them. In a shot of one or two
frames some of them are the same frame; such a picture is read once and answers for each of its places.
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
    """The middle of a picture: its short side resized (Pillow's filter, antialiased), then cut to a square.

    Args:
        short_side: pixels of the short side after resizing; smaller pictures are enlarged.
        filter: of Pillow.
        side: pixels of the square, at most `short_side`.
        rounding: what happens to half pixels. `long_down`: the long side is rounded down and the corner of the square to
            the nearest pixel, as torchvision's Resize and CenterCrop do. `corner_down`: the other way round, as CMD's
            released code does (R(2+1)D). Nearest means the even number where two are as near.
    """

    short_side: int
    filter: Literal["bilinear", "bicubic"]
    side: int = 224
    rounding: Literal["long_down", "corner_down"] = "long_down"

    def __post_init__(self) -> None:
        if not 0 < self.side <= self.short_side:
            raise ValueError(f"impossible crop: {self}")

    def apply_to(self, image_HWC: ImageArray) -> ImageArray:
        """RGB uint8 (H, W, 3) -> (side, side, 3)."""
        height, width = image_HWC.shape[:2]
        rounds_corner = self.rounding == "corner_down"
        size = (
            _size_rounded_nearest(width, height, self.short_side)
            if rounds_corner
            else _size_rounded_down(width, height, self.short_side)
        )
        image = Image.fromarray(image_HWC)
        if size != (width, height):
            image = image.resize(size, RESIZE_FILTERS[self.filter])
        left, top = ((length - self.side) // 2 if rounds_corner else round((length - self.side) / 2) for length in size)
        return np.array(image.crop((left, top, left + self.side, top + self.side)))


@dataclass(frozen=True, slots=True)
class KeyframeWindow:
    """Pictures that go through a network as one window, and the places `start` to `stop` that they answer for."""

    names: tuple[str, ...]
    start: int
    stop: int


def keyframe_name(shot: int, image: int) -> str:
    """File name of a keyframe, as in MovieNet."""
    return f"shot_{shot:04d}_img_{image}.jpg"


def middle_frame(start: int, end: int) -> int:
    """The middle frame of a shot (end exclusive), as LGSS counts: rounded down."""
    return start + (end - 1 - start) // 2


def keyframe_numbers(start: int, end: int) -> tuple[int, int, int]:
    """Frames of a shot's keyframes: the first, the middle one and the last; `end` is exclusive."""
    return start, middle_frame(start, end), end - 1


def one_window_per_keyframe(shots: Sequence[TimeRange]) -> tuple[KeyframeWindow, ...]:
    """Each distinct keyframe by itself. Keyframe k of shot n has place 3n + k; equal ones follow each other."""
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
    """The keyframes of each shot as one window; shot n has place n."""
    return tuple(
        KeyframeWindow(tuple(keyframe_name(shot, image) for image in range(KEYFRAMES_PER_SHOT)), shot, shot + 1)
        for shot in range(shots)
    )


def read_keyframes(path: Path, names: Iterable[str]) -> Iterator[ImageArray]:
    """Pictures of an archive by name, RGB uint8 (H, W, 3). KeyError for a name that it lacks."""
    with zipfile.ZipFile(path) as members:
        for member in names:
            with members.open(member) as file, Image.open(file) as image:
                yield np.array(image.convert("RGB"))


def load_windows(path: Path, keyframe_windows: Sequence[KeyframeWindow], crop: CenterCrop) -> Iterator[Window]:
    """A window of `len(place.names)` cropped pictures for each place, in order."""
    images = read_keyframes(path, (member for keyframe_window in keyframe_windows for member in keyframe_window.names))
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

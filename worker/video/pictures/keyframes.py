"""Keyframes of shots, out of the archive that `worker.video.pictures.keep` writes, as a network sees them.

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
from worker.video.feed import Window
from worker.video.transform import Picture

IMAGES = 3
"""Keyframes of a shot."""

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class Crop:
    """The middle of a picture: its short side resized (Pillow's filter, antialiased), then cut to a square.

    Args:
        short_side: pixels of the short side after resizing; smaller pictures are enlarged.
        filter: of Pillow.
        side: pixels of the square, at most `short_side`.
        rounds: what happens to half pixels. `long_down`: the long side is rounded down and the corner of the square to
            the nearest pixel, as torchvision's Resize and CenterCrop do. `corner_down`: the other way round, as CMD's
            released code does (R(2+1)D). Nearest means the even number where two are as near.
    """

    short_side: int
    filter: Literal["bilinear", "bicubic"]
    side: int = 224
    rounds: Literal["long_down", "corner_down"] = "long_down"

    def __post_init__(self) -> None:
        if not 0 < self.side <= self.short_side:
            raise ValueError(f"impossible crop: {self}")

    def see(self, picture: Picture) -> Picture:
        """RGB uint8 (H, W, 3) -> (side, side, 3)."""
        height, width = picture.shape[:2]
        down = self.rounds == "corner_down"
        size = _rounded(width, height, self.short_side) if down else _resized(width, height, self.short_side)
        image = Image.fromarray(picture)
        if size != (width, height):
            image = image.resize(size, FILTERS[self.filter])
        left, top = ((length - self.side) // 2 if down else round((length - self.side) / 2) for length in size)
        return np.array(image.crop((left, top, left + self.side, top + self.side)))


@dataclass(frozen=True, slots=True)
class Place:
    """Pictures that go through a network as one window, and the places `start` to `stop` that they answer for."""

    names: tuple[str, ...]
    start: int
    stop: int


def name(shot: int, image: int) -> str:
    """File name of a keyframe, as in MovieNet."""
    return f"shot_{shot:04d}_img_{image}.jpg"


def middle(start: int, end: int) -> int:
    """The middle frame of a shot (end exclusive), as LGSS counts: rounded down."""
    return start + (end - 1 - start) // 2


def numbers(start: int, end: int) -> tuple[int, int, int]:
    """Frames of a shot's keyframes: the first, the middle one and the last; `end` is exclusive."""
    return start, middle(start, end), end - 1


def apart(shots: Sequence[TimeRange]) -> tuple[Place, ...]:
    """Each distinct keyframe by itself. Keyframe k of shot n has place 3n + k; equal ones follow each other."""
    places = []
    for shot, span in enumerate(shots):
        frames = numbers(span.start.frame, span.end.frame)
        first = [image for image in range(IMAGES) if image == 0 or frames[image] != frames[image - 1]]
        for image, stop in zip(first, [*first[1:], IMAGES], strict=True):
            places.append(Place((name(shot, image),), shot * IMAGES + image, shot * IMAGES + stop))
    return tuple(places)


def together(shots: int) -> tuple[Place, ...]:
    """The keyframes of each shot as one window; shot n has place n."""
    return tuple(Place(tuple(name(shot, image) for image in range(IMAGES)), shot, shot + 1) for shot in range(shots))


def read(archive: Path, names: Iterable[str]) -> Iterator[Picture]:
    """Pictures of an archive by name, RGB uint8 (H, W, 3). KeyError for a name that it lacks."""
    with zipfile.ZipFile(archive) as members:
        for member in names:
            with members.open(member) as file, Image.open(file) as image:
                yield np.array(image.convert("RGB"))


def windows(archive: Path, places: Sequence[Place], crop: Crop) -> Iterator[Window]:
    """A window of `len(place.names)` cropped pictures for each place, in order."""
    pictures = read(archive, (member for place in places for member in place.names))
    for place in places:
        seen = [crop.see(next(pictures)) for _ in place.names]
        yield Window(np.stack(seen), place.start, place.stop)


def _resized(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) with that short side; the long one rounded down."""
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def _rounded(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) with that short side; both rounded to the nearest number after one scaling in floating point."""
    scale = short / min(width, height)
    return round(width * scale), round(height * scale)

"""From a decoder's picture to what a network sees. Pixels are turned and squared here, once, and nowhere else."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation, VideoReformatter

from shared.values import Video
from worker.video.probe import shown_size

if TYPE_CHECKING:
    from worker.video.reader import Frame

Picture = npt.NDArray[np.uint8]
"""Height x width x 3, uint8."""

FACTORS = ((3200, 12), (2100, 8), (1700, 6), (1200, 5), (900, 4), (600, 3), (400, 2))
"""From which width on every how many pixels are looked at (the shot detector of LGSS, arXiv:2004.02678)."""

PLANAR = {
    "yuv420p": ("yuv422p", 1),
    "yuvj420p": ("yuvj422p", 1),
    "yuv422p": ("yuv422p", 0),
    "yuvj422p": ("yuvj422p", 0),
}
"""Formats that can be thinned before they are converted, with the format of the thinned picture and how many bits a row
number loses to become that of its colour."""

HDR = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
"""Transfer characteristics of high dynamic range: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67)."""


class Sight(StrEnum):
    """The ways to look at a picture."""

    SCALED = "scaled"
    SHORT_SIDE = "short_side"
    SUBSAMPLED = "subsampled"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of a frame: build one with the functions below.

    High dynamic range (PQ, HLG) is brought to BT.709 by libswscale's tone mapping in all views but `subsampled`.
    """

    sight: Sight
    width: int = 0
    height: int = 0

    @staticmethod
    def scaled(width: int, height: int) -> View:
        """RGB of exactly `height` x `width`, the whole picture stretched to it; few samples a pixel (fast bilinear)."""
        return View(Sight.SCALED, width, height)

    @staticmethod
    def short_side(size: int) -> View:
        """RGB with its short side `size`, or its own where that is smaller. The long side is even.

        Each pixel is the mean of those it stands for (swscale's area filter): free of aliasing, and at 720p twice as
        fast as bicubic.
        """
        return View(Sight.SHORT_SIDE, size, size)

    @staticmethod
    def subsampled() -> View:
        """BGR of every f-th pixel of every f-th row, f by the width (specification of the LGSS shot detector).

        Equal to `full_bgr[::f, ::f]` as OpenCV decodes: turned, but neither squared nor tone mapped.
        """
        return View(Sight.SUBSAMPLED)

    @staticmethod
    def full() -> View:
        """RGB as a player shows it, in full size."""
        return View(Sight.FULL)


def see(view: View, frame: Frame, video: Video) -> Picture:
    """The frame as the view wants it.

    Args:
        view: what is wanted.
        frame: as decoded.
        video: facts; its rotation and sample aspect ratio are applied here.

    Returns:
        H x W x 3, uint8, contiguous; RGB, but BGR from `View.subsampled`.
    """
    picture, turns = _progressive(frame.picture), video.rotation // 90 % 4
    if view.sight is Sight.SUBSAMPLED:
        return _subsampled(picture, turns)
    if view.sight is Sight.SCALED:
        size, filter_ = (view.width, view.height), Interpolation.FAST_BILINEAR
    else:
        shown = shown_size(picture.width, picture.height, video.sample_aspect_ratio, video.rotation)
        size = shown if view.sight is Sight.FULL else _shortened(*shown, view.width)
        filter_ = Interpolation.BICUBIC if view.sight is Sight.FULL else Interpolation.AREA
    return turned(_rgb(picture, (size[1], size[0]) if turns % 2 else size, filter_), turns)


def _progressive(picture: VideoFrame) -> VideoFrame:
    """The picture, not marked as two fields: swscale would scale each by itself and weave them together again."""
    if not picture.interlaced_frame:
        return picture
    plain = VideoFrame(picture.width, picture.height, picture.format.name)
    for source, target in zip(picture.planes, plain.planes, strict=True):
        used = min(source.line_size, target.line_size)
        _samples(target)[:, :used] = _samples(source)[:, :used]
    plain.colorspace, plain.color_range = picture.colorspace, picture.color_range
    plain.color_trc, plain.color_primaries = picture.color_trc, picture.color_primaries
    return plain


def turned(picture: Picture, quarter_turns: int) -> Picture:
    """The picture turned counter-clockwise."""
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def factor(width: int) -> int:
    """Every how many pixels LGSS looks at, by the width of the picture."""
    return next((step for least, step in FACTORS if width >= least), 1)


def _shortened(width: int, height: int, short: int) -> tuple[int, int]:
    """(width, height) with the short side as wanted, the long side even: swscale is slow with odd widths."""
    if min(width, height) <= short:
        return width, height
    if width >= height:
        return max(short, round(width * short / height / 2) * 2), short
    return short, max(short, round(height * short / width / 2) * 2)


class _Scalers(threading.local):
    """Scalers of this thread by what they do: setting one up costs more than a small picture."""

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], VideoReformatter] = {}

    def get(self, *key: object) -> VideoReformatter:
        if len(self.known) > 16:
            self.known.clear()
        return self.known.setdefault(key, VideoReformatter())


_scalers = _Scalers()


def _rgb(picture: VideoFrame, size: tuple[int, int], filter_: Interpolation) -> Picture:
    """RGB in the wanted size, before turning."""
    deep = int(picture.color_trc) in HDR
    scaler = _scalers.get(picture.format.name, picture.width, picture.height, size, filter_, deep)
    kind = "yuv444p16le" if deep else "rgb24"
    seen = scaler.reformat(picture, *size, format=kind, interpolation=filter_, threads=1)
    return cast(Picture, np.ascontiguousarray((_mapped(seen) if deep else seen).to_ndarray()))


def _mapped(picture: VideoFrame) -> VideoFrame:
    """BT.709 out of high dynamic range, by libswscale's tone mapping; of the small picture, as it is dear.

    The first picture of a size takes about a second (a table is made), each one after that some 10 ns a pixel.
    """
    mapper = _scalers.get("mapped", picture.width, picture.height, int(picture.color_trc), int(picture.color_primaries))
    return mapper.reformat(
        picture,
        format="rgb24",
        dst_colorspace=Colorspace.ITU709,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
        threads=1,
    )


def _subsampled(picture: VideoFrame, turns: int) -> Picture:
    """BGR, every f-th pixel after turning."""
    step = factor(picture.height if turns % 2 else picture.width)
    across, down = _chosen(picture.width, step, turns in (1, 2)), _chosen(picture.height, step, turns in (2, 3))
    even = picture.height % 2 == 0 and picture.width % 2 == 0  # swscale reckons odd sizes in another way
    if picture.format.name in PLANAR and step > 1 and even:
        return turned(_thinned(picture, down, across), turns)
    scaler = _scalers.get(picture.format.name, picture.width, picture.height, "bgr24")
    full = scaler.reformat(picture, format="bgr24", threads=1).to_ndarray()
    return turned(np.ascontiguousarray(full[down][:, across]), turns)


def _chosen(length: int, step: int, backwards: bool) -> slice:
    """Every `step`-th of `length`, counted from the side that turning makes the first."""
    return slice((length - 1) % step if backwards else 0, length, step)


def _thinned(picture: VideoFrame, down: slice, across: slice) -> Picture:
    """BGR of chosen rows and columns of a planar picture without converting the rest.

    The chosen samples are laid out as a small 4:2:2 picture, each with the colour samples that it has in the large one,
    every second column left open, so that swscale takes the same arithmetic as for the large picture.
    """
    format_, shared_rows = PLANAR[picture.format.name]
    high, wide = len(range(picture.height)[down]), len(range(picture.width)[across])
    small = VideoFrame(2 * wide, high + high % 2, format_)  # even: swscale reckons a lone last row in another way
    small.colorspace, small.color_range = picture.colorspace, picture.color_range
    _samples(small.planes[0])[:high, 0 : 2 * wide : 2] = _samples(picture.planes[0])[down, across]
    for plane in (1, 2):
        source, target = _samples(picture.planes[plane]), _samples(small.planes[plane])[:high]
        for to_rows, from_rows in _halved(down, high, shared_rows):
            for to_columns, from_columns in _halved(across, wide, 1):
                target[to_rows, to_columns] = source[from_rows, from_columns]
    scaler = _scalers.get(small.format.name, small.width, small.height, "thinned")
    seen = scaler.reformat(small, format="bgr24", threads=1).to_ndarray()[:high]
    # Every second column, at five times the speed of numpy's strides.
    return cast(Picture, cv2.resize(seen, (wide, high), interpolation=cv2.INTER_NEAREST))


def _halved(chosen: slice, count: int, shift: int) -> list[tuple[slice, slice]]:
    """(where to, where from) so that target k gets source `(start + step * k) >> shift`, without index arrays.

    An odd step over samples shared by two makes two even rows of steps, one for even and one for odd k.
    """
    start, step = chosen.start, chosen.step
    if not shift or step % 2 == 0:
        step >>= shift
        first = start >> shift
        return [(slice(0, count), slice(first, first + step * (count - 1) + 1, step))]
    parts = []
    for odd in range(min(2, count)):
        many, first = (count - odd + 1) // 2, (start + odd * step) >> 1
        parts.append((slice(odd, count, 2), slice(first, first + step * (many - 1) + 1, step)))
    return parts


def _samples(plane: VideoPlane) -> Picture:
    """A plane as height x line size, sharing its memory."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]

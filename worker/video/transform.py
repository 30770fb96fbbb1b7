"""Convert a decoded frame to an array. Rotation and pixel aspect ratio are applied here and nowhere else."""

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

from shared.values import VideoFacts
from worker.video.probe import display_size

if TYPE_CHECKING:
    from worker.video.reader import Frame

ImageArray = npt.NDArray[np.uint8]
"""Height x width x 3, uint8."""

SUBSAMPLING_STEPS = ((3200, 12), (2100, 8), (1700, 6), (1200, 5), (900, 4), (600, 3), (400, 2))
"""(smallest width, step in pixels): the subsampling of the shot detector of LGSS (arXiv:2004.02678)."""

PLANAR_FORMATS = {
    "yuv420p": ("yuv422p", 1),
    "yuvj420p": ("yuvj422p", 1),
    "yuv422p": ("yuv422p", 0),
    "yuvj422p": ("yuvj422p", 0),
}
"""Formats that can be subsampled before they are converted: format -> (format of the subsampled frame, right shift that
turns a luma row number into the number of its chroma row)."""

HDR_TRANSFERS = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
"""Transfer characteristics of high dynamic range: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67)."""


class ViewKind(StrEnum):
    """The kinds of view."""

    SCALED = "scaled"
    SHORT_SIDE = "short_side"
    SUBSAMPLED = "subsampled"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class View:
    """Size and pixel format that a frame is converted to: build one with the functions below.

    High dynamic range (PQ, HLG) is converted to BT.709 by libswscale's tone mapping in all views but `subsampled_bgr`.
    """

    kind: ViewKind
    width: int = 0
    height: int = 0

    @staticmethod
    def scaled_to(width: int, height: int) -> View:
        """RGB of exactly `height` x `width`, the whole frame stretched to it (fast bilinear: few samples a pixel)."""
        return View(ViewKind.SCALED, width, height)

    @staticmethod
    def short_side(size: int) -> View:
        """RGB with a short side of `size` pixels, never enlarged. The long side is even.

        Each pixel is the mean of the pixels it replaces (swscale's area filter): free of aliasing, and at 720p twice
        as fast as bicubic.
        """
        return View(ViewKind.SHORT_SIDE, size, size)

    @staticmethod
    def subsampled_bgr() -> View:
        """BGR of every f-th pixel of every f-th row, f by the width (specification of the LGSS shot detector).

        Equal to `full_bgr[::f, ::f]` as OpenCV decodes it: rotated, without aspect correction or tone mapping.
        """
        return View(ViewKind.SUBSAMPLED)

    @staticmethod
    def full_size() -> View:
        """RGB as a player shows it, in full size."""
        return View(ViewKind.FULL)


def apply_view(view: View, frame: Frame, video: VideoFacts) -> ImageArray:
    """Convert a frame to an array as the view says.

    Args:
        view: size and format.
        frame: as decoded.
        video: facts; its rotation and sample aspect ratio are applied here.

    Returns:
        H x W x 3, uint8, contiguous; RGB, but BGR from `View.subsampled_bgr`.
    """
    av_frame, turns = _without_interlacing(frame.av_frame), video.rotation // 90 % 4
    if view.kind is ViewKind.SUBSAMPLED:
        return _subsample_bgr(av_frame, turns)
    if view.kind is ViewKind.SCALED:
        size, filter_ = (view.width, view.height), Interpolation.FAST_BILINEAR
    else:
        player_size = display_size(av_frame.width, av_frame.height, video.sample_aspect_ratio, video.rotation)
        size = player_size if view.kind is ViewKind.FULL else _size_for_short_side(*player_size, view.width)
        filter_ = Interpolation.BICUBIC if view.kind is ViewKind.FULL else Interpolation.AREA
    return rotate_image(_convert_to_rgb(av_frame, (size[1], size[0]) if turns % 2 else size, filter_), turns)


def _without_interlacing(av_frame: VideoFrame) -> VideoFrame:
    """Copy the frame without its interlaced flag: swscale would scale each field by itself and interleave them."""
    if not av_frame.interlaced_frame:
        return av_frame
    plain = VideoFrame(av_frame.width, av_frame.height, av_frame.format.name)
    for source, target in zip(av_frame.planes, plain.planes, strict=True):
        used = min(source.line_size, target.line_size)
        _plane_samples(target)[:, :used] = _plane_samples(source)[:, :used]
    plain.colorspace, plain.color_range = av_frame.colorspace, av_frame.color_range
    plain.color_trc, plain.color_primaries = av_frame.color_trc, av_frame.color_primaries
    return plain


def rotate_image(image: ImageArray, quarter_turns: int) -> ImageArray:
    """Rotate the image counter-clockwise."""
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def subsampling_step(width: int) -> int:
    """Step in pixels that LGSS uses for frames of this width."""
    return next((step for min_width, step in SUBSAMPLING_STEPS if width >= min_width), 1)


def _size_for_short_side(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) with that short side, never enlarged; the long side is even: swscale is slow with odd widths."""
    if min(width, height) <= short_side:
        return width, height
    if width >= height:
        return max(short_side, round(width * short_side / height / 2) * 2), short_side
    return short_side, max(short_side, round(height * short_side / width / 2) * 2)


class _ScalerCache(threading.local):
    """Scalers of this thread, by what they convert: setting one up costs more than converting a small frame.

    One cache a thread, because a scaler must not be used by two threads at the same time.
    """

    def __init__(self) -> None:
        self.scalers: dict[tuple[object, ...], VideoReformatter] = {}

    def get_scaler(self, *key: object) -> VideoReformatter:
        if len(self.scalers) > 16:  # a stream that changes its size again and again must not fill the memory
            self.scalers.clear()
        return self.scalers.setdefault(key, VideoReformatter())


_scalers = _ScalerCache()


def _convert_to_rgb(av_frame: VideoFrame, size: tuple[int, int], filter_: Interpolation) -> ImageArray:
    """Scale to RGB of that size, before rotation."""
    is_hdr = int(av_frame.color_trc) in HDR_TRANSFERS
    scaler = _scalers.get_scaler(av_frame.format.name, av_frame.width, av_frame.height, size, filter_, is_hdr)
    pixel_format = "yuv444p16le" if is_hdr else "rgb24"
    scaled = scaler.reformat(av_frame, *size, format=pixel_format, interpolation=filter_, threads=1)
    return cast(ImageArray, np.ascontiguousarray((_tone_map(scaled) if is_hdr else scaled).to_ndarray()))


def _tone_map(av_frame: VideoFrame) -> VideoFrame:
    """Convert high dynamic range to BT.709 by libswscale's tone mapping.

    Called on the scaled frame, because it is expensive: the first frame of a size takes about a second (a table is
    built), each one after that some 10 ns a pixel.
    """
    mapper = _scalers.get_scaler(
        "mapped", av_frame.width, av_frame.height, int(av_frame.color_trc), int(av_frame.color_primaries)
    )
    return mapper.reformat(
        av_frame,
        format="rgb24",
        dst_colorspace=Colorspace.ITU709,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
        threads=1,
    )


def _subsample_bgr(av_frame: VideoFrame, turns: int) -> ImageArray:
    """BGR of every f-th pixel, counted after rotation."""
    step = subsampling_step(av_frame.height if turns % 2 else av_frame.width)
    across, down = (
        _sampled_slice(av_frame.width, step, turns in (1, 2)),
        _sampled_slice(av_frame.height, step, turns in (2, 3)),
    )
    # With odd sizes swscale computes the last row and column differently: convert the whole frame then.
    has_even_size = av_frame.height % 2 == 0 and av_frame.width % 2 == 0
    if av_frame.format.name in PLANAR_FORMATS and step > 1 and has_even_size:
        return rotate_image(_thin_planar(av_frame, down, across), turns)
    scaler = _scalers.get_scaler(av_frame.format.name, av_frame.width, av_frame.height, "bgr24")
    full = scaler.reformat(av_frame, format="bgr24", threads=1).to_ndarray()
    return rotate_image(np.ascontiguousarray(full[down][:, across]), turns)


def _sampled_slice(length: int, step: int, backwards: bool) -> slice:
    """Every `step`-th of `length` positions, counted from the side that is first after rotation."""
    return slice((length - 1) % step if backwards else 0, length, step)


def _thin_planar(av_frame: VideoFrame, down: slice, across: slice) -> ImageArray:
    """BGR of selected rows and columns of a planar frame, without converting the rest.

    The selected samples are copied to a small 4:2:2 frame, each with the chroma samples that it has in the large one;
    every second column stays empty. So swscale uses the same arithmetic as for the large frame, to the last bit.
    """
    format_, shared_rows = PLANAR_FORMATS[av_frame.format.name]
    thinned_height, thinned_width = len(range(av_frame.height)[down]), len(range(av_frame.width)[across])
    # An even height, because swscale computes a single last row differently.
    small = VideoFrame(2 * thinned_width, thinned_height + thinned_height % 2, format_)
    small.colorspace, small.color_range = av_frame.colorspace, av_frame.color_range
    _plane_samples(small.planes[0])[:thinned_height, 0 : 2 * thinned_width : 2] = _plane_samples(av_frame.planes[0])[
        down, across
    ]
    for plane in (1, 2):
        source, target = _plane_samples(av_frame.planes[plane]), _plane_samples(small.planes[plane])[:thinned_height]
        for to_rows, from_rows in _chroma_slices(down, thinned_height, shared_rows):
            for to_columns, from_columns in _chroma_slices(across, thinned_width, 1):
                target[to_rows, to_columns] = source[from_rows, from_columns]
    scaler = _scalers.get_scaler(small.format.name, small.width, small.height, "thinned")
    converted = scaler.reformat(small, format="bgr24", threads=1).to_ndarray()[:thinned_height]
    # Nearest neighbour at half the width takes every second column, at five times the speed of numpy's strides.
    return cast(ImageArray, cv2.resize(converted, (thinned_width, thinned_height), interpolation=cv2.INTER_NEAREST))


def _chroma_slices(sampled: slice, count: int, shift: int) -> list[tuple[slice, slice]]:
    """(target slice, source slice) so that target k gets source `(start + step * k) >> shift`, without index arrays.

    With an odd step over samples that two positions share, even and odd k need a slice each.
    """
    start, step = sampled.start, sampled.step
    if not shift or step % 2 == 0:
        step >>= shift
        first = start >> shift
        return [(slice(0, count), slice(first, first + step * (count - 1) + 1, step))]
    parts = []
    for odd in range(min(2, count)):
        taken, first = (count - odd + 1) // 2, (start + odd * step) >> 1
        parts.append((slice(odd, count, 2), slice(first, first + step * (taken - 1) + 1, step)))
    return parts


def _plane_samples(plane: VideoPlane) -> ImageArray:
    """View a plane as an array of height x line size that shares its memory."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]

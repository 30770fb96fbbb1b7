"""The video with the masks drawn over it, under a legend of the queries, as the published pipeline draws them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from unicodedata import combining, normalize

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.errors import Internal
from shared.values.tracks import QUERY_COLOURS, Colour, TrackFrame
from worker.models.mttr.tracks.masks import decode_rle
from worker.video.transform import ImageArray

BLEND_ALPHA = 0.7
"""Part of the colour in a pixel of a mask; the rest is the video."""

LEGEND_ROW_HEIGHT = 36
"""Rows of the legend for each query."""

MAX_FONT_SIZE, MIN_FONT_SIZE = 24, 12
"""Sizes of its text, in pixels: as large as fits; what does not fit at the smallest is cut off."""

TEXT_MARGIN = 8
"""Pixels free at each end of a text."""

ELLIPSIS = "..."


def overlay_frames(
    frames: Iterable[ImageArray], track_frames: Iterable[TrackFrame], queries: Sequence[str]
) -> Iterator[ImageArray]:
    """Each image under the legend, with the masks of its frame.

    Args:
        frames: RGB as shown, in order.
        track_frames: a line for each of them and each query, in the order of the file.
        queries: the texts.

    Raises:
        Internal: there are not as many images as frames with masks.
    """
    strip: ImageArray | None = None
    tracks = groupby(track_frames, lambda each: each.frame)
    for frame in frames:
        _, group = next(tracks, (None, None))
        if group is None:
            raise Internal("the video has more frames than before")
        if strip is None:
            strip = draw_legend(queries, frame.shape[1])
        yield np.concatenate([strip, draw_masks(frame, group)])
    if next(tracks, None) is not None:
        raise Internal("the video has fewer frames than before")


def draw_masks(frame: ImageArray, track_frames: Iterable[TrackFrame]) -> ImageArray:
    """A copy of a image with masks blended into it, one after the other."""
    result = frame.copy()
    for track_frame in track_frames:
        if track_frame.box is not None:
            left, top, wide, high = track_frame.box
            inside = (slice(top, top + high), slice(left, left + wide))
            blend_colour(result[inside], decode_rle(track_frame.mask)[inside], QUERY_COLOURS[track_frame.query])
    return result


def blend_colour(frame: ImageArray, mask: ImageArray, colour: Colour) -> None:
    """Blend a colour into a image where the mask is 1, in place."""
    cv2.copyTo(cv2.LUT(frame, blend_table(colour)), np.ascontiguousarray(mask), frame)


@cache
def blend_table(colour: Colour) -> ImageArray:
    """What each value of red, green and blue becomes under that colour: (256, 1, 3)."""
    values = np.arange(256)[:, None, None] * (1 - BLEND_ALPHA) + np.array(colour) * BLEND_ALPHA
    return values.round().astype(np.uint8)


def draw_legend(queries: Sequence[str], width: int) -> ImageArray:
    """A black strip for each query with its text in its colour, centred: (36 Q, width, 3).

    The letters are those of Pillow's own font, which has those of English; others become boxes.
    """
    image = Image.new("RGB", (width, LEGEND_ROW_HEIGHT * len(queries)))
    draw = ImageDraw.Draw(image)
    for query, text in enumerate(queries):
        words, font = fit_text(clean_text(text), width - 2 * TEXT_MARGIN)
        place = (width / 2, LEGEND_ROW_HEIGHT * query + LEGEND_ROW_HEIGHT / 2)
        draw.text(place, words, fill=QUERY_COLOURS[query], font=font, anchor="mm")
    return np.array(image)


def clean_text(text: str) -> str:
    """On one line, letters without their accents, no signs that move the others."""
    signs = (sign for sign in normalize("NFKD", text) if not combining(sign))
    return " ".join("".join(sign if sign.isprintable() else " " for sign in signs).split())


def fit_text(text: str, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and the font in which it is as wide as that at most, cut off if need be."""
    for size in range(MAX_FONT_SIZE, MIN_FONT_SIZE - 1, -2):
        font = load_font(size)
        if font.getlength(text) <= width:
            return text, font
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS, font


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; Internal where Pillow was built without FreeType."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise Internal("Pillow was built without FreeType")
    return font

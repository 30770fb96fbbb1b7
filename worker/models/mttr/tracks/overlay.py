"""The film with the masks drawn over it, under a legend of the queries, as the published pipeline draws them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from unicodedata import combining, normalize

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.errors import Internal
from shared.values.tracks import COLOURS, Colour, TrackFrame
from worker.models.mttr.tracks.masks import decoded
from worker.video.transform import Picture

BLEND = 0.7
"""Part of the colour in a pixel of a mask; the rest is the film."""

STRIP = 36
"""Rows of the legend for each query."""

LARGEST, SMALLEST = 24, 12
"""Sizes of its text, in pixels: as large as fits; what does not fit at the smallest is cut off."""

MARGIN = 8
"""Pixels free at each end of a text."""

CUT = "..."


def overlaid(pictures: Iterable[Picture], frames: Iterable[TrackFrame], queries: Sequence[str]) -> Iterator[Picture]:
    """Each picture under the legend, with the masks of its frame.

    Args:
        pictures: RGB as shown, in order.
        frames: a line for each of them and each query, in the order of the file.
        queries: the texts.

    Raises:
        Internal: there are not as many pictures as frames with masks.
    """
    strip: Picture | None = None
    tracks = groupby(frames, lambda each: each.frame)
    for picture in pictures:
        _, group = next(tracks, (None, None))
        if group is None:
            raise Internal("the film gave more frames than before")
        if strip is None:
            strip = legend(queries, picture.shape[1])
        yield np.concatenate([strip, drawn(picture, group)])
    if next(tracks, None) is not None:
        raise Internal("the film gave fewer frames than before")


def drawn(picture: Picture, masks: Iterable[TrackFrame]) -> Picture:
    """A copy of a picture with masks blended into it, one after the other."""
    made = picture.copy()
    for each in masks:
        if each.box is not None:
            left, top, wide, high = each.box
            inside = (slice(top, top + high), slice(left, left + wide))
            blend(made[inside], decoded(each.mask)[inside], COLOURS[each.query])
    return made


def blend(picture: Picture, mask: Picture, colour: Colour) -> None:
    """Blend a colour into a picture where the mask is 1, in place."""
    cv2.copyTo(cv2.LUT(picture, blended(colour)), np.ascontiguousarray(mask), picture)


@cache
def blended(colour: Colour) -> Picture:
    """What each value of red, green and blue becomes under that colour: (256, 1, 3)."""
    values = np.arange(256)[:, None, None] * (1 - BLEND) + np.array(colour) * BLEND
    return values.round().astype(np.uint8)


def legend(queries: Sequence[str], width: int) -> Picture:
    """A black strip for each query with its text in its colour, centred: (36 Q, width, 3).

    The letters are those of Pillow's own font, which has those of English; others become boxes.
    """
    image = Image.new("RGB", (width, STRIP * len(queries)))
    draw = ImageDraw.Draw(image)
    for query, text in enumerate(queries):
        words, font = fitted(printable(text), width - 2 * MARGIN)
        place = (width / 2, STRIP * query + STRIP / 2)
        draw.text(place, words, fill=COLOURS[query], font=font, anchor="mm")
    return np.array(image)


def printable(text: str) -> str:
    """On one line, letters without their accents, no signs that move the others."""
    signs = (sign for sign in normalize("NFKD", text) if not combining(sign))
    return " ".join("".join(sign if sign.isprintable() else " " for sign in signs).split())


def fitted(text: str, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and the font in which it is as wide as that at most, cut off if need be."""
    for size in range(LARGEST, SMALLEST - 1, -2):
        font = lettering(size)
        if font.getlength(text) <= width:
            return text, font
    while text and font.getlength(text + CUT) > width:
        text = text[:-1]
    return text + CUT, font


def lettering(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font; Internal where Pillow was built without FreeType."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise Internal("Pillow was built without FreeType")
    return font

"""From the network's numbers to masks at the size of the film, as published (Botach et al., CVPR 2022, and its code).

Logits are brought to the size that the network saw (bilinear, padding included), cut at a probability of one half,
cropped to the picture, then brought to the size of the film by taking the nearest pixel.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
"""Height x width, 0 or 1; laid out column by column (Fortran), as COCO's run lengths are."""

Size = tuple[int, int]
"""Height and width in pixels."""

CATEGORY = 1
"""The one category of a referred object in COCO's form."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a mask goes through.

    Args:
        padded: of the network's input, with the padding of its batch.
        seen: of the picture in it.
        shown: of the film.
    """

    padded: Size
    seen: Size
    shown: Size


def trajectory_scores(referred_TN: Floats) -> Floats:
    """How well each instance fits the query over a window: the mean of its probability over the frames, (N,)."""
    scores_N: Floats = referred_TN.mean(axis=0, dtype=np.float32)
    return scores_N


def mask(logits_hw: Floats, sizes: Sizes) -> Mask:
    """One mask at the size of the film.

    A probability (sigmoid) above one half is a logit above zero.
    """
    high, wide = sizes.padded
    grown_HW = cv2.resize(logits_hw, (wide, high), interpolation=cv2.INTER_LINEAR)
    seen_WH = np.ascontiguousarray((grown_HW[: sizes.seen[0], : sizes.seen[1]] > 0).T)
    rows, columns = (nearest(one, other) for one, other in zip(sizes.seen, sizes.shown, strict=True))
    return seen_WH.take(rows, axis=1).take(columns, axis=0).view(np.uint8).T


def nearest(given: int, wanted: int) -> npt.NDArray[np.intp]:
    """Which of `given` pixels each of `wanted` takes, by torch's `nearest` (in float32, as there): (wanted,)."""
    if given == wanted:
        return np.arange(wanted)
    step = np.float32(given) / np.float32(wanted)
    return np.minimum((np.arange(wanted, dtype=np.float32) * step).astype(np.intp), given - 1)


def encoded(mask_HW: Mask) -> dict[str, Any]:
    """A mask as COCO RLE: `size` and `counts`, both fit for JSON."""
    found = coco.encode(mask_HW)
    return {"size": [int(length) for length in found["size"]], "counts": found["counts"].decode("ascii")}


def decoded(rle: Mapping[str, Any]) -> Mask:
    """Inverse of `encoded`."""
    with warnings.catch_warnings():
        # pycocotools 2.0.11 has its own arrays, which NumPy 2 asks for a keyword that they do not know yet.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        made: Mask = coco.decode(dict(rle))
    return made


def area(rle: Mapping[str, Any]) -> int:
    """Pixels of a mask."""
    return int(coco.area(dict(rle)))


def box(rle: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """The smallest box around a mask: (x, y, width, height) in pixels, as COCO has it; None around nothing."""
    left, top, wide, high = (int(length) for length in coco.toBbox(dict(rle)))
    return (left, top, wide, high) if wide and high else None


def predictions(image: int | str, referred_N: Floats, logits_Nhw: Floats, sizes: Sizes) -> Sequence[dict[str, Any]]:
    """All instances of one annotated frame, each with its own score: what A2D-Sentences and JHMDB are evaluated on.

    Args:
        image: id of the frame in the annotations.
        referred_N: probability that the query refers to each.
        logits_Nhw: mask of each before the sigmoid.
        sizes: of the network's input, the picture in it, and the annotations.

    Returns:
        Detections in COCO's form: `image_id`, `category_id` (always 1), `segmentation` (RLE), `score`.
    """
    return [
        {"image_id": image, "category_id": CATEGORY, "segmentation": encoded(mask(logits_hw, sizes)), "score": score}
        for score, logits_hw in zip(referred_N.tolist(), logits_Nhw, strict=True)
    ]

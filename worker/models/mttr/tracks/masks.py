"""From mask logits to masks at the size of the video, as published (Botach et al., CVPR 2022, and its code).

Logits are resized to the input size of the network (bilinear, padding included), cut at a probability of one half,
cropped to the frame, then resized to the video by the nearest pixel.
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

CATEGORY_ID = 1
"""The one category of a referred object in COCO's form."""


@dataclass(frozen=True, slots=True)
class MaskSizes:
    """The sizes that a mask goes through.

    Args:
        padded: of the network's input, with the padding of its batch.
        unpadded: of the frame in it.
        video: of the video.
    """

    padded: Size
    unpadded: Size
    video: Size


def trajectory_scores(referred_TN: Floats) -> Floats:
    """How well each instance fits the query over a window: the mean of its probability over the frames, (N,)."""
    scores_N: Floats = referred_TN.mean(axis=0, dtype=np.float32)
    return scores_N


def upscale_mask(logits_hw: Floats, sizes: MaskSizes) -> Mask:
    """Upscale one mask to the size of the video.

    A probability (sigmoid) above one half is a logit above zero.
    """
    high, wide = sizes.padded
    resized_HW = cv2.resize(logits_hw, (wide, high), interpolation=cv2.INTER_LINEAR)
    cropped_WH = np.ascontiguousarray((resized_HW[: sizes.unpadded[0], : sizes.unpadded[1]] > 0).T)
    rows, columns = (
        nearest_indices(source, target) for source, target in zip(sizes.unpadded, sizes.video, strict=True)
    )
    return cropped_WH.take(rows, axis=1).take(columns, axis=0).view(np.uint8).T


def nearest_indices(source: int, target: int) -> npt.NDArray[np.intp]:
    """Index of the source pixel for each target pixel by torch's `nearest` rule, in float32 as there: (target,)."""
    if source == target:
        return np.arange(target)
    step = np.float32(source) / np.float32(target)
    return np.minimum((np.arange(target, dtype=np.float32) * step).astype(np.intp), source - 1)


def encode_rle(mask_HW: Mask) -> dict[str, Any]:
    """A mask as COCO RLE: `size` and `counts`, both fit for JSON."""
    rle = coco.encode(mask_HW)
    return {"size": [int(length) for length in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> Mask:
    """Inverse of `encode_rle`."""
    with warnings.catch_warnings():
        # pycocotools 2.0.11 has its own arrays, which NumPy 2 asks for a keyword that they do not know yet.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        mask_HW: Mask = coco.decode(dict(rle))
    return mask_HW


def mask_area(rle: Mapping[str, Any]) -> int:
    """Pixels of a mask."""
    return int(coco.area(dict(rle)))


def bounding_box(rle: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """The smallest box around a mask: (x, y, width, height) in pixels, as COCO has it; None around nothing."""
    left, top, wide, high = (int(length) for length in coco.toBbox(dict(rle)))
    return (left, top, wide, high) if wide and high else None


def coco_predictions(
    image: int | str, referred_N: Floats, logits_Nhw: Floats, sizes: MaskSizes
) -> Sequence[dict[str, Any]]:
    """All instances of one annotated frame, each with its own score: what A2D-Sentences and JHMDB are evaluated on.

    Args:
        image: id of the frame in the annotations.
        referred_N: probability that the query refers to each.
        logits_Nhw: mask of each before the sigmoid.
        sizes: of the network's input, the image in it, and the annotations.

    Returns:
        Detections in COCO's form: `image_id`, `category_id` (always 1), `segmentation` (RLE), `score`.
    """
    return [
        {
            "image_id": image,
            "category_id": CATEGORY_ID,
            "segmentation": encode_rle(upscale_mask(logits_hw, sizes)),
            "score": score,
        }
        for score, logits_hw in zip(referred_N.tolist(), logits_Nhw, strict=True)
    ]

"""Metrics of object masks: J and F of DAVIS, and those reported for sentences on A2D and JHMDB.

J is the overlap of regions, F that of their outlines (Perazzi et al., CVPR 2016, section 4); Refer-YouTube-VOS reports
the mean of both over all frames. A2D-Sentences ranks all masks of a frame by their scores (average precision as COCO
has it) and looks at the best one (Gavrilyuk et al., CVPR 2018, section 5).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import distance_transform_edt

Mask = npt.NDArray[np.bool_ | np.uint8]
"""H x W: pixels that are not 0 belong to the object."""

BOUNDARY_TOLERANCE = 0.008
"""Largest distance at which outlines match, as a part of the image's diagonal (DAVIS)."""

IOU_EPSILON = 1e-6
"""Added to numerator and denominator of the overlap of a best mask (MTTR)."""

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Overlaps above which a best mask counts as correct."""

COCO_NAMES = ("mAP 0.5:0.95", "AP 0.5", "AP 0.75", "AP 0.5:0.95 S", "AP 0.5:0.95 M", "AP 0.5:0.95 L")
"""MTTR's names of the first six numbers of a COCO evaluation; the last three are by the size of the object."""


class Rle(TypedDict):
    """A mask as COCO's run-length encoding: column by column, compressed."""

    size: list[int]
    counts: str | bytes


# Regions and outlines -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RegionBoundaryScores:
    """Means over the frames of one object.

    Args:
        j: overlap of the regions.
        f: agreement of the outlines.
    """

    j: float
    f: float

    @property
    def jf(self) -> float:
        """J&F, their mean."""
        return (self.j + self.f) / 2


def score_masks(truth: Sequence[Mask], predicted: Sequence[Mask]) -> RegionBoundaryScores:
    """Compute J and F for an object, over all frames. ValueError without frames, or if their numbers differ."""
    pairs = list(zip(truth, predicted, strict=True))
    if not pairs:
        raise ValueError("There is no frame to score.")
    return RegionBoundaryScores(
        float(np.mean([region_j(*pair) for pair in pairs])), float(np.mean([boundary_f(*p) for p in pairs]))
    )


def region_j(truth_HW: Mask, predicted_HW: Mask) -> float:
    """Intersection over union of the areas; 1 if both are empty."""
    truth, predicted = _check_pair(truth_HW, predicted_HW)
    union = int((truth | predicted).sum())
    return int((truth & predicted).sum()) / union if union else 1.0


def boundary_f(truth_HW: Mask, predicted_HW: Mask, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Harmonic mean of the parts of either outline that lie near the other.

    Near is within `tolerance` times the diagonal, rounded up to whole pixels: the disk with which DAVIS dilates
    outlines. F of two masks without an outline is 1, of one with and one without it is 0. The edge of the image is not
    an outline.
    """
    truth, predicted = _check_pair(truth_HW, predicted_HW)
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    truth_edge, predicted_edge = mask_boundary(truth), mask_boundary(predicted)
    if not truth_edge.any() or not predicted_edge.any():
        return float(truth_edge.any() == predicted_edge.any())
    # DAVIS dilates the outline by a disk. A pixel is in the dilated outline exactly if the outline is no further away
    # than the radius, and one distance transform is faster than a dilation by a large disk.
    precision = float((distance_transform_edt(~truth_edge)[predicted_edge] <= radius).mean())
    recall = float((distance_transform_edt(~predicted_edge)[truth_edge] <= radius).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mask_boundary(mask_HW: Mask) -> npt.NDArray[np.bool_]:
    """Return (H, W): pixels that differ from the one right, below, or diagonally below; as DAVIS's `seg2bmap`."""
    inside = np.pad(mask_HW.astype(bool), ((0, 1), (0, 1)), mode="edge")
    here = inside[:-1, :-1]
    edge: npt.NDArray[np.bool_] = (here ^ inside[:-1, 1:]) | (here ^ inside[1:, :-1]) | (here ^ inside[1:, 1:])
    return edge


def _check_pair(truth_HW: Mask, predicted_HW: Mask) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    if truth_HW.ndim != 2 or truth_HW.shape != predicted_HW.shape:
        raise ValueError(f"Masks of {truth_HW.shape} and {predicted_HW.shape} are not of one image.")
    return truth_HW.astype(bool), predicted_HW.astype(bool)


# Sentences ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReferringSample:
    """One sentence about one frame.

    Args:
        truth: the mask of the object that is meant.
        masks: the masks that the model predicted.
        scores: of each mask, how sure the model is that this one is meant.

    Raises:
        ValueError: not as many scores as masks, a score that is not finite, or masks of several sizes.
    """

    truth: Rle
    masks: tuple[Rle, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.scores) or not all(map(math.isfinite, self.scores)):
            raise ValueError(f"{len(self.masks)} masks do not go with the scores {self.scores}.")
        if any(list(mask["size"]) != list(self.truth["size"]) for mask in self.masks):
            raise ValueError("The masks of a frame are not of one size.")

    def best_overlap(self) -> tuple[int, int]:
        """Return (intersection, union) of the truth and the mask with the highest score; no mask has area 0."""
        area = int(coco_mask.area(self.truth))
        if not self.masks:
            return 0, area
        mask = self.masks[int(np.argmax(self.scores))]
        common = int(coco_mask.area(coco_mask.merge([self.truth, mask], intersect=True)))
        return common, area + int(coco_mask.area(mask)) - common


def referring_metrics(samples: Sequence[ReferringSample]) -> dict[str, float]:
    """Compute what MTTR reports on A2D-Sentences and JHMDB-Sentences, with its names. ValueError without samples.

    `mAP` and `AP` are COCO's, over all masks, regardless of category (-1 if no object has that size). `P@K`: share of
    the samples whose best mask overlaps by strictly more than K, where overlap is (I + 1e-6) / (U + 1e-6), so that an
    overlap of exactly K counts. `mean_iou` is the mean of these overlaps, `overall_iou` the sum of I over the sum of U.
    """
    if not samples:
        raise ValueError("There is no sample to score.")
    areas_N2 = np.array([sample.best_overlap() for sample in samples], np.float64)
    overlap_N = (areas_N2[:, 0] + IOU_EPSILON) / (areas_N2[:, 1] + IOU_EPSILON)
    total_union = float(areas_N2[:, 1].sum())
    return {
        **_coco_metrics(samples),
        **{f"P@{threshold}": float((overlap_N > threshold).mean()) for threshold in IOU_THRESHOLDS},
        "overall_iou": float(areas_N2[:, 0].sum()) / total_union if total_union else 0.0,
        "mean_iou": float(overlap_N.mean()),
    }


def _coco_metrics(samples: Sequence[ReferringSample]) -> dict[str, float]:
    """Compute COCO's average precision of masks."""
    truth: list[tuple[int, Rle, dict[str, Any]]] = [(number, sample.truth, {}) for number, sample in enumerate(samples)]
    predicted: list[tuple[int, Rle, dict[str, Any]]] = [
        (number, mask, {"score": score})
        for number, sample in enumerate(samples)
        for mask, score in zip(sample.masks, sample.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        evaluation = COCOeval(_coco_dataset(samples, truth), _coco_dataset(samples, predicted), iouType="segm")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_NAMES, map(float, evaluation.stats[:6]), strict=True))


def _coco_dataset(samples: Sequence[ReferringSample], masks: Sequence[tuple[int, Rle, dict[str, Any]]]) -> COCO:
    """Build the input of pycocotools. Annotation numbers begin with 1: it takes 0 for "no match"."""
    data = COCO()
    data.dataset = {
        "images": [
            {"id": number, "height": sample.truth["size"][0], "width": sample.truth["size"][1]}
            for number, sample in enumerate(samples)
        ],
        "categories": [{"id": 1}],
        "annotations": [
            {
                "id": count,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": mask,
                **_mask_extent(mask),
                **extra,
            }
            for count, (number, mask, extra) in enumerate(masks, start=1)
        ],
    }
    data.createIndex()
    return data


def _mask_extent(mask: Rle) -> dict[str, Any]:
    return {"area": int(coco_mask.area(mask)), "bbox": coco_mask.toBbox(mask).tolist()}

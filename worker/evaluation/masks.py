"""How well objects were masked: J and F of DAVIS, and what is reported for sentences on A2D and JHMDB.

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
"""H x W: what is not 0 belongs to the object."""

BOUNDARY_TOLERANCE = 0.008
"""How far apart outlines may lie to match, as a part of the picture's diagonal (DAVIS)."""

IOU_EPSILON = 1e-6
"""In both parts of the overlap of a best mask (MTTR)."""

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Overlaps above which a best mask counts as right."""

COCO_NAMES = ("mAP 0.5:0.95", "AP 0.5", "AP 0.75", "AP 0.5:0.95 S", "AP 0.5:0.95 M", "AP 0.5:0.95 L")
"""The first six numbers of a COCO evaluation as MTTR calls them; the last three by the size of the object."""


class Rle(TypedDict):
    """A mask as COCO's run lengths: columns one after the other, compressed."""

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
    """J, F and their mean for an object, over all frames. ValueError without frames, or where numbers differ."""
    pairs = list(zip(truth, predicted, strict=True))
    if not pairs:
        raise ValueError("There is no frame to judge by.")
    return RegionBoundaryScores(
        float(np.mean([region_j(*pair) for pair in pairs])), float(np.mean([boundary_f(*p) for p in pairs]))
    )


def region_j(truth_HW: Mask, predicted_HW: Mask) -> float:
    """Area in common over area together; 1 where both are empty."""
    truth, predicted = _check_pair(truth_HW, predicted_HW)
    union = int((truth | predicted).sum())
    return int((truth & predicted).sum()) / union if union else 1.0


def boundary_f(truth_HW: Mask, predicted_HW: Mask, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Harmonic mean of how much of either outline lies near the other.

    Near is within `tolerance` times the diagonal, rounded up to whole pixels: the disk with which DAVIS widens outlines. Of
    two masks without an outline F is 1, of one with and one without it is 0. An outline on the picture's edge is none.
    """
    truth, predicted = _check_pair(truth_HW, predicted_HW)
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    truth_edge, predicted_edge = mask_boundary(truth), mask_boundary(predicted)
    if not truth_edge.any() or not predicted_edge.any():
        return float(truth_edge.any() == predicted_edge.any())
    # A pixel lies in the other outline widened by a disk exactly where that outline is no further than its radius.
    precision = float((distance_transform_edt(~truth_edge)[predicted_edge] <= radius).mean())
    recall = float((distance_transform_edt(~predicted_edge)[truth_edge] <= radius).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mask_boundary(mask_HW: Mask) -> npt.NDArray[np.bool_]:
    """(H, W): pixels that differ from the one to the right, below, or both; one pixel wide (DAVIS, `seg2bmap`)."""
    inside = np.pad(mask_HW.astype(bool), ((0, 1), (0, 1)), mode="edge")
    here = inside[:-1, :-1]
    edge: npt.NDArray[np.bool_] = (here ^ inside[:-1, 1:]) | (here ^ inside[1:, :-1]) | (here ^ inside[1:, 1:])
    return edge


def _check_pair(truth_HW: Mask, predicted_HW: Mask) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    if truth_HW.ndim != 2 or truth_HW.shape != predicted_HW.shape:
        raise ValueError(f"Masks of {truth_HW.shape} and {predicted_HW.shape} are not of one picture.")
    return truth_HW.astype(bool), predicted_HW.astype(bool)


# Sentences ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReferringSample:
    """One sentence about one frame.

    Args:
        truth: the mask of the object that is meant.
        masks: what the model masked.
        scores: of each of these, how sure it is that this one is meant.

    Raises:
        ValueError: not as many scores as masks, a score that is no number, or masks of several sizes.
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
        """(area in common, area together) of the truth and the mask of the highest score; no mask has no area."""
        area = int(coco_mask.area(self.truth))
        if not self.masks:
            return 0, area
        mask = self.masks[int(np.argmax(self.scores))]
        common = int(coco_mask.area(coco_mask.merge([self.truth, mask], intersect=True)))
        return common, area + int(coco_mask.area(mask)) - common


def referring_metrics(samples: Sequence[ReferringSample]) -> dict[str, float]:
    """What MTTR reports on A2D-Sentences and JHMDB-Sentences, under its names. ValueError without samples.

    `mAP` and `AP` are COCO's, over all masks, whatever their category (-1 where no object is of that size). `P@K`:
    share of the samples whose best mask overlaps by strictly more than K, where overlap is (I + 1e-6) / (U + 1e-6): one
    of exactly K counts. `mean_iou` is the mean of these overlaps, `overall_iou` all I together over all U together.
    """
    if not samples:
        raise ValueError("There is no sample to judge by.")
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
    """COCO's average precision of masks."""
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
    """Masks as pycocotools wants them: numbers of annotations begin with 1, as 0 means none to it."""
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

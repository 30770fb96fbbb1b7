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

NEAR = 0.008
"""How far apart outlines may lie to match, as a part of the picture's diagonal (DAVIS)."""

EPS = 1e-6
"""In both parts of the overlap of a best mask (MTTR)."""

AT = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Overlaps above which a best mask counts as right."""

COCO_NAMES = ("mAP 0.5:0.95", "AP 0.5", "AP 0.75", "AP 0.5:0.95 S", "AP 0.5:0.95 M", "AP 0.5:0.95 L")
"""The first six numbers of a COCO evaluation as MTTR calls them; the last three by the size of the object."""


class Rle(TypedDict):
    """A mask as COCO's run lengths: columns one after the other, compressed."""

    size: list[int]
    counts: str | bytes


# Regions and outlines -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
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


def judge(truth: Sequence[Mask], said: Sequence[Mask]) -> Judgement:
    """J, F and their mean for an object, over all frames. ValueError without frames, or where numbers differ."""
    pairs = list(zip(truth, said, strict=True))
    if not pairs:
        raise ValueError("There is no frame to judge by.")
    return Judgement(
        float(np.mean([region_j(*pair) for pair in pairs])), float(np.mean([boundary_f(*p) for p in pairs]))
    )


def region_j(truth_HW: Mask, said_HW: Mask) -> float:
    """Area in common over area together; 1 where both are empty."""
    true, said = _pair(truth_HW, said_HW)
    together = int((true | said).sum())
    return int((true & said).sum()) / together if together else 1.0


def boundary_f(truth_HW: Mask, said_HW: Mask, near: float = NEAR) -> float:
    """Harmonic mean of how much of either outline lies near the other.

    Near is within `near` times the diagonal, rounded up to whole pixels: the disk with which DAVIS widens outlines. Of
    two masks without an outline F is 1, of one with and one without it is 0. An outline on the picture's edge is none.
    """
    true, said = _pair(truth_HW, said_HW)
    reach = math.ceil(near * math.hypot(*true.shape))
    truth_edge, said_edge = boundary_of(true), boundary_of(said)
    if not truth_edge.any() or not said_edge.any():
        return float(truth_edge.any() == said_edge.any())
    # A pixel lies in the other outline widened by a disk exactly where that outline is no further than its radius.
    precision = float((distance_transform_edt(~truth_edge)[said_edge] <= reach).mean())
    recall = float((distance_transform_edt(~said_edge)[truth_edge] <= reach).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_of(mask_HW: Mask) -> npt.NDArray[np.bool_]:
    """(H, W): pixels that differ from the one to the right, below, or both; one pixel wide (DAVIS, `seg2bmap`)."""
    inside = np.pad(mask_HW.astype(bool), ((0, 1), (0, 1)), mode="edge")
    here = inside[:-1, :-1]
    edge: npt.NDArray[np.bool_] = (here ^ inside[:-1, 1:]) | (here ^ inside[1:, :-1]) | (here ^ inside[1:, 1:])
    return edge


def _pair(truth_HW: Mask, said_HW: Mask) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    if truth_HW.ndim != 2 or truth_HW.shape != said_HW.shape:
        raise ValueError(f"Masks of {truth_HW.shape} and {said_HW.shape} are not of one picture.")
    return truth_HW.astype(bool), said_HW.astype(bool)


# Sentences ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Referred:
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

    def best(self) -> tuple[int, int]:
        """(area in common, area together) of the truth and the mask of the highest score; no mask has no area."""
        area = int(coco_mask.area(self.truth))
        if not self.masks:
            return 0, area
        mask = self.masks[int(np.argmax(self.scores))]
        common = int(coco_mask.area(coco_mask.merge([self.truth, mask], intersect=True)))
        return common, area + int(coco_mask.area(mask)) - common


def referred(samples: Sequence[Referred]) -> dict[str, float]:
    """What MTTR reports on A2D-Sentences and JHMDB-Sentences, under its names. ValueError without samples.

    `mAP` and `AP` are COCO's, over all masks, whatever their category (-1 where no object is of that size). `P@K`:
    share of the samples whose best mask overlaps by strictly more than K, where overlap is (I + 1e-6) / (U + 1e-6): one
    of exactly K counts. `mean_iou` is the mean of these overlaps, `overall_iou` all I together over all U together.
    """
    if not samples:
        raise ValueError("There is no sample to judge by.")
    areas_N2 = np.array([sample.best() for sample in samples], np.float64)
    overlap_N = (areas_N2[:, 0] + EPS) / (areas_N2[:, 1] + EPS)
    together = float(areas_N2[:, 1].sum())
    return {
        **_coco(samples),
        **{f"P@{at}": float((overlap_N > at).mean()) for at in AT},
        "overall_iou": float(areas_N2[:, 0].sum()) / together if together else 0.0,
        "mean_iou": float(overlap_N.mean()),
    }


def _coco(samples: Sequence[Referred]) -> dict[str, float]:
    """COCO's average precision of masks."""
    truth: list[tuple[int, Rle, dict[str, Any]]] = [(number, sample.truth, {}) for number, sample in enumerate(samples)]
    found: list[tuple[int, Rle, dict[str, Any]]] = [
        (number, mask, {"score": score})
        for number, sample in enumerate(samples)
        for mask, score in zip(sample.masks, sample.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        judged = COCOeval(_dataset(samples, truth), _dataset(samples, found), iouType="segm")
        judged.params.useCats = 0
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return dict(zip(COCO_NAMES, map(float, judged.stats[:6]), strict=True))


def _dataset(samples: Sequence[Referred], masks: Sequence[tuple[int, Rle, dict[str, Any]]]) -> COCO:
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
                **_extent(mask),
                **more,
            }
            for count, (number, mask, more) in enumerate(masks, start=1)
        ],
    }
    data.createIndex()
    return data


def _extent(mask: Rle) -> dict[str, Any]:
    return {"area": int(coco_mask.area(mask)), "bbox": coco_mask.toBbox(mask).tolist()}

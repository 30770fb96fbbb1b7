"""Which of the 50 instances of a window a query means, and whether that is what was followed before.

As published each window chooses for itself: the instance with the best score. Nothing then says that the windows of a
video follow one thing. Windows share frames (24 long, 18 apart: 6), so what was followed can be looked for among the
instances of the next window: those whose masks overlap it by at least one half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.models.mttr.tracks.masks import trajectory_scores
from worker.models.mttr.tracks.window_prediction import WindowPrediction, compute_mask_logits

Bools = npt.NDArray[np.bool_]

SAME_INSTANCE_IOU = 0.5
"""Overlap from which an instance continues what was followed: intersection over union of the masks of all shared frames
together, at a quarter of the size. One half is the usual bound of a detection (PASCAL VOC)."""


@dataclass(frozen=True, slots=True)
class InstanceChoice:
    """What a window follows.

    Args:
        instance: its number in the window.
        switched: whether it is not what the window before followed, as far as the shared frames tell.
    """

    instance: int
    switched: bool


def choose_instance(prediction: WindowPrediction, previous_Thw: Bools | None, link: bool) -> InstanceChoice:
    """The instance that this window follows.

    With `link`: the best score among those that continue what was followed; where none does, the best score of all, as
    without it. So linking differs from the published choice only where that would leave what was followed.

    Args:
        prediction: of this window.
        previous_Thw: what the window before followed, in the first T frames of this one; None for the first window.
        link: whether to look for it.
    """
    scores_N = trajectory_scores(prediction.referred_TN)
    best = int(scores_N.argmax())
    if previous_Thw is None:
        return InstanceChoice(best, switched=False)
    if link:
        ious = [mask_iou(prediction, instance, previous_Thw) for instance in range(len(scores_N))]
        matches_N = np.array([iou is not None and iou >= SAME_INSTANCE_IOU for iou in ious])
        if matches_N.any():
            return InstanceChoice(int(np.where(matches_N, scores_N, -np.inf).argmax()), switched=False)
    iou = mask_iou(prediction, best, previous_Thw)
    return InstanceChoice(best, switched=iou is not None and iou < SAME_INSTANCE_IOU)


def mask_iou(prediction: WindowPrediction, instance: int, previous_Thw: Bools) -> float | None:
    """Intersection over union of an instance with what was followed; None where both are empty."""
    masks_Thw = binary_masks(prediction, instance, 0, len(previous_Thw))
    union = np.count_nonzero(masks_Thw | previous_Thw)
    return np.count_nonzero(masks_Thw & previous_Thw) / union if union else None


def binary_masks(prediction: WindowPrediction, instance: int, start: int, stop: int) -> Bools:
    """The mask of an instance in frames `start` to `stop` of its window, at a quarter of the size."""
    return compute_mask_logits(prediction.kernels_TNK[start:stop, instance], prediction.features_TKhw[start:stop]) > 0

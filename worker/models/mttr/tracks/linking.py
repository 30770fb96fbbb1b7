"""Which of the 50 instances of a window a query means, and whether that is what was followed before.

As published each window chooses for itself: the instance with the best score. Nothing then says that the windows of a
film follow one thing. Windows share frames (24 long, 18 apart: 6), so what was followed can be looked for among the
instances of the next window: those whose masks overlap it by at least one half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.models.mttr.answer import Answer, mask_logits
from worker.models.mttr.tracks.masks import trajectory_scores

Bools = npt.NDArray[np.bool_]

SAME = 0.5
"""Overlap from which an instance continues what was followed: intersection over union of the masks of all shared frames
together, at a quarter of the size. One half is the usual bound of a detection (PASCAL VOC)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a window follows.

    Args:
        instance: its number in the window.
        switched: whether it is not what the window before followed, as far as the shared frames tell.
    """

    instance: int
    switched: bool


def choose(answer: Answer, followed_Thw: Bools | None, link: bool) -> Choice:
    """The instance that this window follows.

    With `link`: the best score among those that continue what was followed; where none does, the best score of all, as
    without it. So linking differs from the published choice only where that would leave what was followed.

    Args:
        answer: of this window.
        followed_Thw: what the window before followed, in the first T frames of this one; None for the first window.
        link: whether to look for it.
    """
    scores_N = trajectory_scores(answer.referred_TN)
    best = int(scores_N.argmax())
    if followed_Thw is None:
        return Choice(best, switched=False)
    if link:
        overlaps = [overlap(answer, instance, followed_Thw) for instance in range(len(scores_N))]
        same_N = np.array([shared is not None and shared >= SAME for shared in overlaps])
        if same_N.any():
            return Choice(int(np.where(same_N, scores_N, -np.inf).argmax()), switched=False)
    shared = overlap(answer, best, followed_Thw)
    return Choice(best, switched=shared is not None and shared < SAME)


def overlap(answer: Answer, instance: int, followed_Thw: Bools) -> float | None:
    """Intersection over union of an instance with what was followed; None where both are empty."""
    mine_Thw = inside(answer, instance, 0, len(followed_Thw))
    union = np.count_nonzero(mine_Thw | followed_Thw)
    return np.count_nonzero(mine_Thw & followed_Thw) / union if union else None


def inside(answer: Answer, instance: int, start: int, stop: int) -> Bools:
    """The mask of an instance in frames `start` to `stop` of its window, at a quarter of the size."""
    return mask_logits(answer.kernels_TNK[start:stop, instance], answer.features_TKhw[start:stop]) > 0

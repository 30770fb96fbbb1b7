"""Colour differences between consecutive frames, for the LGSS rule (SceneSeg, CVPR 2020)."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from cv2.typing import MatLike

from worker.models.shots.config import COLOUR_RULE, ColourRule

BGR_TO_HSV, BGR_TO_LUV = cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Luv


def frame_differences(frames_THWC: npt.NDArray[np.uint8], rule: ColourRule = COLOUR_RULE) -> npt.NDArray[np.float32]:
    """Compute d_hsv and d_luv of each frame against the one before it.

    Converting to Luv takes five times as long as converting to HSV, and the rule asks for it in few frames only.

    Args:
        frames_THWC: BGR uint8.
        rule: what the numbers are for.

    Returns:
        (T - 1, 2) float32; d_luv is 0 where d_hsv alone decides.
    """
    hsv = [cv2.cvtColor(frame_HWC, BGR_TO_HSV) for frame_HWC in frames_THWC]
    result = np.zeros((len(frames_THWC) - 1, 2), np.float32)
    for t, (before, after) in enumerate(pairwise(hsv)):
        result[t, 0] = mean_difference(before, after)
        if rule.needs_luv(float(result[t, 0])):
            luv = [cv2.cvtColor(frame_HWC, BGR_TO_LUV) for frame_HWC in frames_THWC[t : t + 2]]
            result[t, 1] = mean_difference(luv[0], luv[1])
    return result


def mean_difference(first_HWC: MatLike, second_HWC: MatLike) -> float:
    """Mean absolute difference over all pixels and channels, in levels.

    Hue is compared as the number it is, not as an angle: the published detector does so.
    """
    return cv2.norm(first_HWC, second_HWC, cv2.NORM_L1) / first_HWC.size

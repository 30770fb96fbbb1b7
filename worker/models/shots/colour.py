"""How much the colours change from frame to frame: the numbers behind the LGSS rule (SceneSeg, CVPR 2020)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SPACES = (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Luv)


def differences(frames_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Mean absolute difference of each frame to the one before it, in two colour spaces.

    Hue is compared as the number it is, not as an angle: the published detector does so.

    Args:
        frames_THWC: BGR uint8.

    Returns:
        (T - 1, 2) float32: d_hsv and d_luv in levels of 8-bit HSV and Luv, mean of the three channels.
    """
    return np.stack(
        [channel_differences(frames_THWC, space).mean(axis=1) for space in SPACES], axis=1, dtype=np.float32
    )


def channel_differences(frames_THWC: npt.NDArray[np.uint8], space: int) -> npt.NDArray[np.float64]:
    """The same for each channel of one colour space (a `cv2.COLOR_*` code): (T - 1, 3)."""
    times, height, width, _ = frames_THWC.shape
    column = cv2.cvtColor(np.ascontiguousarray(frames_THWC).reshape(times * height, width, 3), space)
    change = cv2.absdiff(column[height:], column[:-height])
    return np.array([cv2.mean(change[top : top + height])[:3] for top in range(0, len(change), height)])

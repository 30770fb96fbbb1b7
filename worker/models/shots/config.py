"""Constants of `shots`: the architecture, its windows, and the rule of the colour detector."""

from __future__ import annotations

from dataclasses import dataclass

from worker.runtime.placement import Placement
from worker.video.windows import WindowSpec


@dataclass(frozen=True, slots=True)
class Architecture:
    """TransNet V2 as published (arXiv:2008.04838, section 3).

    Args:
        height, width: size of the images it sees.
        filters: filters of the first stack; each next stack has twice as many.
        stacks: stacks of dilated blocks; each halves height and width.
        blocks: dilated blocks in a stack.
        dilations: steps in time of the parallel convolutions of a block.
        lookup: frames that a frame is compared with, itself in the middle.
        similarity: width of the features compared, and of what each comparison yields.
        levels: grey levels told apart per channel in colour histograms.
        hidden: width of the layer before the heads.
    """

    height: int = 27
    width: int = 48
    filters: int = 16
    stacks: int = 3
    blocks: int = 2
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    lookup: int = 101
    similarity: int = 128
    levels: int = 8
    hidden: int = 1024

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels after each stack."""
        return tuple(self.filters * 2**stack * len(self.dilations) for stack in range(self.stacks))

    @property
    def cells(self) -> int:
        """Cells of the map after the last stack."""
        return (self.height >> self.stacks) * (self.width >> self.stacks)


@dataclass(frozen=True, slots=True)
class ColourRule:
    """The rule when two consecutive frames are a cut: LGSS (CVPR 2020), the detector of the BaSSL pipeline.

    With d_hsv and d_luv the mean absolute differences of the pixels (8-bit HSV and Luv, mean of the channels), it is a
    cut if d_hsv >= threshold + gap, or if d_hsv >= threshold and d_luv + slope * (d_hsv - threshold) > luv_threshold.
    """

    threshold: float = 20.0
    gap: float = 10.0
    luv_threshold: float = 20.0
    slope: float = 5.0

    def needs_luv(self, d_hsv: float) -> bool:
        """Tell whether d_hsv leaves the decision to d_luv."""
        return self.threshold <= d_hsv < self.threshold + self.gap

    def is_cut(self, d_hsv: float, d_luv: float) -> bool:
        """Apply the rule to one pair of frames."""
        if self.needs_luv(d_hsv):
            return d_luv + self.slope * (d_hsv - self.threshold) > self.luv_threshold
        return d_hsv >= self.threshold + self.gap


ARCHITECTURE = Architecture()
COLOUR_RULE = ColourRule()

LEAD_FRAMES = 25
"""Frames of context on each side of the frames a window answers for, as published."""

PAPER_WINDOWS = WindowSpec(length=100, step=50, lead=LEAD_FRAMES)
"""Windows of the paper: every frame is computed twice."""

LONG_WINDOWS = WindowSpec(length=300, step=250, lead=LEAD_FRAMES)
"""Fewer frames computed twice, for the runtime where speed was requested: what it changes is measured in README.md."""

COLOUR_WINDOWS = WindowSpec(length=33, step=32, lead=1)
"""Each frame and the one before it; the lead costs one image in 33. Longer ones let go of frames later."""


def choose_windows(placement: Placement) -> WindowSpec:
    """Choose the windows of TransNet V2 for a placement."""
    return LONG_WINDOWS if placement.runtime == "openvino" else PAPER_WINDOWS

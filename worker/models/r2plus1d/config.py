"""Constants of the model: the shape of the networks, which frames a clip has, and what is seen of a frame."""

from __future__ import annotations

from dataclasses import dataclass

from worker.video.keyframes.loader import CenterCrop


@dataclass(frozen=True, slots=True)
class Architecture:
    """R(2+1)D-26 and R3D-26 as published with CMD (Huang et al., arXiv:2104.00862), by their released code.

    Args:
        depths: blocks of each of the four stages.
        widths: inner width of their blocks.
        expansion: channels that a block gives for each of its inner ones.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    expansion: int = 4

    @property
    def features(self) -> int:
        """Width of the pooled feature: 2048."""
        return self.widths[-1] * self.expansion


ARCHITECTURE = Architecture()


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames a clip is made of: `frames` of them, `stride` apart."""

    frames: int = 16
    stride: int = 4

    @property
    def frame_span(self) -> int:
        """Frames from the first to the last of a clip, both counted: 61."""
        return (self.frames - 1) * self.stride + 1


SAMPLING = Sampling()

CROP = CenterCrop(short_side=128, filter="bilinear", side=112, rounding="corner_down")
"""What the network sees of a frame: the published test transform."""

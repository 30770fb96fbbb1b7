"""Constants of `scrl`: the architecture, windows of shots, and how keyframes are prepared."""

from __future__ import annotations

from dataclasses import dataclass

from worker.video.keyframes.loader import CenterCrop


@dataclass(frozen=True, slots=True)
class Architecture:
    """SCRL as published (Wu et al., CVPR 2022, and the released code).

    Args:
        features: width of a shot's feature, as ResNet-50 gives it.
        embedded: width after the first linear layer.
        hidden: units of the LSTM in each direction, and width before the last layer.
        layers: of the LSTM.
        input_dropout, lstm_dropout, fc_dropout: in training.
    """

    features: int = 2048
    embedded: int = 1024
    hidden: int = 512
    layers: int = 2
    input_dropout: float = 0.2
    lstm_dropout: float = 0.6
    fc_dropout: float = 0.7


@dataclass(frozen=True, slots=True)
class SlidingWindows:
    """How the shots of a video are grouped into windows (released evaluation code).

    Args:
        length: shots in a window.
        step: from one window to the next, and shots that a window answers for.
        lead: shots before those; as many copies of the video's first shot come before it, and of its last after it.
    """

    length: int = 40
    step: int = 20
    lead: int = 10

    def padded_length(self, shots: int) -> int:
        """Shots with the copies on both sides: the next multiple of `step`."""
        return -(-(shots + 2 * self.lead) // self.step) * self.step


ARCHITECTURE = Architecture()
SLIDING_WINDOWS = SlidingWindows()

KEYFRAMES_PER_SHOT = 3
"""Keyframes of a shot: one image of nine channels."""

CROP = CenterCrop(short_side=224, filter="bilinear", side=224)
"""What the encoder sees of a keyframe: the published extraction transform."""

WINDOWS_PER_BATCH = 64
"""Windows of shots that go through the boundary network together."""

"""Constants of `clip_it`: the architecture, how frames are prepared, and the rules of segments and summary."""

from __future__ import annotations

from dataclasses import dataclass

from worker.video.keyframes.loader import CenterCrop


@dataclass(frozen=True, slots=True)
class Architecture:
    """CLIP-It as published on ModelScope.

    Args:
        width: of a frame's feature, and of a token.
        sentences: how many guide a summary.
        layers, heads: of encoder and decoder.
        guiding_heads: of the attention from frames to text.
        head: width of a head.
        intermediate: width between the two linear layers of a block.
        max_positions: sampled frames that the published table of positions has.
        dropout, head_dropout: in training, of the blocks and of what answers.
        eps: of the layer normalisations.
    """

    width: int = 512
    sentences: int = 7
    layers: int = 6
    heads: int = 8
    guiding_heads: int = 4
    head: int = 256
    intermediate: int = 2048
    max_positions: int = 4000
    dropout: float = 0.1
    head_dropout: float = 0.5
    eps: float = 1e-6

    @property
    def text_width(self) -> int:
        """Width of the text: all sentences side by side."""
        return self.sentences * self.width


ARCHITECTURE = Architecture()

CROP = CenterCrop(short_side=224, filter="bicubic", side=224)
"""What CLIP sees of a frame: the published transform."""


@dataclass(frozen=True, slots=True)
class SegmentationRule:
    """Kernel temporal segmentation (Potapov et al., ECCV 2014) as published.

    Args:
        max_change_points: change points at most.
        penalty: how much a change point costs; the published 2.2 / 4.
    """

    max_change_points: int = 120
    penalty: float = 0.55


SEGMENTATION_RULE = SegmentationRule()

POSTER_SHORT_SIDE = 720
"""Pixels of the short side of the poster; never enlarged."""


def default_batch_size(device: str) -> int:
    """Frames in a batch of CLIP."""
    return 8 if device == "cpu" else 64

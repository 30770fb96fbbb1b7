"""Constants of `mttr`: the architecture, windows, and how frames are prepared."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.networks.roberta import TOKEN_WIDTH
from worker.networks.video_swin import SwinShape
from worker.video.windows import WindowSpec


@dataclass(frozen=True, slots=True)
class Architecture:
    """MTTR as published (Botach et al., CVPR 2022, and the released configuration).

    Args:
        backbone: what looks at the video.
        text: width of what reads the query.
        hidden: width of a token in the transformer.
        heads, intermediate: of a layer.
        encoder, decoder: layers.
        instances: N, that are followed through a window.
        kernel: K, channels of a mask's features.
    """

    backbone: SwinShape = field(default_factory=SwinShape)
    text: int = TOKEN_WIDTH
    hidden: int = 256
    heads: int = 8
    intermediate: int = 2048
    encoder: int = 3
    decoder: int = 3
    instances: int = 50
    kernel: int = 8


ARCHITECTURE = Architecture()

WINDOWS = WindowSpec(24, 18, pad_end=False)
"""Frames of a window; each window begins 18 frames after the one before it."""

SHORT_SIDE, LONG_SIDE = 360, 640
"""Pixels of a frame: the short side is made this long, unless the long side would become longer than that."""

QUERY_CACHE_SIZE = 64
"""Encoded sentences that are cached, 10 kB each."""

CPU_FRAMES_PER_STEP = 4
"""Frames of a window that go through the transformer together on a CPU, where what lies between two layers then stays
in the cache; on a GPU all of them do."""

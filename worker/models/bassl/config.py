"""Constants of `bassl`: the architecture, and how keyframes are prepared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.video.keyframes.loader import CenterCrop

Pooling = Literal["center", "cls", "avg", "max"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """BaSSL as published (Mun et al., ACCV 2022, and the released configuration).

    Args:
        features: width of a shot's feature, as ResNet-50 gives it.
        neighbours: shots on each side of the one in question.
        hidden: width of a token.
        layers, heads: of the context network.
        intermediate: width between the two linear layers of a block.
        dropout: in training.
        eps: of the layer normalisations.
        pooling: which token answers. `center`: that of the shot in question; `cls`: the first; `avg`, `max`: over all
            shots.
    """

    features: int = 2048
    neighbours: int = 8
    hidden: int = 768
    layers: int = 2
    heads: int = 8
    intermediate: int = 3072
    dropout: float = 0.1
    eps: float = 1e-12
    pooling: Pooling = "center"

    @property
    def window_size(self) -> int:
        """Shots in a window: 17."""
        return 2 * self.neighbours + 1

    @property
    def token_count(self) -> int:
        """The shots of a window, and one token in front for the whole window: 18."""
        return self.window_size + 1


ARCHITECTURE = Architecture()

KEYFRAMES_PER_SHOT = 3
"""Keyframes of a shot; its feature is the mean of theirs."""

CROP = CenterCrop(short_side=256, filter="bicubic", side=224)
"""What the encoder sees of a keyframe: the published test transform."""

WINDOWS_PER_BATCH = 64
"""Windows of shots that go through the context network together: 100 MB of activations."""

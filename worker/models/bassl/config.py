"""Constants of the room: the shape of BaSSL, what it sees of a keyframe, and its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from shared.catalog import Params, WeightsSpec
from worker.video.keyframes import Crop

Pooling = Literal["center", "cls", "avg", "max"]


class BasslParams(Params):
    """Parameters of `bassl`."""

    threshold: float = Field(
        0.8, gt=0, lt=1, description="Probability above which a shot is the last of its scene; regrouping is instant."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the picture encoder. auto: bf16 where the worker's hardware has it. "
        "fp32: the published numbers.",
    )
    split_scenes: bool = Field(False, description="Also yield each scene as an mp4 clip.")


@dataclass(frozen=True, slots=True)
class Architecture:
    """BaSSL as published (Mun et al., ACCV 2022, section 4.1 and supplement).

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
    def window(self) -> int:
        """Shots seen at a time: 17."""
        return 2 * self.neighbours + 1

    @property
    def tokens(self) -> int:
        """The shots, and one in front for the whole window: 18."""
        return self.window + 1


ARCHITECTURE = Architecture()

KEYFRAMES = 3
"""Keyframes of a shot; its feature is the mean of theirs."""

CROP = Crop(short_side=256, filter="bicubic", side=224)
"""What the encoder sees of a keyframe: the published test transform."""

WINDOWS = 64
"""Windows of shots that go through the context network together: 100 MB of activations."""

BATCH = 32
"""Pictures that go through the encoder together."""

WEIGHTS = WeightsSpec(
    name="bassl.safetensors",
    sha256=None,
    size=None,
    licence="Apache-2.0",
    origin="ModelScope damo/cv_resnet50-bert_video-scene-segmentation_movienet",
    how="sceneworks-worker weights pull bassl",
)

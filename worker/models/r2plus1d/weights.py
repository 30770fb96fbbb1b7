"""From the published file to R(2+1)D-26 in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from shared.catalog import MENU
from worker.encoders.containers import Shapes
from worker.encoders.placed import MEAN, STD, Placed
from worker.encoders.published import Published, Source, load_imported
from worker.encoders.weights import shapes
from worker.models.placement import Placement
from worker.models.r2plus1d.config import ARCHITECTURE, CROP, SAMPLING
from worker.models.r2plus1d.network import R2Plus1D

COUNTER = "num_batches_tracked"
"""What batch normalisation counts while it trains: of no use here, and not in every file."""


def load(folders: Sequence[Path], placement: Placement) -> Placed[R2Plus1D]:
    """The network in place.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.encoders.published`.
    """
    network = _empty()
    state = load_imported(PUBLISHED.spec, folders, expected(network))
    counters = {key: torch.tensor(0) for key in network.state_dict() if key.endswith(COUNTER)}
    network.load_state_dict(state | counters, strict=True, assign=True)
    return Placed.put(network, placement.device, placement.precision)


def expected(network: nn.Module) -> Shapes:
    """Name and shape of every tensor that serving needs."""
    return {key: shape for key, shape in shapes(network).items() if not key.endswith(COUNTER)}


def _empty() -> R2Plus1D:
    """The network without numbers: names and shapes, at no cost."""
    with torch.device("meta"):
        return R2Plus1D()


SPEC = MENU["r2plus1d"].weights
assert SPEC is not None
PUBLISHED = Published(
    spec=SPEC,
    sources=(
        Source(
            name="pytorch_model.pt",
            what="the pre-trained network, or a checkpoint of CMD's pre-training (epoch_N.pth)",
            # The whole network of pre-training holds two more backbones and the heads; a fine-tuned one classes.
            after="rgb_backbone.",
            wrapper="model.",  # ModelScope's trainer saves it so
            drop=(f"*{COUNTER}", "fc.*"),
        ),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={**asdict(CROP), **asdict(SAMPLING), "mean": MEAN, "std": STD},
    expected=lambda: expected(_empty()),
    repository="damo/cv_r2p1d_video_embedding",
)

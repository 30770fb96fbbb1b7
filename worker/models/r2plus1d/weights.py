"""Load R(2+1)D-26 from the published file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from shared.catalog import CATALOG
from worker.models.r2plus1d.config import ARCHITECTURE, CROP, SAMPLING
from worker.models.r2plus1d.network import R2Plus1D
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork
from worker.runtime.placement import Placement
from worker.weights import TensorFile, WeightsManifest, load_imported
from worker.weights.formats import Shapes
from worker.weights.pinned import state_shapes

COUNTER_SUFFIX = "num_batches_tracked"
"""What batch normalisation counts while it trains: of no use here, and not in every file."""


def load_network(folders: Sequence[Path], placement: Placement) -> DeviceNetwork[R2Plus1D]:
    """Load the network on its device.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.weights`.
    """
    network = _build_empty_network()
    state = load_imported(WEIGHTS_MANIFEST.spec, folders, expected_shapes(network))
    counters = {key: torch.tensor(0) for key in network.state_dict() if key.endswith(COUNTER_SUFFIX)}
    network.load_state_dict(state | counters, strict=True, assign=True)
    return DeviceNetwork.load_on(network, placement.device, placement.precision)


def expected_shapes(network: nn.Module) -> Shapes:
    """Name and shape of every tensor that serving needs."""
    return {key: shape for key, shape in state_shapes(network).items() if not key.endswith(COUNTER_SUFFIX)}


def _build_empty_network() -> R2Plus1D:
    """Build the network on the `meta` device: names and shapes without memory."""
    with torch.device("meta"):
        return R2Plus1D()


WEIGHTS_SPEC = CATALOG["r2plus1d"].weights
assert WEIGHTS_SPEC is not None
WEIGHTS_MANIFEST = WeightsManifest(
    spec=WEIGHTS_SPEC,
    tensor_files=(
        TensorFile(
            name="pytorch_model.pt",
            description="the pre-trained network, or a checkpoint of CMD's pre-training (epoch_N.pth)",
            # The whole network of pre-training holds two more backbones and the heads; a fine-tuned one classes.
            submodule_marker="rgb_backbone.",
            wrapper_prefix="model.",  # ModelScope's trainer saves it so
            drop_patterns=(f"*{COUNTER_SUFFIX}", "fc.*"),
        ),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={**asdict(CROP), **asdict(SAMPLING), "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    expected_shapes=lambda: expected_shapes(_build_empty_network()),
    repository="damo/cv_r2p1d_video_embedding",
)

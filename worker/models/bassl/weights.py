"""Load BaSSL from the published file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from shared.catalog import CATALOG
from worker.models.bassl.config import ARCHITECTURE, CROP
from worker.models.bassl.network import BaSSL
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork
from worker.runtime.placement import Placement
from worker.weights import TensorFile, WeightsManifest, load_imported
from worker.weights.pinned import state_shapes


def load_network(folders: Sequence[Path], placement: Placement) -> DeviceNetwork[BaSSL]:
    """Load the network on its device.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.weights`.
    """
    network = _build_empty_network()
    network.load_state_dict(
        load_imported(WEIGHTS_MANIFEST.spec, folders, state_shapes(network)), strict=True, assign=True
    )
    return DeviceNetwork.load_on(network, placement.device, placement.precision)


def _build_empty_network() -> BaSSL:
    """Build the network on the `meta` device: names and shapes without memory."""
    with torch.device("meta"):
        return BaSSL()


WEIGHTS_SPEC = CATALOG["bassl"].weights
assert WEIGHTS_SPEC is not None
WEIGHTS_MANIFEST = WeightsManifest(
    spec=WEIGHTS_SPEC,
    tensor_files=(
        TensorFile(
            name="pytorch_model.pt",
            description="the fine-tuned network",
            drop_patterns=("loss.*",),  # heads of pre-training, which upstream's own checkpoints still carry
        ),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={**asdict(CROP), "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    expected_shapes=lambda: state_shapes(_build_empty_network()),
    repository="damo/cv_resnet50-bert_video-scene-segmentation_movienet",
)

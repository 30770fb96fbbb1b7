"""Load SCRL from the two published files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from shared.catalog import CATALOG
from worker.models.scrl.config import ARCHITECTURE, CROP
from worker.models.scrl.network import SCRL
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork
from worker.runtime.placement import Placement
from worker.weights import TensorFile, WeightsManifest, load_imported
from worker.weights.pinned import state_shapes


def load_network(folders: Sequence[Path], placement: Placement) -> DeviceNetwork[SCRL]:
    """Load the network on its device.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.weights`.
    """
    network = _build_empty_network()
    network.load_state_dict(
        load_imported(WEIGHTS_MANIFEST.spec, folders, state_shapes(network)), strict=True, assign=True
    )
    return DeviceNetwork.load_on(network, placement.device, placement.precision)


def _build_empty_network() -> SCRL:
    """Build the network on the `meta` device: names and shapes without memory."""
    with torch.device("meta"):
        return SCRL()


WEIGHTS_SPEC = CATALOG["scrl"].weights
assert WEIGHTS_SPEC is not None
WEIGHTS_MANIFEST = WeightsManifest(
    spec=WEIGHTS_SPEC,
    tensor_files=(
        TensorFile(
            name="checkpoint.pth.tar",
            description="pre-training: the encoder of queries is the shot encoder",
            # The momentum encoder, its queue and the projection heads serve pre-training only.
            drop_patterns=("encoder_k.*", "queue", "queue_ptr", "encoder_q.fc.*", "fc.*"),
            strip_prefix="encoder_q.",
            add_prefix="encoder.",
        ),
        TensorFile(name="model_best.pth.tar", description="the boundary network (Bi-LSTM)", add_prefix="boundary."),
    ),
    architecture=asdict(ARCHITECTURE),
    preprocessing={**asdict(CROP), "keyframes": 3, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
    expected_shapes=lambda: state_shapes(_build_empty_network()),
)

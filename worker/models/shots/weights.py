"""Load TransNet V2 from the pinned file, to compute by torch or by OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import SHOTS
from worker.models.shots.network import TransNetV2
from worker.runtime.placement import Placement
from worker.video.windows import Frames
from worker.weights.pinned import load_state_strict, read_weights

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Detector(Protocol):
    """A network on its device."""

    def __call__(self, frames_BTHWC: Frames) -> npt.NDArray[np.float32]:
        """RGB uint8 (B, T, 27, 48, 3) -> (B, T): probability that a frame is in the middle of a transition."""


class TorchDetector:
    """TransNet V2 computed by torch.

    Args:
        load_torch_network: with its weights.
        device: where to compute.
    """

    def __init__(self, network: TransNetV2, device: str) -> None:
        self._network, self._device = network.to(device), torch.device(device)

    @torch.inference_mode()
    def __call__(self, frames_BTHWC: Frames) -> npt.NDArray[np.float32]:
        """As `Detector`."""
        logits_BTH = self._network(torch.from_numpy(frames_BTHWC).to(self._device))
        probabilities_BT: npt.NDArray[np.float32] = logits_BTH[..., 0].sigmoid().cpu().numpy()
        return probabilities_BT


def load_network(folders: Sequence[Path], placement: Placement) -> Detector:
    """Load the network on its device.

    Raises:
        WeightsMissing, WeightsCorrupt: as `worker.weights.pinned`.
        ModelUnavailable: OpenVINO was requested and is not installed, or computes something else.
    """
    if placement.runtime == "openvino":
        from worker.models.shots.openvino import OpenVinoDetector

        return OpenVinoDetector(load_torch_network(folders, "fp32"), placement)
    return TorchDetector(load_torch_network(folders, placement.precision), placement.device)


def load_torch_network(folders: Sequence[Path], precision: str) -> TransNetV2:
    """Build the torch module with the pinned weights."""
    assert SHOTS.weights is not None
    network = TransNetV2(precision=TORCH_DTYPES[precision])
    load_state_strict(network, read_weights(SHOTS.weights, folders), SHOTS.weights.name)
    return network

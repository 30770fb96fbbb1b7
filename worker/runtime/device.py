"""A network on its device, in its precision, and how frames are prepared for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shared.errors import ModelUnavailable

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the colours of ImageNet (red, green, blue in 0..1): ResNets are trained with them."""

NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class DeviceNetwork(Generic[NetworkT]):
    """A network on a device; build one with `DeviceNetwork.load_on`.

    Args:
        network: in evaluation mode, weights in float32 whatever the file had.
        device: where it computes.
        precision: of the placement, `fp32` or `bf16`.
    """

    network: NetworkT
    device: torch.device
    precision: str

    @classmethod
    def load_on(cls, network: NetworkT, device: str, precision: str) -> Self:
        """Move a network to a device, convolutions laid out channels last."""
        network.float().eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
            if isinstance(module, nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        return cls(network.to(device), torch.device(device), precision)

    @contextmanager
    def inference_context(self, requested: str = "fp32") -> Iterator[None]:
        """Compute without gradients, in the requested precision.

        Args:
            requested: `fp32`, `bf16`, or `auto` for that of the placement.

        Raises:
            ModelUnavailable: bf16 was requested and the placement computes in fp32.
        """
        bf16 = resolve_precision(requested, self.precision) == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            yield

    def normalise_frames(self, frames_BTHWC: npt.NDArray[np.uint8]) -> Tensor:
        """Normalise frames for a ResNet by `normalise_frames`, on the device."""
        return normalise_frames(torch.from_numpy(frames_BTHWC).to(self.device))


def default_batch_size(device: str) -> int:
    """Windows in a batch of a ResNet.

    Few on a CPU: activations between two layers then stay in the cache (8 instead of 32 took a quarter less CPU time).
    """
    return 8 if device == "cpu" else 64


def resolve_precision(requested: str, available: str) -> str:
    """Resolve the requested precision (`auto`, `fp32`, `bf16`) to `fp32` or `bf16`, by that of the placement.

    Raises:
        ModelUnavailable: bf16 was requested and the placement has fp32: never a silent fall back.
    """
    if requested == "auto":
        return available
    if requested == "bf16" != available:
        raise ModelUnavailable("bf16 was requested, and this worker computes in fp32.")
    return requested


def normalise_frames(
    frames_BTHWC: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Normalise RGB uint8 (B, T, H, W, 3) to float32 (B, T * 3, H, W) by mean and deviation; channels last in memory.

    The three colours of the first image of a window come first, then those of the second.
    """
    mean_C, std_C = (torch.tensor(values, device=frames_BTHWC.device) for values in (mean, std))
    x_BTHWC = frames_BTHWC.float().div_(255).sub_(mean_C).div_(std_C)
    windows, times, height, width, colours = x_BTHWC.shape
    x_BHWC = x_BTHWC.permute(0, 2, 3, 1, 4).reshape(windows, height, width, times * colours)
    return x_BHWC.permute(0, 3, 1, 2)

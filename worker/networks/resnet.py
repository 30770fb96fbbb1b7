"""ResNet-50 v1.5 (He et al., arXiv:1512.03385; the stride on the 3x3 convolution), with the published parameter names.

Shapes are in the names: N images, C channels, H x W pixels, D features. The names of the parameters are those of
torchvision's `resnet50`, and so is the order of the operations: the numbers agree to the last bit on the same kernels.
"""

from __future__ import annotations

from enum import StrEnum

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512)
"""Inner width of the blocks of each layer."""

DEPTHS = (3, 4, 6, 3)
"""Blocks in each layer."""

EXPANSION = 4
"""Channels that a block gives for each of its inner ones."""

FEATURE_WIDTH = WIDTHS[-1] * EXPANSION
"""Width of the pooled feature: 2048."""


class Head(StrEnum):
    """The layers behind the pooled feature, named `fc`.

    NONE: nothing. LINEAR: 2048 to 2048 (`fc`). MLP: 2048 to 2048, ReLU, 2048 to 2048 (`fc.0`, `fc.2`).
    """

    NONE = "none"
    LINEAR = "linear"
    MLP = "mlp"


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, each batch-normalised, around a shortcut (paper: figure 5, right)."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x_NCHW)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        return functional.relu(y, inplace=True)


class ResNet50(nn.Module):
    """The whole network.

    Args:
        channels: of a image; 9 for three RGB keyframes behind each other.
        head: what `forward` adds to the pooled feature.
    """

    def __init__(self, channels: int = 3, head: Head = Head.NONE) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        channels_in = WIDTHS[0]
        for number, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
            self.add_module(f"layer{number}", _make_layer(channels_in, width, depth, stride=1 if number == 1 else 2))
            channels_in = width * EXPANSION
        self.fc = _make_head(head)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Compute the feature behind the head: (N, channels, H, W) normalised images -> (N, 2048)."""
        y_ND = self.extract_features(x_NCHW)
        return y_ND if self.fc is None else self.fc(y_ND)

    def extract_features(self, x_NCHW: Tensor) -> Tensor:
        """Pool the feature over the image, without the head: (N, channels, H, W) normalised images -> (N, 2048)."""
        y = functional.relu(self.bn1(self.conv1(x_NCHW)), inplace=True)
        y = functional.max_pool2d(y, 3, 2, padding=1)
        for number in range(1, len(WIDTHS) + 1):
            y = self.get_submodule(f"layer{number}")(y)
        return functional.adaptive_avg_pool2d(y, 1).flatten(1)


def _make_layer(channels_in: int, width: int, depth: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(width * EXPANSION, width, 1) for _ in range(depth - 1))
    return nn.Sequential(Bottleneck(channels_in, width, stride), *rest)


def _make_head(head: Head) -> nn.Module | None:
    match head:
        case Head.NONE:
            return None
        case Head.LINEAR:
            return nn.Linear(FEATURE_WIDTH, FEATURE_WIDTH)
        case Head.MLP:
            return nn.Sequential(
                nn.Linear(FEATURE_WIDTH, FEATURE_WIDTH), nn.ReLU(), nn.Linear(FEATURE_WIDTH, FEATURE_WIDTH)
            )

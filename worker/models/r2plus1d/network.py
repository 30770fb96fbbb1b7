"""R(2+1)D-26 and its siblings R3D-26 and C3D, as in CMD (Huang et al., arXiv:2104.00862), with the published names.

R(2+1)D takes each convolution over time and space apart, into one over space and one over time with a non-linearity
between them (Tran et al., arXiv:1711.11248). Shapes are in the names: N clips, C channels, T times, H x W pixels,
D features.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from worker.models.r2plus1d.config import ARCHITECTURE, Architecture


def inner_channels(channels_in: int, channels_out: int, time: int, side: int) -> int:
    """Channels between the halves of a convolution that is taken apart, so that both have as many parameters as it.

    Args:
        channels_in, channels_out: of the whole convolution.
        time, side: its kernel, `time` x `side` x `side`.

    Source: Tran et al., arXiv:1711.11248, section 3.5.
    """
    space = side * side
    return time * space * channels_in * channels_out // (space * channels_in + time * channels_out)


def spatial_conv(channels_in: int, channels_out: int, side: int, stride: int) -> nn.Conv3d:
    """A convolution over height and width."""
    kernel, padding = (1, side, side), (0, side // 2, side // 2)
    return nn.Conv3d(channels_in, channels_out, kernel, (1, stride, stride), padding, bias=False)


def temporal_conv(channels_in: int, channels_out: int, stride: int) -> nn.Conv3d:
    """A convolution over three times."""
    return nn.Conv3d(channels_in, channels_out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)


class Bottleneck3d(nn.Module):
    """1x1x1, what a subclass puts in the middle (with the stride), 1x1x1, each batch-normalised, around a shortcut."""

    def __init__(self, channels_in: int, width: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(channels_out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Conv3d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(channels_out))

    def apply_middle(self, x_NCTHW: Tensor) -> Tensor:
        """(N, width, T, H, W) -> (N, width, T / stride, H / stride, W / stride)."""
        raise NotImplementedError

    def forward(self, x_NCTHW: Tensor) -> Tensor:
        """(N, channels_in, T, H, W) -> (N, channels_out, T / stride, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x_NCTHW)), inplace=True)
        y = self.bn3(self.conv3(self.apply_middle(y)))
        y += x_NCTHW if self.downsample is None else self.downsample(x_NCTHW)
        return functional.relu(y, inplace=True)


class SplitBottleneck3d(Bottleneck3d):
    """With 1x3x3 and 3x1x1 in the middle."""

    def __init__(self, channels_in: int, width: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_in, width, channels_out, stride)
        inner = inner_channels(width, width, time=3, side=3)
        self.conv2_s = spatial_conv(width, inner, 3, stride)
        self.bn2_s = nn.BatchNorm3d(inner)
        self.conv2_t = temporal_conv(inner, width, stride)
        self.bn2_t = nn.BatchNorm3d(width)

    def apply_middle(self, x_NCTHW: Tensor) -> Tensor:
        """As the parent says: space by `conv2_s`, time by `conv2_t`."""
        y = functional.relu(self.bn2_s(self.conv2_s(x_NCTHW)), inplace=True)
        return functional.relu(self.bn2_t(self.conv2_t(y)), inplace=True)


class FullBottleneck3d(Bottleneck3d):
    """With 3x3x3 in the middle."""

    def __init__(self, channels_in: int, width: int, channels_out: int, stride: int) -> None:
        super().__init__(channels_in, width, channels_out, stride)
        self.conv2 = nn.Conv3d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)

    def apply_middle(self, x_NCTHW: Tensor) -> Tensor:
        """As the parent says: time and space together."""
        return functional.relu(self.bn2(self.conv2(x_NCTHW)), inplace=True)


class VideoResNet(nn.Module):
    """A stem that a subclass gives, and four stages of bottlenecks of its kind.

    Args:
        shape: the architecture.
        block: the kind of bottleneck.
    """

    def __init__(self, shape: Architecture, block: type[Bottleneck3d]) -> None:
        super().__init__()
        channels_in = shape.widths[0]
        for number, (width, depth) in enumerate(zip(shape.widths, shape.depths, strict=True), start=1):
            stride, channels_out = (1 if number == 1 else 2), width * shape.expansion
            first = block(channels_in, width, channels_out, stride)
            rest = (block(channels_out, width, channels_out, 1) for _ in range(depth - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            channels_in = channels_out
        self.stage_count = len(shape.depths)

    def apply_stem(self, clips_NCTHW: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, 64, T, H / 2, W / 2)."""
        raise NotImplementedError

    def feature_maps(self, clips_NCTHW: Tensor) -> list[Tensor]:
        """What each of the four stages gives; for 3 x 16 x 112 x 112 the last is 2048 x 2 x 4 x 4."""
        y = functional.max_pool3d(self.apply_stem(clips_NCTHW), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        maps = []
        for number in range(1, self.stage_count + 1):
            y = self.get_submodule(f"layer{number}")(y)
            maps.append(y)
        return maps

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        """Normalised clips (N, 3, T, H, W) -> features (N, D), the mean over time and space."""
        return pool_features(self.feature_maps(clips_NCTHW)[-1])


class R2Plus1D(VideoResNet):
    """R(2+1)D-26, the published network: convolutions over space and over time by turns."""

    def __init__(self, shape: Architecture = ARCHITECTURE) -> None:
        super().__init__(shape, SplitBottleneck3d)
        inner, width = inner_channels(3, shape.widths[0], time=3, side=7), shape.widths[0]
        self.conv1_s = spatial_conv(3, inner, 7, 2)
        self.bn1_s = nn.BatchNorm3d(inner)
        self.conv1_t = temporal_conv(inner, width, 1)
        self.bn1_t = nn.BatchNorm3d(width)

    def apply_stem(self, clips_NCTHW: Tensor) -> Tensor:
        """As the parent says: space by `conv1_s`, time by `conv1_t`."""
        y = functional.relu(self.bn1_s(self.conv1_s(clips_NCTHW)), inplace=True)
        return functional.relu(self.bn1_t(self.conv1_t(y)), inplace=True)


class R3D(VideoResNet):
    """R3D-26: the same with whole convolutions over time and space. CMD trains it beside R(2+1)D."""

    def __init__(self, shape: Architecture = ARCHITECTURE) -> None:
        super().__init__(shape, FullBottleneck3d)
        self.conv1 = nn.Conv3d(3, shape.widths[0], (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(shape.widths[0])

    def apply_stem(self, clips_NCTHW: Tensor) -> Tensor:
        """As the parent says: time and space together."""
        return functional.relu(self.bn1(self.conv1(clips_NCTHW)), inplace=True)


class C3D(nn.Module):
    """C3D (Tran et al., arXiv:1412.0767) without its fully connected layers, batch-normalised, as CMD trains it."""

    LAYER_WIDTHS: ClassVar[dict[str, int]] = {
        "1": 64,
        "2": 128,
        "3a": 256,
        "3b": 256,
        "4a": 512,
        "4b": 512,
        "5a": 512,
        "5b": 512,
    }
    """Channels that each layer gives."""

    LAYER_POOLS: ClassVar[dict[str, tuple[int, int, int]]] = {
        "1": (1, 2, 2),
        "2": (2, 2, 2),
        "3b": (2, 2, 2),
        "4b": (2, 2, 2),
    }
    """Maximum taken after a layer: over so many times, rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        for (name, width), channels_in in zip(
            self.LAYER_WIDTHS.items(), (3, *self.LAYER_WIDTHS.values()), strict=False
        ):
            self.add_module(f"conv{name}", nn.Conv3d(channels_in, width, 3, padding=1))
            self.add_module(f"bn{name}", nn.BatchNorm3d(width))

    def feature_map(self, clips_NCTHW: Tensor) -> Tensor:
        """What the last layer gives: for 3 x 16 x 112 x 112 it is 512 x 2 x 7 x 7."""
        y = clips_NCTHW
        for name in self.LAYER_WIDTHS:
            y = self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(y))
            y = functional.relu(y, inplace=True)
            if name in self.LAYER_POOLS:
                y = functional.max_pool3d(y, self.LAYER_POOLS[name])
        return y

    def forward(self, clips_NCTHW: Tensor) -> Tensor:
        """Normalised clips (N, 3, T, H, W) -> features (N, 512)."""
        return pool_features(self.feature_map(clips_NCTHW))


def pool_features(map_NCTHW: Tensor) -> Tensor:
    """The mean over time and space: (N, C, T, H, W) -> (N, C)."""
    return functional.adaptive_avg_pool3d(map_NCTHW, 1).flatten(1)

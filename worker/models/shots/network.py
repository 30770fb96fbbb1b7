"""TransNet V2 (Souček and Lokoč 2020, arXiv:2008.04838) for inference, with the published parameter names.

Shapes are in the names: B windows, T frames, N = B * T images, H x W pixels, C channels, K frames looked up.

The published network is a stack of 3-D convolutions, each factorised into one over space and one over time. Here both
run as 2-D convolutions on one channels-last block of memory: (N, H, W, C) is read as N images for the first and,
without a copy, as B images of T x (H * W) pixels for the second. On a CPU that is 1.5 times as fast in fp32 as 3-D
convolutions in either layout of memory (README.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.models.shots.config import ARCHITECTURE, Architecture


class SeparableConvolution(nn.Module):
    """A convolution over space, then one over time with the given dilation (R(2+1)D, arXiv:1711.11248)."""

    def __init__(self, channels_in: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.layers = nn.ModuleList(
            [
                nn.Conv3d(channels_in, 2 * filters, (1, 3, 3), bias=False),
                nn.Conv3d(2 * filters, filters, (3, 1, 1), bias=False),
            ]
        )

    def forward(self, x_NCHW: Tensor, windows: int, gain_C: Tensor, bias_C: Tensor) -> Tensor:
        """Convolve and scale.

        Args:
            x_NCHW: images of all windows, channels last in memory.
            windows: B; frames of different windows do not mix.
            gain_C, bias_C: the affine map of the batch normalisation that follows.

        Returns:
            (B, C, T, H * W), channels last in memory.
        """
        space, time = self.layers[0].weight, self.layers[1].weight
        assert isinstance(space, Tensor) and isinstance(time, Tensor)
        y_NCHW = functional.conv2d(x_NCHW, space.squeeze(2).to(x_NCHW.dtype), padding=1)
        kernel = (time.squeeze(4) * gain_C.view(-1, 1, 1, 1)).to(x_NCHW.dtype)
        y_BCTP = to_time_layout(y_NCHW, windows)
        step = self.dilation
        return functional.conv2d(y_BCTP, kernel, bias_C.to(x_NCHW.dtype), padding=(step, 0), dilation=(step, 1))


class DilatedBlock(nn.Module):
    """Parallel separable convolutions with different dilations in time, batch-normalised (paper: DDCNN V2 cell)."""

    def __init__(self, channels_in: int, filters: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.names = [f"Conv3D_{dilation}" for dilation in dilations]
        for name, dilation in zip(self.names, dilations, strict=True):
            self.add_module(name, SeparableConvolution(channels_in, filters, dilation))
        self.bn = nn.BatchNorm3d(filters * len(dilations), eps=1e-3)

    def forward(self, x_NCHW: Tensor, windows: int) -> Tensor:
        """(N, C, H, W) -> (N, filters * dilations, H, W), before the activation."""
        height, width = x_NCHW.shape[2:]
        branches = [self.get_submodule(name) for name in self.names]
        affine = zip(*(part.chunk(len(branches)) for part in self.batch_norm_affine()), strict=True)
        y_BCTP = torch.cat(
            [branch(x_NCHW, windows, gain, bias) for branch, (gain, bias) in zip(branches, affine, strict=True)], dim=1
        )
        return to_space_layout(y_BCTP, height, width)

    def batch_norm_affine(self) -> tuple[Tensor, Tensor]:
        """Batch normalisation with its running statistics, as a gain and a bias per channel.

        The convolutions before it are linear, so the gain goes into their weights and saves a pass over the images.
        """
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None and variance is not None
        gain_C = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        return gain_C, self.bn.bias - mean * gain_C


class DilatedStack(nn.Module):
    """Dilated blocks with a skip connection from the first to the last, then pooling 2 x 2 (paper: SDDCNN)."""

    def __init__(self, channels_in: int, filters: int, shape: Architecture) -> None:
        super().__init__()
        inner = filters * len(shape.dilations)
        self.DDCNN = nn.ModuleList(
            [DilatedBlock(inner if block else channels_in, filters, shape.dilations) for block in range(shape.blocks)]
        )

    def forward(self, x_NCHW: Tensor, windows: int) -> Tensor:
        """(N, C, H, W) -> (N, C', H // 2, W // 2)."""
        first = x = functional.relu_(self.DDCNN[0](x_NCHW, windows))
        for block in self.DDCNN[1:]:
            x = functional.relu_(block(x, windows))
        return functional.avg_pool2d(x.add_(first), 2)


class FrameSimilarity(nn.Module):
    """Learned features of each frame compared with those of its neighbours (paper, section 3.2)."""

    def __init__(self, channels_in: int, shape: Architecture) -> None:
        super().__init__()
        self.lookup = shape.lookup
        self.projection = nn.Linear(channels_in, shape.similarity)
        self.fc = nn.Linear(shape.lookup, shape.similarity)

    def forward(self, features_BTC: Tensor) -> Tensor:
        """Spatial means of every stack, (B, T, C) float32 -> (B, T, similarity)."""
        unit_BTC = functional.normalize(self.projection(features_BTC), dim=2)
        return functional.relu(self.fc(neighbour_similarities(unit_BTC, self.lookup)))


class ColourHistograms(nn.Module):
    """Colour histograms of each frame compared with those of its neighbours (paper, section 3.2)."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.lookup, self.levels = shape.lookup, shape.levels
        self.fc = nn.Linear(shape.lookup, shape.similarity)

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """RGB uint8 (B, T, H, W, 3) -> (B, T, similarity)."""
        unit_BTC = functional.normalize(self.compute_histograms(frames_BTHWC), dim=2)
        return functional.relu(self.fc(neighbour_similarities(unit_BTC, self.lookup)))

    def compute_histograms(self, frames_BTHWC: Tensor) -> Tensor:
        """Pixels of each colour: (B, T, levels ** 3) float32, red changing slowest."""
        level_BTPC = (frames_BTHWC.flatten(2, 3).int() * self.levels) >> 8
        red, green, blue = level_BTPC.unbind(3)
        bins_BTP = ((red * self.levels + green) * self.levels + blue).long()
        counts = torch.zeros(*bins_BTP.shape[:2], self.levels**3, device=bins_BTP.device)
        return counts.scatter_add(2, bins_BTP, torch.ones_like(bins_BTP, dtype=counts.dtype))


class TransNetV2(nn.Module):
    """The whole network.

    Args:
        shape: its architecture.
        precision: number format of the convolutions; comparisons and heads are float32 always.
    """

    def __init__(self, shape: Architecture = ARCHITECTURE, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.precision = precision
        inputs = (3, *shape.channels[:-1])
        self.SDDCNN = nn.ModuleList(
            [DilatedStack(channels, shape.filters * 2**stack, shape) for stack, channels in enumerate(inputs)]
        )
        self.frame_sim_layer = FrameSimilarity(sum(shape.channels), shape)
        self.color_hist_layer = ColourHistograms(shape)
        self.fc1 = nn.Linear(shape.channels[-1] * shape.cells + 2 * shape.similarity, shape.hidden)
        self.cls_layer1 = nn.Linear(shape.hidden, 1)
        self.cls_layer2 = nn.Linear(shape.hidden, 1)
        self.eval().requires_grad_(False)

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """How likely each frame is a transition.

        Args:
            frames_BTHWC: RGB uint8 (B, T, 27, 48, 3).

        Returns:
            (B, T, 2) float32 logits: of the frame in the middle of a transition, and of any frame of one.
        """
        windows, times = frames_BTHWC.shape[:2]
        x_NCHW = frames_BTHWC.flatten(0, 1).permute(0, 3, 1, 2).to(self.precision) / 255
        means = []
        for stack in self.SDDCNN:
            x_NCHW = stack(x_NCHW, windows)
            means.append(x_NCHW.mean(dim=(2, 3), dtype=torch.float32))
        map_BTC = x_NCHW.permute(0, 2, 3, 1).reshape(windows, times, -1)
        similarities = self.frame_sim_layer(torch.cat(means, dim=1).view(windows, times, -1))
        parts = [self.color_hist_layer(frames_BTHWC), similarities, map_BTC]
        return self.apply_heads(torch.cat([part.to(self.precision) for part in parts], dim=2))

    def apply_heads(self, features_BTC: Tensor) -> Tensor:
        """Both heads over the joined features -> (B, T, 2) float32 logits."""
        weight, bias = (part.to(features_BTC.dtype) for part in (self.fc1.weight, self.fc1.bias))
        hidden = functional.relu(functional.linear(features_BTC, weight, bias)).float()
        return torch.cat([self.cls_layer1(hidden), self.cls_layer2(hidden)], dim=2)


def to_time_layout(x_NCHW: Tensor, windows: int) -> Tensor:
    """The same numbers as B images of T x (H * W) pixels: (B, C, T, H * W)."""
    frames, channels, height, width = x_NCHW.shape
    memory = x_NCHW.permute(0, 2, 3, 1).reshape(windows, frames // windows, height * width, channels)
    return memory.permute(0, 3, 1, 2)


def to_space_layout(x_BCTP: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `to_time_layout`: (B * T, C, H, W)."""
    windows, channels, times, _ = x_BCTP.shape
    memory = x_BCTP.permute(0, 2, 3, 1).reshape(windows * times, height, width, channels)
    return memory.permute(0, 3, 1, 2)


def neighbour_similarities(x_BTC: Tensor, lookup: int) -> Tensor:
    """Dot product of each frame with its neighbours: (B, T, lookup), zero outside the window.

    Row t of the product with the padded frames holds them at columns t to t + lookup. Laid out flat, such a diagonal
    band is a plain matrix with rows one longer, so it is read off without a gather.
    """
    windows, times = x_BTC.shape[:2]
    padded_BSC = functional.pad(x_BTC, (0, 0, lookup // 2, lookup // 2))
    products_BTS = x_BTC @ padded_BSC.transpose(1, 2)
    flat = functional.pad(products_BTS.flatten(1), (0, times))
    return flat.view(windows, times, -1)[:, :, :lookup]

"""Video Swin Transformer (Liu et al., CVPR 2022, arXiv:2106.13230): its first stages, by the published names.

Shapes are in the names: B videos, T frames, H x W pixels or tokens, C channels, P = T * H * W tokens of a video,
W windows of N tokens each. Dropout and stochastic depth belong to training and are not here.

A block attends within windows. Their tokens are gathered by one index and put back by another, both made once for a
geometry, in place of padding, rolling, cutting up and all that in reverse; windows that need the same mask lie
together, so that one table of biases (of 8 at most) serves all of them. On a CPU few tokens go through a layer at a
time: what lies between two steps stays in the cache, which took a quarter less time and a third of the memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, int, int]
"""Frames, rows, columns."""

MASK_BIAS = -100.0
"""Added to the score of two tokens that the cyclic shift alone made neighbours; as published, not minus infinity."""


@dataclass(frozen=True, slots=True)
class SwinShape:
    """The tiny one, as trained on Kinetics-400 with windows of 8 frames, without its last stage.

    Args:
        patch: side of the square of pixels that makes a token; a token is of one frame.
        width: channels of the first stage, doubled with each.
        depths: blocks of each stage.
        heads: of the attention of each stage.
        window: tokens that attend to each other; every second block moves its windows by half of that.
        expansion: of the layers between two linear ones.
    """

    patch: int = 4
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6)
    heads: tuple[int, ...] = (3, 6, 12)
    window: Size = (8, 7, 7)
    expansion: int = 4

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width << stage for stage in range(len(self.depths)))


CPU_TOKENS_PER_STEP = 8192
"""Tokens that go through a layer together on a CPU."""


def tokens_per_step(device: torch.device) -> int:
    """Number of tokens that go through a layer together: on a GPU all of them."""
    return CPU_TOKENS_PER_STEP if device.type == "cpu" else sys.maxsize


def iter_slices(count: int, max_length: int) -> Iterator[slice]:
    """Slice 0 to `count` into parts of limited length, in order."""
    for start in range(0, count, max_length):
        yield slice(start, min(start + max_length, count))


class PatchEmbedding(nn.Module):
    """Squares of pixels to tokens: linear, then normalised."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        kernel = (1, shape.patch, shape.patch)
        self.proj = nn.Conv3d(3, shape.width, kernel, stride=kernel)
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, frames_BCTHW: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, T, ceil(H / 4), ceil(W / 4), C); zeros stand right of and below the image."""
        side = self.proj.kernel_size[-1]
        height, width = frames_BCTHW.shape[-2:]
        frames_BCTHW = functional.pad(frames_BCTHW, (0, -width % side, 0, -height % side))
        # As a product of matrices: the tokens come out with their channels last, which the convolution would not do.
        videos, colours, frames, height, width = frames_BCTHW.shape
        squares = frames_BCTHW.reshape(videos, colours, frames, height // side, side, width // side, side)
        tokens = squares.permute(0, 2, 3, 5, 1, 4, 6).flatten(4)
        tokens_BTHWC: Tensor = self.norm(functional.linear(tokens, self.proj.weight.flatten(1), self.proj.bias))
        return tokens_BTHWC


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias for each offset between two of them."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: Size) -> None:
        super().__init__()
        self.heads = heads
        offsets = prod(2 * length - 1 for length in window)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, windows_WNC: Tensor, bias_hNN: Tensor) -> Tensor:
        """Tokens of windows, and what is added to the score of each pair of them -> (W, N, C)."""
        count, tokens, width = windows_WNC.shape
        qkv_WNshD = self.qkv(windows_WNC).view(count, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv_WNshD.permute(2, 0, 3, 1, 4)
        attended_WhND = functional.scaled_dot_product_attention(query, key, value, bias_hNN[None].to(query.dtype))
        attended_WNC: Tensor = self.proj(attended_WhND.transpose(1, 2).flatten(2))
        return attended_WNC

    def position_bias(self, tokens: int) -> Tensor:
        """Look up the bias of every pair of tokens in a window of N: (heads, N, N).

        A window that shrank to a small image takes the first rows and columns of the index of the whole one. Only
        with fewer frames do these belong to the same offsets; with fewer rows or columns they do not, but so the
        published weights were trained.
        """
        index_NN = self.relative_position_index[:tokens, :tokens]
        return self.relative_position_bias_table[index_NN.flatten()].view(tokens, tokens, -1).permute(2, 0, 1)


class MLP(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width * expansion)
        self.fc2 = nn.Linear(width * expansion, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class SwinBlock(nn.Module):
    """Attention in windows, then an MLP, each normalised before and around a shortcut (paper: section 3.2)."""

    def __init__(self, width: int, heads: int, shape: SwinShape, shifted: bool) -> None:
        super().__init__()
        self.window = shape.window
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, shape.window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, shape.expansion)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) -> the same."""
        frames, height, width = x_BTHWC.shape[1:4]
        layout = build_layout((frames, height, width), self.window, self.shifted, x_BTHWC.device)
        outputs = [self._forward_video(x_PC, layout).view(x_BTHWC.shape[1:]) for x_PC in x_BTHWC.flatten(1, 3)]
        return outputs[0][None] if len(outputs) == 1 else torch.stack(outputs)

    def _forward_video(self, x_PC: Tensor, layout: WindowLayout) -> Tensor:
        attended_QC, output_PC = self._attend_windows(x_PC, layout), torch.empty_like(x_PC)
        for rows in iter_slices(len(x_PC), tokens_per_step(x_PC.device)):
            y_PC = x_PC[rows] + attended_QC.index_select(0, layout.slot_P[rows])
            output_PC[rows] = y_PC + self.mlp(self.norm2(y_PC))
        return output_PC

    def _attend_windows(self, x_PC: Tensor, layout: WindowLayout) -> Tensor:
        """Compute attention in all windows, for each slot: (Q, C)."""
        bias_hNN = self.attn.position_bias(layout.tokens)
        attended_QC = x_PC.new_empty(0)
        for group in layout.groups:
            biased_hNN = bias_hNN if group.mask_NN is None else bias_hNN + group.mask_NN
            for chunk in group.chunks:
                windows_QC = self.norm1(x_PC.index_select(0, chunk.token_Q)).index_fill_(0, chunk.empty_slots, 0)
                output_WNC = self.attn(windows_QC.unflatten(0, (-1, layout.tokens)), biased_hNN)
                if not len(attended_QC):
                    attended_QC = output_WNC.new_empty(layout.slot_count, output_WNC.shape[-1])
                attended_QC[chunk.start : chunk.start + len(windows_QC)] = output_WNC.flatten(0, 1)
        return attended_QC


class SwinStage(nn.Module):
    """Blocks of one width."""

    def __init__(self, width: int, depth: int, heads: int, shape: SwinShape) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(SwinBlock(width, heads, shape, shifted=number % 2 == 1) for number in range(depth))
        )

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) -> the same."""
        y: Tensor = self.blocks(x_BTHWC)
        return y


class PatchMerging(nn.Module):
    """Merges each 2 x 2 neighbours of a frame into one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, ceil(H / 2), ceil(W / 2), 2C)."""
        height, width = x_BTHWC.shape[2:4]
        x = functional.pad(x_BTHWC, (0, 0, 0, width % 2, 0, height % 2))
        corners = [x[:, :, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return merged


class VideoSwin(nn.Module):
    """The backbone; each stage returns its tokens before they are merged for the next stage."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(shape)
        stages = zip(shape.widths, shape.depths, shape.heads, strict=True)
        self.layers = nn.ModuleList(SwinStage(width, depth, heads, shape) for width, depth, heads in stages)
        self.downsamples = nn.ModuleList(PatchMerging(width) for width in shape.widths[:-1])

    def forward(self, frames_BCTHW: Tensor) -> list[Tensor]:
        """Normalised frames (B, 3, T, H, W) -> tokens (B, T, h, w, C) of each stage: 1/4, 1/8, 1/16 of the size."""
        x_BTHWC = self.patch_embed(frames_BCTHW)
        stages = []
        for number, layer in enumerate(self.layers):
            if number:
                x_BTHWC = self.downsamples[number - 1](x_BTHWC)
            x_BTHWC = layer(x_BTHWC)
            stages.append(x_BTHWC)
        return stages


# Windows --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class WindowChunk:
    """Windows that are computed together.

    Args:
        start: number of their first place among all places of windows.
        token_Q: which token stands at each of their Q places; any, where there is none.
        empty_slots: places, counted from `start`, where there is none.
    """

    start: int
    token_Q: Tensor  # noqa: N815 (tensors carry their shape in the name)
    empty_slots: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class WindowGroup:
    """Windows whose tokens the shift brought together in the same way.

    Args:
        mask_NN: 0, or `MASK_BIAS` for two tokens that the shift made neighbours; None where there are none.
        chunks: all of them.
    """

    mask_NN: Tensor | None  # noqa: N815 (tensors carry their shape in the name)
    chunks: tuple[WindowChunk, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WindowLayout:
    """The positions of the tokens of a video in windows.

    Args:
        tokens: N, of a window.
        slot_count: of all windows.
        slot_P: the place of each token.
        groups: all windows.
    """

    tokens: int
    slot_count: int
    slot_P: Tensor  # noqa: N815 (tensors carry their shape in the name)
    groups: tuple[WindowGroup, ...]


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)
def build_layout(size: Size, window: Size, shifted: bool, device: torch.device) -> WindowLayout:
    """Build the windows of a video of `size` tokens: the same as padding at the end, then rolling by half a window.

    In a dimension no longer than the window, the window is as long as the dimension and is not moved.
    """
    window_size = [min(length, limit) for length, limit in zip(size, window, strict=True)]
    shift = [limit // 2 if shifted and length > limit else 0 for length, limit in zip(size, window, strict=True)]
    counts = [ceil(length / limit) for length, limit in zip(size, window_size, strict=True)]
    kinds_W = _shift_kinds(counts, shift)
    token_WN = _window_tokens(size, window_size, shift, counts)[kinds_W.argsort(stable=True)]
    groups, start = [], 0
    for kind, count in enumerate(kinds_W.bincount().tolist()):
        if not count:
            continue
        chunks = tuple(_chunk_windows(token_WN[start : start + count], start, device))
        groups.append(WindowGroup(_shift_mask(kind, window_size, shift, device), chunks))
        start += count
    token_Q = token_WN.flatten()
    real = torch.nonzero(token_Q >= 0).flatten()
    slot_P = torch.empty(prod(size), dtype=torch.int64)
    slot_P[token_Q[real]] = real
    return WindowLayout(prod(window_size), len(token_Q), slot_P.to(device), tuple(groups))


def _chunk_windows(token_WN: Tensor, start: int, device: torch.device) -> Iterator[WindowChunk]:
    """Split the windows of a group, the first of which is number `start`, into chunks of limited size."""
    tokens = token_WN.shape[1]
    for rows in iter_slices(len(token_WN), max(1, tokens_per_step(device) // tokens)):
        token_Q = token_WN[rows].flatten().to(device)
        yield WindowChunk((start + rows.start) * tokens, token_Q.clamp(min=0), torch.nonzero(token_Q < 0).flatten())


def _window_tokens(
    size: Sequence[int], window_size: Sequence[int], shift: Sequence[int], counts: Sequence[int]
) -> Tensor:
    """Compute the token at each slot of each window, -1 where there is none: (W, N)."""
    id_THW = torch.arange(prod(size)).view(*size)
    for dim, (length, window_length, offset, count) in enumerate(zip(size, window_size, shift, counts, strict=True)):
        padded = functional.pad(id_THW.movedim(dim, -1), (0, count * window_length - length), value=-1).movedim(-1, dim)
        id_THW = padded.roll(-offset, dim)
    split_tokens = id_THW.view(counts[0], window_size[0], counts[1], window_size[1], counts[2], window_size[2])
    return split_tokens.permute(0, 2, 4, 1, 3, 5).reshape(prod(counts), prod(window_size))


def _shift_kinds(counts: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Compute in which dimensions the shift wraps tokens around in each window: (W,), one bit per dimension.

    Only the last windows of a dimension do.
    """
    kind_THW = torch.zeros(*counts, dtype=torch.int64)
    for dim, offset in enumerate(shift):
        if offset:
            kind_THW.select(dim, -1).add_(1 << dim)
    return kind_THW.flatten()


def _shift_mask(kind: int, window_size: Sequence[int], shift: Sequence[int], device: torch.device) -> Tensor | None:
    """`MASK_BIAS` between tokens of a window that lie on different sides of the video's edge: (N, N)."""
    if not kind:
        return None
    sides_THW = torch.zeros(*window_size, dtype=torch.int64)
    for dim, offset in enumerate(shift):
        if kind >> dim & 1:
            sides_THW.narrow(dim, window_size[dim] - offset, offset).add_(1 << dim)
    sides_N = sides_THW.flatten()
    return (sides_N[:, None] != sides_N[None]).float().mul(MASK_BIAS).to(device)


def relative_positions(window: Size) -> Tensor:
    """Compute the index into the table of biases for each pair of tokens of a window: int64 (N, N)."""
    axes = [torch.arange(length) for length in window]
    coordinates_3N = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    index_NN = torch.zeros(coordinates_3N.shape[1], coordinates_3N.shape[1], dtype=torch.int64)
    for coordinate_N, length in zip(coordinates_3N, window, strict=True):
        index_NN = index_NN * (2 * length - 1) + coordinate_N[:, None] - coordinate_N[None] + length - 1
    return index_NN

"""CLIP-It (Narasimhan et al., NeurIPS 2021, arXiv:2107.00650) as published on ModelScope, with its parameter names.

Shapes are in the names: B videos (always one), T sampled frames, K keys, C = 512 width, S = 3584 width of the text.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from worker.models.clip_it.config import ARCHITECTURE, Architecture
from worker.networks.clip.network import ClipNetwork


class ResidualAttention(nn.Module):
    """Multi-head attention: projections without bias, residual connection, layer normalisation.

    Args:
        shape: of the network.
        heads: of this block.
    """

    def __init__(self, shape: Architecture, heads: int) -> None:
        super().__init__()
        inner = heads * shape.head
        self.heads, self.drop = heads, shape.dropout
        self.w_qs = nn.Linear(shape.width, inner, bias=False)
        self.w_ks = nn.Linear(shape.width, inner, bias=False)
        self.w_vs = nn.Linear(shape.width, inner, bias=False)
        self.fc = nn.Linear(inner, shape.width, bias=False)
        self.dropout = nn.Dropout(shape.dropout)
        self.layer_norm = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, query_BTC: Tensor, key_BKC: Tensor) -> Tensor:
        """Attend from each of T to all of K: (B, T, C), (B, K, C) -> (B, T, C).

        In serving, memory grows with T + K and not with T * K, where torch has a fused attention.
        """
        pairs = (self.w_qs, query_BTC), (self.w_ks, key_BKC), (self.w_vs, key_BKC)
        query, key, value = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part, x in pairs)
        # Training repeats the text T times, so all keys are equal and the gradient by them is exactly zero. There the
        # fused CPU kernel leaves ten times the rounding error of plain attention (how much depends on the instruction
        # set), and all of it ends in the gradient of `linear_txt`. So training computes plain attention; serving keeps
        # the fused one, which needs less memory.
        with sdpa_kernel(SDPBackend.MATH) if self.training else nullcontext():
            attended_BHTD = functional.scaled_dot_product_attention(
                query, key, value, dropout_p=self.drop * self.training
            )
        projected_BTC: Tensor = self.dropout(self.fc(attended_BHTD.transpose(1, 2).flatten(2)))
        output_BTC: Tensor = self.layer_norm(query_BTC + projected_BTC)
        return output_BTC


class FeedForward(nn.Module):
    """Two linear layers, residual connection, layer normalisation: (B, T, C) -> (B, T, C)."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.w_1 = nn.Linear(shape.width, shape.intermediate)
        self.w_2 = nn.Linear(shape.intermediate, shape.width)
        self.layer_norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Apply both layers."""
        y_BTC: Tensor = self.layer_norm(x_BTC + self.dropout(self.w_2(functional.relu(self.w_1(x_BTC)))))
        return y_BTC


class PositionalEncoding(nn.Module):
    """Adds sinusoidal positions (Vaswani et al., 2017, section 3.5); 4,000 at most."""

    pos_table: Tensor

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.register_buffer("pos_table", position_table(shape.max_positions, shape.width))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Add the positions 0 to T: (B, T, C)."""
        return x_BTC + self.pos_table[:, : x_BTC.shape[1]]


class FrameEncoderLayer(nn.Module):
    """Self-attention of the frames, and a feed-forward layer."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.slf_attn = ResidualAttention(shape, shape.heads)
        self.pos_ffn = FeedForward(shape)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        y_BTC: Tensor = self.pos_ffn(self.slf_attn(x_BTC, x_BTC))
        return y_BTC


class FrameDecoderLayer(nn.Module):
    """Self-attention of the frames, attention to the encoder's output, and a feed-forward layer."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.slf_attn = ResidualAttention(shape, shape.heads)
        self.enc_attn = ResidualAttention(shape, shape.heads)
        self.pos_ffn = FeedForward(shape)

    def forward(self, x_BTC: Tensor, encoded_BKC: Tensor) -> Tensor:
        """(B, T, C), (B, K, C) -> (B, T, C)."""
        y_BTC: Tensor = self.pos_ffn(self.enc_attn(self.slf_attn(x_BTC, x_BTC), encoded_BKC))
        return y_BTC


class FrameEncoder(nn.Module):
    """Six layers over frames with positions."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.position_enc = PositionalEncoding(shape)
        self.dropout = nn.Dropout(shape.dropout)
        self.layer_stack = nn.ModuleList([FrameEncoderLayer(shape) for _ in range(shape.layers)])
        self.layer_norm = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        y_BTC: Tensor = self.layer_norm(self.dropout(self.position_enc(x_BTC)))
        for layer in self.layer_stack:
            y_BTC = layer(y_BTC)
        return y_BTC


class FrameDecoder(nn.Module):
    """Six layers over frames with positions, each attending to the encoder's output."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.position_enc = PositionalEncoding(shape)
        self.dropout = nn.Dropout(shape.dropout)
        self.layer_stack = nn.ModuleList([FrameDecoderLayer(shape) for _ in range(shape.layers)])
        self.layer_norm = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, x_BTC: Tensor, encoded_BKC: Tensor) -> Tensor:
        """(B, T, C), (B, K, C) -> (B, T, C)."""
        y_BTC: Tensor = self.layer_norm(self.dropout(self.position_enc(x_BTC)))
        for layer in self.layer_stack:
            y_BTC = layer(y_BTC, encoded_BKC)
        return y_BTC


class FrameScorer(nn.Module):
    """Scores how much each sampled frame of a video belongs into its summary.

    Args:
        shape: of the network.
        full: with the decoder and three normalisations, which published files hold and no score depends on: 63 of 105
            million parameters. Needed for the published outputs and names; serving does without.
    """

    def __init__(self, shape: Architecture = ARCHITECTURE, *, full: bool = True) -> None:
        super().__init__()
        self.max_positions = shape.max_positions
        if full:
            self.layer_norm_img_src = nn.LayerNorm(shape.width, eps=shape.eps)
            self.layer_norm_img_trg = nn.LayerNorm(shape.width, eps=shape.eps)
            self.layer_norm_txt = nn.LayerNorm(shape.text_width, eps=shape.eps)
        self.linear_txt = nn.Linear(shape.text_width, shape.width)
        self.lg_attention = ResidualAttention(shape, shape.guiding_heads)
        self.encoder = FrameEncoder(shape)
        self.decoder = FrameDecoder(shape) if full else None
        self.linear_1 = nn.Linear(shape.width, shape.width)
        self.linear_2 = nn.Linear(shape.width, 1)
        self.drop = nn.Dropout(shape.head_dropout)
        self.norm_y = nn.LayerNorm(shape.width, eps=shape.eps)
        self.norm_linear = nn.LayerNorm(shape.width, eps=shape.eps)

    def forward(self, frames_BTC: Tensor, text_BKS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the scores, and the output of the decoder, which nothing uses.

        Args:
            frames_BTC: features of images, each of length one.
            text_BKS: features of seven sentences side by side, together of length one; K is 1, or T times the same as
                in the published training: with equal keys attention has one answer.

        Returns:
            (B, T), and (B, T, C) or None without a decoder.
        """
        encoded_BTC = self.encoder(self.attend_to_text(frames_BTC, text_BKS))
        decoded_BTC = self.decoder(frames_BTC, encoded_BTC) if self.decoder is not None else None
        return self.predict_scores(encoded_BTC), decoded_BTC

    def score_frames(self, frames_BTC: Tensor, text_BKS: Tensor) -> Tensor:
        """The scores alone: (B, T) in 0..1; as published for T up to the places that the published table has.

        A longer video is scored in windows of so many frames, which share a quarter: each has the last word on its
        middle. So no place is used that was never trained, and time is linear in T.
        """
        spans = scoring_windows(frames_BTC.shape[1], self.max_positions)
        guided_BTC = self.attend_to_text(frames_BTC, text_BKS)
        parts = [
            self.predict_scores(self.encoder(guided_BTC[:, first : first + self.max_positions]))[
                :, start - first : stop - first
            ]
            for first, start, stop in spans
        ]
        return torch.cat(parts, dim=1)

    def attend_to_text(self, frames_BTC: Tensor, text_BKS: Tensor) -> Tensor:
        """The frames with what they find in the text: (B, T, C)."""
        guided_BTC: Tensor = self.lg_attention(frames_BTC, self.linear_txt(text_BKS))
        return guided_BTC

    def predict_scores(self, encoded_BTC: Tensor) -> Tensor:
        """Encoded frames -> (B, T) in 0..1."""
        y_BTC = functional.relu(self.linear_1(self.norm_y(self.drop(encoded_BTC))))
        return torch.sigmoid(self.linear_2(self.norm_linear(self.drop(y_BTC)))).squeeze(-1)


class ClipIt(nn.Module):
    """What serving needs: CLIP for images and sentences, and the scorer without what no score depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = ClipNetwork()
        self.scorer = FrameScorer(full=False)


def scoring_windows(frames: int, length: int) -> list[tuple[int, int, int]]:
    """Windows of `length` frames that cover a video, each but the last `length * 3 / 4` after the one before.

    Returns:
        (first frame, start, stop) of each: it answers for `start` to `stop`, exclusive. The last ends with the video.
    """
    step, margin = length * 3 // 4, length // 8
    firsts = [*range(0, max(1, frames - length), step)]
    if firsts[-1] + length < frames:
        firsts.append(frames - length)
    starts = [0, *(first + margin for first in firsts[1:])]
    return list(zip(firsts, starts, [*starts[1:], frames], strict=True))


def position_table(position_count: int, width: int) -> Tensor:
    """Compute the table of positions in float64: (1, positions, width), float32."""
    numbers_C = np.arange(width)
    angles_TC = np.arange(position_count)[:, None] / np.power(10_000, 2 * (numbers_C // 2) / width)
    table_TC = np.where(numbers_C % 2, np.cos(angles_TC), np.sin(angles_TC))
    return torch.from_numpy(table_TC.astype(np.float32)[None])

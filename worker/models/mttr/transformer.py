"""The multimodal transformer of MTTR: encoder and decoder of DETR (Carion et al., ECCV 2020) over pixels and words.

Each frame goes through by itself. Shapes are in the names: N frames, S = h * w + L tokens (of the image, then of the
query), Q queries for instances, C channels. Dropout belongs to training and is not here.
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.models.mttr.config import Architecture
from worker.networks.roberta import build_roberta

TEMPERATURE = 10000
"""Ratio of the longest wave of the positions to the shortest."""


class MultiheadAttention(nn.Module):
    """Attention with several heads, the parameters named as in `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query_NQC: Tensor, key_NSC: Tensor, value_NSC: Tensor, valid_NS: Tensor | None = None) -> Tensor:
        """What is requested, out of values by their keys.

        Args:
            query_NQC, key_NSC, value_NSC: tokens; where keys are the queries too, the same tensor.
            valid_NS: False for keys that are not there.

        Returns:
            (N, Q, C).
        """
        width = query_NQC.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query_NQC is key_NSC:
            query_key = functional.linear(query_NQC, weight[: 2 * width], bias[: 2 * width])
            query, key = query_key[..., :width], query_key[..., width:]
        else:
            query = functional.linear(query_NQC, weight[:width], bias[:width])
            key = functional.linear(key_NSC, weight[width : 2 * width], bias[width : 2 * width])
        value = functional.linear(value_NSC, weight[2 * width :], bias[2 * width :])
        mask = None if valid_NS is None else valid_NS[:, None, None]
        query, key, value = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (query, key, value))
        attended_NhQD = functional.scaled_dot_product_attention(query, key, value, mask)
        attended_NQC: Tensor = self.out_proj(attended_NhQD.transpose(1, 2).flatten(2))
        return attended_NQC


class MultimodalEncoderLayer(nn.Module):
    """Self-attention, then two linear layers, each normalised behind its shortcut."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        width = shape.hidden
        self.self_attn = MultiheadAttention(width, shape.heads)
        self.linear1, self.linear2 = nn.Linear(width, shape.intermediate), nn.Linear(shape.intermediate, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x_NSC: Tensor, position_SC: Tensor, valid_NS: Tensor | None) -> Tensor:
        """(N, S, C) -> the same. Positions, (S, C) or (N, S, C), are added for queries and keys of the attention."""
        positioned = x_NSC + position_SC
        x_NSC = self.norm1(x_NSC + self.self_attn(positioned, positioned, x_NSC, valid_NS))
        y_NSC: Tensor = self.norm2(x_NSC + self.linear2(functional.relu(self.linear1(x_NSC))))
        return y_NSC


class InstanceDecoderLayer(nn.Module):
    """Attention among the instances, then of them to the tokens, then two linear layers."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        width = shape.hidden
        self.self_attn, self.multihead_attn = (
            MultiheadAttention(width, shape.heads),
            MultiheadAttention(width, shape.heads),
        )
        self.linear1, self.linear2 = nn.Linear(width, shape.intermediate), nn.Linear(shape.intermediate, width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self, x_NQC: Tensor, instance_QC: Tensor, memory_NSC: Tensor, key_NSC: Tensor, valid_NS: Tensor | None
    ) -> Tensor:
        """(N, Q, C) -> the same.

        Args:
            x_NQC: what is known of each instance.
            instance_QC: learned, one for each; added for queries and keys of the attention.
            memory_NSC, key_NSC: tokens as the encoder left them; the same with their positions.
            valid_NS: False for tokens that are not there.
        """
        positioned = x_NQC + instance_QC
        x_NQC = self.norm1(x_NQC + self.self_attn(positioned, positioned, x_NQC))
        x_NQC = self.norm2(x_NQC + self.multihead_attn(x_NQC + instance_QC, key_NSC, memory_NSC, valid_NS))
        y_NQC: Tensor = self.norm3(x_NQC + self.linear2(functional.relu(self.linear1(x_NQC))))
        return y_NQC


class MultimodalEncoder(nn.Module):
    """Layers without a normalisation at the end."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MultimodalEncoderLayer(shape) for _ in range(shape.encoder))

    def forward(self, x_NSC: Tensor, position_SC: Tensor, valid_NS: Tensor | None) -> Tensor:
        """As `MultimodalEncoderLayer`."""
        for layer in self.layers:
            x_NSC = layer(x_NSC, position_SC, valid_NS)
        return x_NSC


class InstanceDecoder(nn.Module):
    """Layers, what each gives normalised by the same last step."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(InstanceDecoderLayer(shape) for _ in range(shape.decoder))
        self.norm = nn.LayerNorm(shape.hidden)

    def forward(self, instance_QC: Tensor, memory_NSC: Tensor, position_SC: Tensor, valid_NS: Tensor | None) -> Tensor:
        """The instances in each frame, after each layer: (D, N, Q, C), beginning with nothing but zeros."""
        x_NQC = instance_QC.new_zeros(len(memory_NSC), *instance_QC.shape)
        key_NSC, outputs = memory_NSC + position_SC, []
        for layer in self.layers:
            x_NQC = layer(x_NQC, instance_QC, memory_NSC, key_NSC, valid_NS)
            outputs.append(self.norm(x_NQC))
        return torch.stack(outputs)


class TextProjection(nn.Module):
    """What the text encoder gives, brought to the width of the transformer."""

    def __init__(self, text: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(text, width)
        self.layer_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, words_BLC: Tensor) -> Tensor:
        """(B, L, 768) -> (B, L, 256)."""
        y_BLC: Tensor = self.layer_norm(self.fc(words_BLC))
        return y_BLC


class MultimodalTransformer(nn.Module):
    """Text encoder, and the transformer over pixels and words."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.encoder, self.decoder = MultimodalEncoder(shape), InstanceDecoder(shape)
        self.text_encoder = build_roberta()
        self.txt_proj = TextProjection(shape.text, shape.hidden)

    def encode_text(self, ids_BL: Tensor, valid_BL: Tensor) -> Tensor:
        """Sentences to words for the transformer, (B, L, C); `valid_BL` is False where one was filled up."""
        encoded_BLC = self.text_encoder(input_ids=ids_BL, attention_mask=valid_BL.long()).last_hidden_state
        words_BLC: Tensor = self.txt_proj(encoded_BLC)
        return words_BLC

    def forward(
        self, pixels_NSC: Tensor, position_SC: Tensor, words_NLC: Tensor, instance_QC: Tensor, valid_NS: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Frames with a query each.

        Args:
            pixels_NSC: tokens of the images.
            position_SC: theirs, (h * w, C) or (N, h * w, C); words have none.
            words_NLC: tokens of the queries.
            instance_QC: learned, one for each instance.
            valid_NS: False for tokens that are not there, of pixels and then of words; None: all are there.

        Returns:
            The instances after each layer of the decoder (D, N, Q, C), and all tokens as the encoder left them
            (N, h * w + L, C).
        """
        position_SC = functional.pad(position_SC, (0, 0, 0, words_NLC.shape[1]))
        memory_NSC = self.encoder(torch.cat([pixels_NSC, words_NLC], dim=1), position_SC, valid_NS)
        return self.decoder(instance_QC, memory_NSC, position_SC, valid_NS), memory_NSC


def position_encoding(valid_Nhw: Tensor, width: int) -> Tensor:
    """Sines and cosines of where each pixel lies in its image: (N, h, w, width); rows first, then columns.

    Rows and columns are counted within the part of the image that is there and brought to 0..2 pi (Carion et al.,
    appendix A.4).

    Args:
        valid_Nhw: False where a image was filled up.
        width: channels.
    """
    steps = torch.arange(width // 4, device=valid_Nhw.device, dtype=torch.float32)
    waves = torch.exp(steps * (-log(TEMPERATURE) * 4 / width))
    parts = []
    for dim in (1, 2):
        counted_Nhw = valid_Nhw.cumsum(dim, dtype=torch.float32)
        last = counted_Nhw.narrow(dim, -1, 1)
        angles = (counted_Nhw / (last + 1e-6) * (2 * pi)).unsqueeze(-1) * waves
        parts.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2))
    return torch.cat(parts, dim=-1)

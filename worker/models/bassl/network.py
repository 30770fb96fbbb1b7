"""BaSSL (Mun et al., ACCV 2022, arXiv:2201.05277) for scene boundaries, with the published parameter names.

Shapes are in the names: N images, B windows of S = 17 shots, L = S + 1 tokens, D features of a shot, C hidden width.
"""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from worker.models.bassl.config import ARCHITECTURE, Architecture, Pooling
from worker.networks.resnet import ResNet50


class ShotEmbedding(nn.Module):
    """Features of shots to tokens: one more in front for the window, a linear layer, positions, layer normalisation."""

    pos_ids: Tensor

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shot_embedding = nn.Linear(shape.features, shape.hidden)
        self.position_embedding = nn.Embedding(shape.token_count, shape.hidden)
        self.mask_embedding = nn.Embedding(2, shape.features, padding_idx=0)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.eps)
        self.dropout = nn.Dropout(shape.dropout)
        self.register_buffer("pos_ids", torch.arange(shape.token_count))

    def forward(self, shots_BSD: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Tokens of windows.

        Args:
            shots_BSD: features, float32.
            mask_BS: 1 where a shot is hidden behind the learned mask feature.

        Returns:
            (B, L, C).
        """
        if mask_BS is not None:
            # Row 0 of the table stands for "not masked" and is taken as zero whatever a checkpoint holds there.
            mask_BS1 = mask_BS.to(shots_BSD.dtype).unsqueeze(2)
            shots_BSD = shots_BSD * (1 - mask_BS1) + mask_BS1 * self.mask_embedding.weight[1]
        tokens_BLC: Tensor = self.shot_embedding(prepend_mean(shots_BSD))
        return self.add_positions(tokens_BLC)

    def add_positions(self, tokens_BLC: Tensor) -> Tensor:
        """Add position embeddings to tokens (B, L, C)."""
        positioned_BLC: Tensor = self.dropout(self.LayerNorm(tokens_BLC + self.position_embedding(self.pos_ids)))
        return positioned_BLC


class ContextNetwork(nn.Module):
    """The contextual relation network: a BERT encoder over the tokens of a window.

    `attention_mask` is a part of the published checkpoints. It is all zero, so it changes nothing and is not added.
    """

    attention_mask: Tensor

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.shot_embedding = ShotEmbedding(shape)
        self.encoder: nn.Module = BertEncoder(_bert_config(shape))  # type: ignore[no-untyped-call] # published so
        self.register_buffer("attention_mask", torch.zeros(1, 1, 1, shape.token_count))

    def forward(self, shots_BSD: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Features of shots, with a mask as in `ShotEmbedding` -> tokens (B, L, C)."""
        encoded_BLC: Tensor = self.encoder(self.shot_embedding(shots_BSD, mask_BS)).last_hidden_state
        return encoded_BLC

    def encode_token(self, shots_BSC: Tensor, index: int) -> Tensor:
        """Compute one token of `forward` for about half of its arithmetic: the last layer computes no other.

        Args:
            shots_BSC: features of shots that went through `shot_embedding.shot_embedding`.
            index: number of the token.

        Returns:
            (B, C); equal to `forward` up to rounding.
        """
        # The layer is linear, so the mean over a window may be taken behind it.
        tokens_BLC = self.shot_embedding.add_positions(prepend_mean(shots_BSC))
        *layers, last = self.encoder.get_submodule("layer").children()
        for layer in layers:
            tokens_BLC = layer(tokens_BLC)
        return apply_layer_at(last, tokens_BLC, index)


class BaSSL(nn.Module):
    """The whole network.

    Args:
        shape: its architecture.
    """

    def __init__(self, shape: Architecture = ARCHITECTURE) -> None:
        super().__init__()
        self.pooling, self.window = shape.pooling, shape.window_size
        self.shot_encoder = ResNet50()
        self.crn = ContextNetwork(shape)
        self.head_sbd = nn.Linear(shape.hidden, 2)

    def encode_keyframes(self, keyframes_NCHW: Tensor) -> Tensor:
        """Features of keyframes: float32 (N, 3, H, W), normalised -> (N, D)."""
        return self.shot_encoder.extract_features(keyframes_NCHW)

    def forward(self, shots_BSD: Tensor) -> Tensor:
        """Whether a scene ends with the shot in the middle of each window.

        Args:
            shots_BSD: features, each the mean of those of the shot's keyframes.

        Returns:
            (B, 2) logits: no, yes.
        """
        logits_B2: Tensor = self.head_sbd(pool_tokens(self.crn(shots_BSD), self.pooling))
        return logits_B2

    def score_shots(self, features_ND: Tensor, batch_size: int) -> Tensor:
        """Probability that a scene ends with each shot of a video.

        What `forward` says about the window around each shot, but each shot goes through the first layer once, not
        once in each of its 17 windows, and only the token that answers goes through the last.

        Args:
            features_ND: of all its shots, at least one.
            batch_size: windows at a time.

        Returns:
            (N,).
        """
        middle, is_center_pooling = self.window // 2, self.pooling == "center"
        shots_NC = self.crn.shot_embedding.shot_embedding(features_ND)
        parts = []
        for window_BS in torch.split(neighbour_indices(len(features_ND), middle).to(features_ND.device), batch_size):
            if is_center_pooling:
                logits_B2 = self.head_sbd(self.crn.encode_token(shots_NC[window_BS], index=middle + 1))
            else:
                logits_B2 = self(features_ND[window_BS])
            parts.append(boundary_probabilities(logits_B2))
        return torch.cat(parts)


def apply_layer_at(layer: Any, tokens_BLC: Tensor, index: int) -> Tensor:
    """Apply a BERT layer to one token only, in evaluation mode: (B, L, C) -> (B, C)."""
    query_B1C, attention = tokens_BLC[:, index : index + 1], layer.attention.self
    parts = attention.query(query_B1C), attention.key(tokens_BLC), attention.value(tokens_BLC)
    query, key, value = (part.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2) for part in parts)
    attended_BHC = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    output_B1C: Tensor = layer.feed_forward_chunk(layer.attention.output(attended_BHC.flatten(2), query_B1C))
    return output_B1C.squeeze(1)


def prepend_mean(shots_BSC: Tensor) -> Tensor:
    """Prepend the mean of the shots of a window: (B, S, C) -> (B, S + 1, C)."""
    return torch.cat([shots_BSC.mean(dim=1, keepdim=True), shots_BSC], dim=1)


def neighbour_indices(shots: int, reach: int) -> Tensor:
    """Numbers of the shots around each shot, (N, 2 * reach + 1); beyond the ends the first or last shot is repeated."""
    offsets_S = torch.arange(-reach, reach + 1)
    return (torch.arange(shots)[:, None] + offsets_S).clamp(0, shots - 1)


def pool_tokens(tokens_BLC: Tensor, pooling: Pooling) -> Tensor:
    """Pool the tokens of a window to one: (B, L, C) -> (B, C)."""
    match pooling:
        case "center":
            return tokens_BLC[:, tokens_BLC.shape[1] // 2]
        case "cls":
            return tokens_BLC[:, 0]
        case "avg":
            return tokens_BLC[:, 1:].mean(dim=1)
        case "max":
            return tokens_BLC[:, 1:].amax(dim=1)
        case _:
            assert_never(pooling)


def boundary_probabilities(logits_B2: Tensor) -> Tensor:
    """Compute the probability of "yes": (B, 2) -> (B,)."""
    return functional.softmax(logits_B2, dim=-1)[..., 1]


def _bert_config(shape: Architecture) -> BertConfig:
    """`eager` attention is the published arithmetic, to the last bit."""
    settings: dict[str, Any] = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": shape.dropout,
        "attention_probs_dropout_prob": shape.dropout,
        "layer_norm_eps": shape.eps,
        "attn_implementation": "eager",
    }
    return BertConfig(**settings)

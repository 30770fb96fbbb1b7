"""CLIP ViT-B/32 (Radford et al., 2021, arXiv:2103.00020) through transformers, read by the names of OpenAI's file.

Shapes are in the names: N images or sentences, L tokens of a sentence, D = 512 features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from worker.networks.clip.tokens import CONTEXT_LENGTH, END_ID, START_ID
from worker.weights.formats import Shape, Shapes

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours (red, green, blue in 0..1) that CLIP was trained on."""


@dataclass(frozen=True, slots=True)
class Tower:
    """Shape of one of the two transformers.

    Args:
        width: of a token; a head has 64 of them, the block in between four times as many.
        layers: blocks.
        max_tokens: tokens at most: patches and one for the whole, or words.
    """

    width: int
    layers: int
    max_tokens: int

    @property
    def config_options(self) -> dict[str, Any]:
        """The shape by the option names of transformers."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.width // 64,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        }


@dataclass(frozen=True, slots=True)
class Architecture:
    """ViT-B/32 as published.

    Args:
        image_tower, text_tower: the towers.
        features: width of the space that both end in.
        image_size, patch_size: pixels of a image and of a patch.
        vocabulary_size: tokens in the vocabulary.
    """

    image_tower: Tower = Tower(768, 12, 50)
    text_tower: Tower = Tower(512, 12, CONTEXT_LENGTH)
    features: int = 512
    image_size: int = 224
    patch_size: int = 32
    vocabulary_size: int = 49_408


VIT_B_32 = Architecture()

HEADER_ENTRIES = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's archive that are no weights."""

PREFIX_MAP = (
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),  # spelt so there
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("ln_final.", "text_model.final_layer_norm."),
    ("logit_scale", "logit_scale"),
)
"""How OpenAI's names begin, and how those of transformers do."""

BLOCK_NAME_MAP = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)
"""Names of the same tensors inside a block of the transformer."""

PROJECTION_MAP = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
"""Matrices that are applied from the right there, from the left here."""


class ClipNetwork(nn.Module):
    """CLIP: the image tower and the text tower.

    Args:
        shape: their architecture.
    """

    def __init__(self, shape: Architecture = VIT_B_32) -> None:
        super().__init__()
        self.model = CLIPModel(_make_config(shape))

    def encode_images(self, pixels_N3HW: Tensor) -> Tensor:
        """Encode images: float32 (N, 3, 224, 224) normalised as `CLIP_MEAN`, `CLIP_STD` say -> (N, D), any length."""
        features_ND: Tensor = self.model.get_image_features(pixel_values=pixels_N3HW).pooler_output
        return features_ND

    def encode_texts(self, ids_NL: Tensor) -> Tensor:
        """Encode sentences: token ids (N, L) of `tokenize_sentences` -> (N, D), not normalised.

        What stands behind the end of the longest sentence is left out: no token looks ahead, so it says nothing.
        """
        longest = int((ids_NL == END_ID).int().argmax(dim=1).max()) + 1
        features_ND: Tensor = self.model.get_text_features(input_ids=ids_NL[:, :longest]).pooler_output
        return features_ND

    def load_openai_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load OpenAI's tensors, every one and no other, without copying those that stay as they are.

        Raises:
            RuntimeError: one is missing, unknown or of another shape (`load_state_dict`).
        """
        self.model.load_state_dict(rename_openai_tensors(tensors), strict=True, assign=True)
        for embeddings in (self.model.vision_model.embeddings, self.model.text_model.embeddings):
            # Constants that no file carries: a network built on the `meta` device has none yet.
            position_count = embeddings.position_embedding.num_embeddings
            embeddings.position_ids = torch.arange(position_count, device=embeddings.position_embedding.weight.device)[
                None
            ]


def rename_openai_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename OpenAI's tensors to the names of transformers: query, key and value split, projections transposed."""
    return {name: part for key, value in tensors.items() for name, part in _convert_tensor(key, value)}


def openai_shapes(shape: Architecture = VIT_B_32) -> Shapes:
    """Name and shape of every tensor of OpenAI's file, without its `HEADER_ENTRIES`."""
    image_tower, text_tower = shape.image_tower, shape.text_tower
    shapes: dict[str, Shape] = {
        "positional_embedding": (text_tower.max_tokens, text_tower.width),
        "text_projection": (text_tower.width, shape.features),
        "logit_scale": (),
        "visual.class_embedding": (image_tower.width,),
        "visual.positional_embedding": (image_tower.max_tokens, image_tower.width),
        "visual.proj": (image_tower.width, shape.features),
        "visual.conv1.weight": (image_tower.width, 3, shape.patch_size, shape.patch_size),
        "token_embedding.weight": (shape.vocabulary_size, text_tower.width),
    }
    norms = {"visual.ln_pre": image_tower, "visual.ln_post": image_tower, "ln_final": text_tower}
    shapes |= {f"{norm}.{part}": (tower.width,) for norm, tower in norms.items() for part in ("weight", "bias")}
    for prefix, tower in (("visual.transformer", image_tower), ("transformer", text_tower)):
        for layer in range(tower.layers):
            shapes |= {f"{prefix}.resblocks.{layer}.{name}": size for name, size in _block_shapes(tower.width).items()}
    return shapes


def _block_shapes(width: int) -> dict[str, Shape]:
    """Shapes of one block: each matrix is (out, in), its bias (out,)."""
    matrices = {
        "attn.in_proj_": (3 * width, width),
        "attn.out_proj.": (width, width),
        "mlp.c_fc.": (4 * width, width),
        "mlp.c_proj.": (width, 4 * width),
    }
    shapes: dict[str, Shape] = {f"{name}weight": size for name, size in matrices.items()}
    shapes |= {f"{name}bias": size[:1] for name, size in matrices.items()}
    return shapes | {f"{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}


def _convert_tensor(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Convert one of OpenAI's tensors to one or several of transformers."""
    if key in PROJECTION_MAP:
        yield PROJECTION_MAP[key], value.T.contiguous()
        return
    name = next((new + key.removeprefix(old) for old, new in PREFIX_MAP if key.startswith(old)), key)
    for old, new in BLOCK_NAME_MAP:
        name = name.replace(old, new)
    block, fused, kind = name.partition(".attn.in_proj_")
    if not fused:
        yield name, value
        return
    for part, rows in zip("qkv", value.chunk(3), strict=True):
        yield f"{block}.self_attn.{part}_proj.{kind}", rows


def _make_config(shape: Architecture) -> CLIPConfig:
    words = {
        "vocab_size": shape.vocabulary_size,
        "max_position_embeddings": shape.text_tower.max_tokens,
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "projection_dim": shape.features,
    }
    pixels = {"image_size": shape.image_size, "patch_size": shape.patch_size, "projection_dim": shape.features}
    settings: dict[str, Any] = {
        "text_config": {**shape.text_tower.config_options, **words},
        "vision_config": {**shape.image_tower.config_options, **pixels},
        "projection_dim": shape.features,
        "attn_implementation": "sdpa",
    }
    return CLIPConfig(**settings)

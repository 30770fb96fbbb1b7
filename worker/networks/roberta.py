"""RoBERTa-base (Liu et al., arXiv:1907.11692) through `transformers`: an English sentence to one vector a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

from shared.errors import InvalidRequest, WeightsCorrupt

TOKEN_WIDTH = 768
"""Channels of a token."""

VOCABULARY_SIZE = 50265
"""Tokens known."""

SPECIAL_TOKENS = {"<s>": 0, "<pad>": 1, "</s>": 2}
"""The tokens that begin a sentence, fill it up and end it."""

MAX_TOKENS = 512
"""Tokens of a sentence with its beginning and end: of 514 positions, two come before the first token's."""

MAX_SHOWN_CHARS = 60
"""Characters of a sentence in an error."""


def build_roberta() -> RobertaModel:
    """Build the encoder without its pooler; `eager` attention gives the published numbers to the last bit."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": MAX_TOKENS + 2,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "attn_implementation": "eager",
    }
    network = RobertaModel(RobertaConfig(**settings), add_pooling_layer=False)
    # No checkpoint holds these two. They are made on the CPU even where the rest is built without numbers.
    position_ids = torch.arange(MAX_TOKENS + 2, device="cpu")[None]
    network.embeddings.position_ids = nn.Buffer(position_ids, persistent=False)
    network.embeddings.token_type_ids = nn.Buffer(torch.zeros_like(position_ids), persistent=False)
    return network


def read_tokenizer(vocabulary: Path, merges: Path) -> RobertaTokenizer:
    """Read the byte-level BPE tokenizer from the published files `vocab.json` and `merges.txt`.

    Raises:
        WeightsCorrupt: they are no such files, or not of this model.
    """
    ids, pairs = _read_vocabulary(vocabulary), _read_merges(merges)
    if (
        any(ids.get(token) != number for token, number in SPECIAL_TOKENS.items())
        or max(ids.values()) >= VOCABULARY_SIZE
    ):
        raise WeightsCorrupt(f"{vocabulary.name} is not the vocabulary of RoBERTa.")
    for pair in pairs:
        if not {*pair, "".join(pair)} <= ids.keys():
            raise WeightsCorrupt(f"{merges.name} does not belong to {vocabulary.name}: {' '.join(pair)!r}.")
    return RobertaTokenizer(vocab=ids, merges=pairs)


def tokenize_sentence(tokenizer: RobertaTokenizer, sentence: str) -> list[int]:
    """Tokenize a sentence: ids with start and end token.

    Raises:
        InvalidRequest: it has more than the network has positions for.
    """
    numbers: list[int] = tokenizer.backend_tokenizer.encode(sentence).ids
    if len(numbers) > MAX_TOKENS:
        raise InvalidRequest(
            f"{sentence[:MAX_SHOWN_CHARS]!r}... has {len(numbers)} tokens, more than the limit of {MAX_TOKENS}."
        )
    return numbers


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsCorrupt(f"{path.name} cannot be read.") from error
    if not isinstance(ids, dict) or not ids or not all(type(number) is int for number in ids.values()):
        raise WeightsCorrupt(f"{path.name} is no vocabulary.")
    return ids


def _read_merges(path: Path) -> list[Any]:
    """Read the merges in order of priority; a line that begins with `#version` is the header of the file."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise WeightsCorrupt(f"{path.name} cannot be read.") from error
    pairs = [line.rstrip("\r").split(" ") for line in lines if line.strip() and not line.startswith("#version")]
    if not all(len(pair) == 2 for pair in pairs):
        raise WeightsCorrupt(f"{path.name} is no list of pairs.")
    return [(left, right) for left, right in pairs]

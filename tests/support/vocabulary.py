"""A small vocabulary for RoBERTa's tokenizer: every byte, and the words of two sentences by their published numbers."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from worker.networks.roberta import SPECIAL_TOKENS

SPACE = "\u0120"
"""How a space is written in the vocabulary."""

WORDS = {
    "a": 102, " a": 10, " black": 909, " bike": 4806, " used": 341, " to": 7, " perform": 3008, " tricks": 5469,
    "guy": 19517, " in": 11, " performing": 4655, " on": 15,
}  # fmt: skip
"""Tokens of the sentences that the fixtures are of."""

BIKE = "a black bike used to perform tricks"
GUY = "guy in black performing tricks on a bike"
MASK = 50264


def write_vocabulary(folder: Path) -> tuple[Path, Path]:
    """`vocab.json` and `merges.txt`, in which words grow letter by letter."""
    words = {word.replace(" ", SPACE): number for word, number in WORDS.items()}
    merges_in_order = dict.fromkeys(pair for word in words for pair in _list_merges(word))
    ids = {**SPECIAL_TOKENS, "<unk>": 3, "<mask>": MASK, **words}
    for number, token in enumerate(
        [*sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges_in_order)], start=30_000
    ):
        ids.setdefault(token, number)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps(ids), encoding="utf-8")
    merges.write_text("\n".join(["#version: 0.2", *map(" ".join, merges_in_order)]) + "\n", encoding="utf-8")
    return vocabulary, merges


def _list_merges(word: str) -> list[tuple[str, str]]:
    """The pairs that make a word from its first letter on."""
    return [(word[:length], word[length]) for length in range(1, len(word))]

"""CLIP's tokenizer: lower-case byte pairs by the published vocabulary, the same ids as OpenAI's own.

`bpe_simple_vocab_16e6.txt.gz` is that vocabulary as OpenAI published it with CLIP (MIT): byte pairs in the order in
which they are joined. The arithmetic on it is that of the `tokenizers` library.
"""

from __future__ import annotations

import gzip
import html
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files as package_files

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence as Steps, Split

from shared.errors import FieldError, InvalidRequest

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
START_ID, END_ID = 49_406, 49_407
CONTEXT_LENGTH = 77
"""Tokens of a sentence, those of its start and its end included."""
MERGE_COUNT = 48_894
"""Pairs of the file that are joined; with two forms of each byte and two marks they make 49,408 tokens."""
END_OF_WORD = "</w>"
PRINTABLE_BYTES = (*range(33, 127), *range(161, 173), *range(174, 256))
"""Bytes that stand for themselves in the vocabulary; the others stand there as the characters from 256 on."""
WORD_PATTERN = (
    rf"{re.escape(START_TOKEN)}|{re.escape(END_TOKEN)}"
    r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""What is looked up by itself: a mark, an English ending, letters, one digit, or anything else but space."""

# What the published tokenizer tidies by ftfy.fix_text, without its guesses at text that was decoded wrongly.
ENTITY_PATTERN = re.compile(r"&#?[0-9A-Za-z]{1,24};")
QUOTE_MAP = {
    **dict.fromkeys(map(ord, "\u02bc\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
}
LIGATURE_MAP = {
    ord(letters): unicodedata.normalize("NFKC", letters)
    for letters in "\u0132\u0133\u0149\u01c4\u01c5\u01c6\u01c7\u01c8\u01c9\u01ca\u01cb\u01cc\u01f1\u01f2\u01f3"
    "\ufb00\ufb01\ufb02\ufb03\ufb04\ufb05\ufb06"
}
FULL_WIDTH_MAP = {0x3000: " "} | {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)}
CONTROL_MAP = dict.fromkeys((
    *range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)
))  # fmt: skip


def tokenize_sentences(sentences: Sequence[str], pointer: str = "/params/sentences") -> npt.NDArray[np.int64]:
    """Tokenize sentences: ids with start and end token, padded with 0 to `CONTEXT_LENGTH`.

    Args:
        sentences: any text; it is tidied and put in lower case first.
        pointer: JSON pointer of the list that they came in, for the error.

    Returns:
        (N, 77).

    Raises:
        InvalidRequest: one has more than 77 tokens; the error says which and how many. Nothing is ever cut off.
    """
    ids_NL = np.zeros((len(sentences), CONTEXT_LENGTH), np.int64)
    for number, sentence in enumerate(sentences):
        ids = [START_ID, *_load_tokenizer().encode(normalise_text(sentence)).ids, END_ID]
        if len(ids) > CONTEXT_LENGTH:
            raise _too_long_error(number, len(ids), pointer)
        ids_NL[number, : len(ids)] = ids
    return ids_NL


def normalise_text(text: str) -> str:
    """Normalise text: HTML entities, ligatures, widths and quotes replaced, NFC, single spaces, lower case.

    The published tokenizer also repairs text that was decoded in the wrong character set (ftfy); this one does not.
    """
    if "<" not in text:
        text = ENTITY_PATTERN.sub(lambda entity: html.unescape(entity[0]), text)
    for table in (LIGATURE_MAP, FULL_WIDTH_MAP, QUOTE_MAP, CONTROL_MAP):
        text = text.translate(table)
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return " ".join(text.split()).lower()


def _too_long_error(number: int, count: int, pointer: str) -> InvalidRequest:
    message = (
        f"has {count} tokens; CLIP reads at most {CONTEXT_LENGTH}, its start and its end included. Make it shorter."
    )
    field_error = FieldError(f"{pointer}/{number}", "too_many_tokens", f"The sentence {message}")
    return InvalidRequest(f"Sentence {number + 1} {message}", errors=(field_error,))


@cache
def _load_tokenizer() -> Tokenizer:
    """Load the tokenizer, once per process: it takes a third of a second."""
    pairs = _read_merges()
    alphabet = [chr(byte) for byte in PRINTABLE_BYTES]
    alphabet += [chr(256 + number) for number in range(256 - len(PRINTABLE_BYTES))]
    words = [*alphabet, *(letter + END_OF_WORD for letter in alphabet), *map("".join, pairs), START_TOKEN, END_TOKEN]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(ids, pairs, end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = Steps([
        Split(Regex(WORD_PATTERN), behavior="removed", invert=True),
        ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    return tokenizer


def _read_merges() -> list[tuple[str, str]]:
    """Read the merges of the byte-pair encoding, in order of priority."""
    compressed = package_files("worker.networks.clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(compressed).decode("utf-8").split("\n")[1 : MERGE_COUNT + 1]
    return [(first, second) for first, second in (line.split() for line in lines)]

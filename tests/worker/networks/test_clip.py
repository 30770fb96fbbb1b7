"""CLIP: the published numbers of both towers, of the tokenizer and of what it sees of a image."""

from __future__ import annotations

import gzip
import html
import re
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import regex
import torch
from hypothesis import given as draw, settings, strategies

from shared.errors import InvalidRequest
from tests.support.seeded_networks import build_clip_it
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_image, read_published_shapes, relative_error
from worker.models.clip_it.config import CROP
from worker.networks.clip.network import CLIP_MEAN, CLIP_STD, ClipNetwork, openai_shapes, rename_openai_tensors
from worker.networks.clip.tokens import CONTEXT_LENGTH, END_ID, START_ID, normalise_text, tokenize_sentences
from worker.runtime.device import normalise_frames
from worker.weights.pinned import state_shapes

VOCABULARY = "worker/networks/clip/bpe_simple_vocab_16e6.txt.gz"


# The network ---------------------------------------------------------------------------------------------------------


def test_the_names_are_the_published_ones() -> None:
    assert openai_shapes() == {key: shape for key, (shape, _) in read_published_shapes("clip_it_clip").items()}


def test_every_published_tensor_has_one_place() -> None:
    with torch.device("meta"):
        wanted = state_shapes(ClipNetwork().model)
        made = rename_openai_tensors({key: torch.empty(shape) for key, shape in openai_shapes().items()})
    assert {key: tuple(value.shape) for key, value in made.items()} == wanted


def test_a_network_lacks_nothing_once_it_took_the_tensors() -> None:
    network = build_clip_it().network.clip
    assert not [name for name, value in [*network.named_parameters(), *network.named_buffers()] if value.is_meta]


def test_a_tensor_that_is_missing_is_told() -> None:
    with torch.device("meta"):
        network, state = ClipNetwork(), {key: torch.empty(shape) for key, shape in openai_shapes().items()}
    del state["visual.ln_post.bias"]
    with pytest.raises(RuntimeError, match=r"post_layernorm\.bias"):
        network.load_openai_tensors(state)


@torch.inference_mode()
def test_features_of_images_are_the_published_ones() -> None:
    golden, clip = np.load(GOLDEN / "clip_it_clip.npz"), build_clip_it().network.clip
    half_1CHW = torch.from_numpy(golden["pixel_values"])
    assert relative_error(clip.encode_images(half_1CHW.float()), golden["pixel_from_half_image_features"]) < TOLERANCE
    pixels_1CHW = normalise_frames(torch.from_numpy(random_image(7, 224, 224))[None, None], CLIP_MEAN, CLIP_STD)
    assert np.array_equal(pixels_1CHW.half().numpy(), golden["pixel_values"])
    assert relative_error(clip.encode_images(pixels_1CHW), golden["image_features"]) < TOLERANCE


@torch.inference_mode()
def test_features_of_sentences_are_the_published_ones() -> None:
    golden, clip = np.load(GOLDEN / "clip_it_clip.npz"), build_clip_it().network.clip
    ids_NL = torch.from_numpy(golden["tokens"])
    assert relative_error(clip.encode_texts(ids_NL), golden["text_features"]) < TOLERANCE
    alone = torch.cat([clip.encode_texts(ids_NL[:1]), clip.encode_texts(ids_NL[1:])])
    assert relative_error(alone, golden["text_features"]) < TOLERANCE
    whole = clip.model.get_text_features(input_ids=ids_NL).pooler_output
    assert relative_error(clip.encode_texts(ids_NL), whole.numpy()) < TOLERANCE


@pytest.mark.parametrize("size", ["240x427", "360x640", "480x853", "225x300", "337x224", "720x1280", "501x333"])
def test_images_are_prepared_as_published(size: str) -> None:
    height, width = map(int, size.split("x"))
    seen = CROP.apply_to(random_image(height + width, height, width))
    made = normalise_frames(torch.from_numpy(seen)[None, None], CLIP_MEAN, CLIP_STD)[0, :, ::8, ::8]
    assert np.array_equal(made.numpy(), np.load(GOLDEN / "clip_it_preprocess.npz")[f"t_{size}"])


# The tokenizer -------------------------------------------------------------------------------------------------------


@cache
def ranks() -> dict[tuple[str, str], int]:
    lines = gzip.decompress((GOLDEN.parents[1] / VOCABULARY).read_bytes()).decode().split("\n")
    return {tuple(line.split()): rank for rank, line in enumerate(lines[1 : 49_152 - 256 - 2 + 1])}  # type: ignore[misc]


@cache
def letters() -> dict[int, str]:
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


@cache
def numbers() -> dict[str, int]:
    words = list(letters().values())
    words += [word + "</w>" for word in words] + ["".join(pair) for pair in ranks()]
    return {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}


def by_hand(word: str) -> list[int]:
    """Byte pairs joined one by one, the earliest of the vocabulary first: what the published tokenizer does."""
    parts = [letters()[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks().get(pair, 10**9))
        if best not in ranks():
            break
        joined, at = [], 0
        while at < len(parts):
            whole = tuple(parts[at : at + 2]) == best
            joined.append("".join(best) if whole else parts[at])
            at += 2 if whole else 1
        parts = joined
    return [numbers()[part] for part in parts]


def ids(text: str) -> list[int]:
    """The ids of a sentence without start, end and filling."""
    row = tokenize_sentences([text])[0].tolist()
    assert row[0] == START_ID
    end = row.index(END_ID)
    assert not any(row[end + 1 :])
    return row[1:end]


WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)
SENTENCES = [
    "a photo of a cat", "A person's dog -- isn't it 2021, they'd've said?!", "Grüße aus Köln: façade, naïve, Œuvre",
    "東京の夜景 と ラーメン", "Привет, мир", "🎬 the end 🎉🎉", "x" * 60, "antidisestablishmentarianism",
    "a\tb\n c   d", "", "'S 'LL", "100,000.00$", "ͼ҉ zalgo", "ΑΣ ΣΑΣ", "İstanbul",
]  # fmt: skip


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_have_the_published_ids(text: str) -> None:
    plain = re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip().lower()
    assert ids(text) == [number for word in WORD.findall(plain) for number in by_hand(word)]


@settings(max_examples=200, deadline=None)
@draw(strategies.text(strategies.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=12))
def test_any_text_has_the_published_ids(text: str) -> None:
    """On what is left of a text after tidying, which is tested by itself below."""
    plain = normalise_text(text)
    assert ids(text) == [number for word in WORD.findall(plain) for number in by_hand(word)]


def test_the_given_ids_are_those_of_words() -> None:
    golden = np.load(GOLDEN / "clip_it_clip.npz")["tokens"]
    said = [
        " ".join(word.removesuffix("</w>") for word in names_of([number for number in row if 0 < number < START_ID]))
        for row in golden.tolist()
    ]
    assert said == ["phone", "a dog of a"]
    assert np.array_equal(tokenize_sentences(said), golden)


def test_the_vocabulary_is_whole() -> None:
    assert len(numbers()) == 49_408
    assert numbers()["<|startoftext|>"] == START_ID
    assert numbers()["<|endoftext|>"] == END_ID
    assert names_of([49_405]) == ["jekyll</w>"]


def names_of(some: list[int]) -> list[str]:
    names = {number: word for word, number in numbers().items()}
    return [names[number] for number in some]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It\u2019s \u201cﬁne\u201d", 'it\'s "fine"'),
        ("ｗｉｄｅ\u3000open", "wide open"),  # noqa: RUF001 (what is to be made plain)
        ("e\u0301te\u0301", "été"),
        ("salt &amp; pepper &amp;amp; oil", "salt & pepper & oil"),
        ("AT&amp;T <b>", "at&t <b>"),
        ("a\ufeff b\x00c\x1f", "a bc"),
        ("  a \u2028 b\u00a0c ", "a b c"),
    ],
)
def test_text_is_made_plain(text: str, wanted: str) -> None:
    assert normalise_text(text) == wanted


def test_a_mark_in_a_sentence_is_that_mark() -> None:
    assert ids("a <|startoftext|> b") == [*by_hand("a"), START_ID, *by_hand("b")]


def test_77_tokens_are_read_and_78_refused() -> None:
    assert (tokenize_sentences(["cat " * 75]) > 0).sum() == CONTEXT_LENGTH
    with pytest.raises(InvalidRequest, match="Sentence 2 has 78 tokens") as caught:
        tokenize_sentences(["cat", "cat " * 76])
    assert [(fault.pointer, fault.code) for fault in caught.value.errors] == [
        ("/params/sentences/1", "too_many_tokens")
    ]

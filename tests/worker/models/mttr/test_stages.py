"""MTTR: frames resized as published, queries read, windows looked at once and asked about each query."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError

from shared.catalog import MttrParams
from shared.errors import InvalidRequest, ModelUnavailable, WeightsCorrupt
from tests.support import vocabulary
from tests.support.factories import make_video
from tests.support.seeded_networks import build_mttr
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_image, relative_error
from tests.support.vocabulary import BIKE, GUY
from worker.models.contract import RunInputs
from worker.models.mttr.config import QUERY_CACHE_SIZE
from worker.models.mttr.grounding import Grounding, normalise_query
from worker.models.mttr.network import MTTR, VideoBatch, VideoFeatures
from worker.models.mttr.resize import Resize
from worker.models.mttr.stages import encode, plan
from worker.networks.roberta import MAX_TOKENS, read_tokenizer, tokenize_sentence
from worker.runtime.device import DeviceNetwork
from worker.runtime.placement import Placement
from worker.video.windows import WindowSpec

IDS = {BIKE: [0, 102, 909, 4806, 341, 7, 3008, 5469, 2], GUY: [0, 19517, 11, 909, 4655, 5469, 15, 10, 4806, 2]}
"""What RoBERTa's own tokenizer makes of these."""


@pytest.fixture(scope="module")
def network() -> Grounding:
    return build_mttr()


def params(*queries: str, **others: object) -> MttrParams:
    return MttrParams.model_validate({"queries": queries or (BIKE,), **others})


# Frames --------------------------------------------------------------------------------------------------------------


def test_frames_are_resized_as_published() -> None:
    golden = np.load(GOLDEN / "mttr_resize.npz")
    resized_HWC = Resize().resize_frame(random_image(9, 480, 854))
    assert resized_HWC.shape == (360, 640, 3)
    assert resized_HWC.dtype == np.uint8
    assert np.array_equal(resized_HWC[::4, ::4], golden["aa_sub"][0].transpose(1, 2, 0))


@pytest.mark.parametrize(("given_size", "wanted"), [
    ((480, 854), (360, 640)), ((240, 320), (360, 480)), ((360, 2000), (115, 640)), ((361, 641), (360, 639)),
    ((854, 480), (640, 360)), ((360, 640), (360, 640)), ((720, 1280), (360, 640)), ((2, 4000), (1, 640)),
])  # fmt: skip
def test_sizes_are_the_published_ones(given_size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert Resize().output_size(*given_size) == wanted


def test_a_smaller_short_side_keeps_the_ratio() -> None:
    assert Resize(96).output_size(720, 1280) == (96, 170)
    assert Resize(96).output_size(100, 1000) == (17, 170)


def test_a_frame_of_that_size_is_left_alone() -> None:
    frame_HWC = random_image(1, 360, 640)
    assert Resize().resize_frame(frame_HWC) is frame_HWC


def test_each_pixel_is_a_weighted_mean_of_those_it_stands_for() -> None:
    """Along a line by the triangle filter, in float64."""
    line = random_image(3, 96, 300)[:1].repeat(96, axis=0)
    made = Resize(96).resize_frame(line)[0].astype(float)
    scale = 300 / 170
    centres, at = scale * (np.arange(170) + 0.5), np.arange(300) + 0.5
    weights = np.clip(1 - np.abs(at[None] - centres[:, None]) / scale, 0, None)
    wanted = weights / weights.sum(axis=1, keepdims=True) @ line[0].astype(float)
    assert np.abs(made - wanted).max() <= 0.5 + 1e-3


# Queries -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [BIKE, GUY])
def test_queries_become_the_published_tokens(network: Grounding, query: str) -> None:
    assert tokenize_sentence(network.tokenizer, query) == IDS[query]
    assert (
        tokenize_sentence(network.tokenizer, normalise_query(f"  {query.upper()}\t\n").replace(" ", "  ")) != IDS[query]
    )
    assert tokenize_sentence(network.tokenizer, normalise_query(f"  {query.upper()}\t\n")) == IDS[query]


def test_a_query_is_read_once_however_it_is_written(network: Grounding, monkeypatch: pytest.MonkeyPatch) -> None:
    words = network.encode_query(BIKE)
    assert words.shape == (1, len(IDS[BIKE]), 256)
    monkeypatch.setattr(MTTR, "encode_queries", None)  # it would fail
    assert network.encode_query(f" {BIKE.title()} ") is words


def test_of_many_queries_the_last_are_kept(network: Grounding, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Grounding(network.device_network, network.tokenizer)
    monkeypatch.setattr(MTTR, "encode_queries", lambda self, ids, seen: ids)
    first = mine.encode_query("a")
    for number in range(QUERY_CACHE_SIZE - 1):
        mine.encode_query(f"a {number}")
    assert mine.encode_query("a") is first
    mine.encode_query("b")
    mine.encode_query("c")
    assert mine.encode_query("a") is first
    assert len(mine._encoded_queries) == QUERY_CACHE_SIZE


def test_a_query_of_too_many_tokens_is_refused(network: Grounding) -> None:
    many = "\N{SNOWMAN}" * 171  # three bytes each, of which this vocabulary knows no more
    assert len(tokenize_sentence(network.tokenizer, many[:-1])) == MAX_TOKENS
    frames = np.zeros((1, 1, 32, 32, 3), np.uint8)
    with pytest.raises(InvalidRequest, match="515 tokens"):
        encode(network, frames, params(BIKE, many))


def _of(**ids: int) -> str:
    return json.dumps(ids)


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("nonsense", "", "cannot be read"),
        ("[]", "", "no vocabulary"),
        ('{"a": "b"}', "", "no vocabulary"),
        (_of(a=0), "", "not the vocabulary of RoBERTa"),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2, "a": 50265}', "", "not the vocabulary of RoBERTa"),
        (None, "a", "no list of pairs"),
        (None, "a \u2603", "does not belong to vocab.json"),
    ],
)
def test_another_tokenizer_is_refused(vocab: str | None, merges: str, message: str, tmp_path: Path) -> None:
    paths = vocabulary.write_vocabulary(tmp_path)
    if vocab is not None:
        paths[0].write_text(vocab)
    paths[1].write_text(merges, encoding="utf-8")
    with pytest.raises(WeightsCorrupt, match=message):
        read_tokenizer(*paths)


# Stages --------------------------------------------------------------------------------------------------------------


def test_the_plan_is_the_published_one() -> None:
    planned = plan(make_video(), RunInputs(), params(start_s=0.04, end_s=2.5, short_side=96), Placement())
    assert planned.windows == WindowSpec(24, 18, pad_end=False)
    assert planned.batch_size == 1
    assert (planned.start_time, planned.end_time) == (Fraction(1, 25), Fraction(5, 2))
    assert planned.preprocess is not None
    assert planned.preprocess(random_image(1, 180, 320)).shape == (96, 170, 3)
    assert plan(make_video(), RunInputs(), params(), Placement()).end_time is None


def test_bf16_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ModelUnavailable):
        plan(make_video(), RunInputs(), params(precision="bf16"), Placement(precision="fp32"))


def test_a_part_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValidationError, match="end_s must come after"):
        params(start_s=3, end_s=3)


def frames_of(times: int, height: int = 64, width: int = 96) -> npt.NDArray[np.uint8]:
    return np.stack([random_image(seed, height, width) for seed in range(times)])[None]


def test_a_window_is_asked_about_each_query(network: Grounding) -> None:
    frames_BTHWC = frames_of(5, 66, 90)
    (answers,) = encode(network, frames_BTHWC, params(BIKE, GUY))
    assert [answer.referred_TN.shape for answer in answers] == [(5, 50)] * 2
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    pixels = ((frames_BTHWC[0] / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)[:, None]
    for query, answer in zip((BIKE, GUY), answers, strict=True):
        ids_1L = torch.tensor([IDS[query]])
        with torch.inference_mode():
            prediction = network.device_network.network(
                VideoBatch(torch.from_numpy(pixels)), ids_1L, torch.ones_like(ids_1L)
            )
        assert (answer.height, answer.width) == (66, 90)
        assert relative_error(answer.referred_TN, prediction.referred_DNQ2[-1].softmax(-1)[..., 0].numpy()) < TOLERANCE
        assert relative_error(answer.instance_logits(7), prediction.mask_logits()[:, 7].numpy()) < TOLERANCE
        assert {part.dtype for part in (answer.referred_TN, answer.kernels_TNK, answer.features_TKhw)} == {
            np.dtype("f4")
        }


def test_the_video_is_looked_at_once_for_all_queries(network: Grounding, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, look = [], MTTR.encode_videos

    def counted(self: MTTR, videos: VideoBatch) -> VideoFeatures:
        seen.append(videos)
        return look(self, videos)

    monkeypatch.setattr(MTTR, "encode_videos", counted)
    encode(network, frames_of(2, 32, 32), params(BIKE, GUY, "a"))
    assert len(seen) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_short_windows(network: Grounding, times: int) -> None:
    ((answer,),) = encode(network, frames_of(times, 32, 60), params())
    assert answer.features_TKhw.shape == (times, 8, 8, 15)
    assert np.isfinite(answer.instance_logits(0)).all()


def test_bf16_finds_nearly_the_same(network: Grounding) -> None:
    half = Grounding(
        DeviceNetwork(network.device_network.network, network.device_network.device, "bf16"), network.tokenizer
    )
    frames_BTHWC = frames_of(4)
    ((full,),), ((less,),) = (encode(each, frames_BTHWC, params()) for each in (network, half))
    assert np.abs(full.referred_TN - less.referred_TN).max() < 0.02
    agree = [np.mean((full.instance_logits(n) > 0) == (less.instance_logits(n) > 0)) for n in range(50)]
    assert np.mean(agree) > 0.97
    assert not np.array_equal(full.features_TKhw, less.features_TKhw)
    again = encode(half, frames_BTHWC, params(precision="fp32"))[0][0]
    assert np.array_equal(again.features_TKhw, full.features_TKhw)

"""MTTR: the published numbers of every part, of one video and of two side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.golden_samples import names, off_golden
from tests.support.seeded_networks import build_mttr
from tests.support.seeded_weights import (
    GOLDEN,
    TOLERANCE,
    build_own_shapes,
    random_tensor,
    read_published_shapes,
    relative_error,
)
from tests.support.vocabulary import BIKE
from worker.models.mttr.network import MTTR, Prediction, VideoBatch, pad_videos
from worker.models.mttr.transformer import position_encoding
from worker.models.mttr.weights import POSITION_IDS_KEY, expected_shapes
from worker.networks.roberta import tokenize_sentence
from worker.networks.video_swin import SwinShape, VideoSwin, build_layout

STEPS = {"l0": 12, "l1": 4, "l2": 8}
"""Every how many channels of a stage the golden was taken from."""


@pytest.fixture(scope="module")
def network() -> MTTR:
    """With name-seeded weights."""
    return build_mttr().device_network.network


def everywhere(ids_BL: Tensor) -> Tensor:
    return torch.ones_like(ids_BL, dtype=torch.bool)


def test_the_names_are_the_published_ones() -> None:
    names = read_published_shapes("mttr")
    assert names.pop(POSITION_IDS_KEY) == ((1, 514), "int64")  # absent from today's transformers
    assert build_own_shapes(MTTR) == names
    assert sum(np.prod(shape) for shape in expected_shapes().values()) == 146_489_864


# The backbone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["g0", "g1", "g2"])
@torch.inference_mode()
def test_the_backbone_gives_the_published_numbers(network: MTTR, case: str) -> None:
    golden = np.load(GOLDEN / "mttr_backbone.npz")
    frames_TCHW = random_tensor(int(golden[f"{case}_seed"]), *golden[f"{case}_shape"].tolist())
    stages = network.backbone(frames_TCHW.transpose(0, 1)[None])
    for (stage, step), made_BTHWC in zip(STEPS.items(), stages, strict=True):
        assert off_golden(made_BTHWC[0].permute(0, 3, 1, 2)[:, ::step], golden, f"{case}_{stage}") < TOLERANCE


@torch.inference_mode()
def test_few_tokens_at_a_time_change_nothing(network: MTTR, monkeypatch: pytest.MonkeyPatch) -> None:
    frames_BCTHW = random_tensor(5, 1, 3, 9, 36, 60)
    whole = network.backbone(frames_BCTHW)
    monkeypatch.setattr("worker.networks.video_swin.CPU_TOKENS_PER_STEP", 500)
    build_layout.cache_clear()
    try:
        for few, all_ in zip(network.backbone(frames_BCTHW), whole, strict=True):
            assert relative_error(few, all_.numpy()) < TOLERANCE
    finally:
        build_layout.cache_clear()


@torch.inference_mode()
def test_videos_do_not_see_each_other(network: MTTR) -> None:
    videos = [random_tensor(seed, 1, 3, 4, 40, 72) for seed in (1, 2)]
    together = network.backbone(torch.cat(videos))
    for number, video in enumerate(videos):
        for alone, both in zip(network.backbone(video), together, strict=True):
            assert relative_error(both[number : number + 1], alone.numpy()) < TOLERANCE


@pytest.mark.parametrize("size", [(1, 4, 4), (9, 30, 33), (8, 7, 7), (24, 8, 50)])
@pytest.mark.parametrize("shifted", [False, True])
def test_every_token_has_one_place(size: tuple[int, int, int], shifted: bool) -> None:
    layout = build_layout(size, (8, 7, 7), shifted, torch.device("cpu"))
    chunks = [chunk for group in layout.groups for chunk in group.chunks]
    token_Q = torch.cat([chunk.token_Q.index_fill(0, chunk.empty_slots, -1) for chunk in chunks])
    assert len(token_Q) == layout.slot_count
    assert sorted(token_Q[token_Q >= 0].tolist()) == list(range(int(np.prod(size))))
    assert torch.equal(token_Q[layout.slot_P], torch.arange(len(layout.slot_P)))
    assert [chunk.start for chunk in chunks] == np.cumsum([0, *(len(chunk.token_Q) for chunk in chunks[:-1])]).tolist()


def test_the_backbone_can_be_trained() -> None:
    shape = SwinShape(width=12, depths=(2, 2), heads=(1, 2))
    backbone = VideoSwin(shape)
    made = backbone(random_tensor(1, 1, 3, 10, 60, 44))[-1]
    made.square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in backbone.parameters())
    first = backbone.get_parameter("layers.0.blocks.0.mlp.fc1.weight").grad
    assert first is not None
    assert first.any()


# Text ----------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_the_text_encoder_gives_the_published_numbers(network: MTTR) -> None:
    golden = np.load(GOLDEN / "mttr_roberta.npz")
    ids_BL, seen_BL = (torch.from_numpy(golden[key]) for key in ("input_ids", "attention_mask"))
    made = network.transformer.text_encoder(input_ids=ids_BL, attention_mask=seen_BL).last_hidden_state
    assert relative_error(made, golden["last_hidden_state"]) < TOLERANCE


# The whole network ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bike() -> Tensor:
    """Tokens of a query, (1, L)."""
    return torch.tensor([tokenize_sentence(build_mttr().tokenizer, BIKE)])


@torch.inference_mode()
def test_one_video_gives_the_published_numbers(network: MTTR, bike: Tensor) -> None:
    golden = np.load(GOLDEN / "mttr_single.npz")
    assert bike[0].tolist() == golden["token_ids"].tolist()
    videos = VideoBatch(random_tensor(int(golden["video_seed"]), *golden["video_shape"].tolist())[:, None])
    prediction = network(videos, bike, everywhere(bike))
    pixels_NChw = prediction.memory_NSC[:, :60].transpose(1, 2).unflatten(2, (6, 10))
    made = {
        "pred_is_referred": prediction.referred_DNQ2[-1][:, None],
        "pred_masks": prediction.mask_logits()[:, None, ::5],
        "pred_masks_full_t0": prediction.mask_logits()[:1],
        "mask_t0_q6": prediction.mask_logits()[0, 6],
        "aux0_is_referred": prediction.referred_DNQ2[0][:, None],
        "aux1_masks_t0": prediction.mask_logits(layer=1)[:1],
        "hs": prediction.instances_DNQC[:, ::3, None],
        "vid_memory": pixels_NChw[::3, None],
        "txt_memory0": prediction.memory_NSC[0, 60:],
        "txt_proj": network.encode_queries(bike, everywhere(bike)).transpose(0, 1),
        "pos_embed_t0": network.encode_videos(videos).position_NhwC[0],
    }
    assert made.keys() == names(golden) - {"video_seed", "video_shape", "token_ids"}
    far = {key: off_golden(value, golden, key) for key, value in made.items()}
    assert all(distance < TOLERANCE for distance in far.values()), far


@pytest.fixture(scope="module")
def batch(network: MTTR) -> tuple[VideoBatch, Prediction]:
    """Two videos of different size and length, each with a query of its own, as the golden has them."""
    golden = np.load(GOLDEN / "mttr_batch.npz")
    videos = [
        random_tensor(int(seed), *shape.tolist()) for seed, shape in zip(golden["seeds"], golden["shapes"], strict=True)
    ]
    beside = pad_videos(videos)
    ids_BL = torch.ones(2, len(golden["token_ids1"]), dtype=torch.int64)
    for row, key in enumerate(("token_ids0", "token_ids1")):
        ids_BL[row, : len(golden[key])] = torch.from_numpy(golden[key])
    with torch.inference_mode():
        return beside, network(beside, ids_BL, ids_BL != 1, torch.from_numpy(golden["valid_indices"]))


def test_two_videos_side_by_side_give_the_published_numbers(batch: tuple[VideoBatch, Prediction]) -> None:
    golden = np.load(GOLDEN / "mttr_batch.npz")
    videos, prediction = batch
    assert videos.valid_TBHW is not None
    assert np.array_equal(~videos.valid_TBHW[:, :, ::16, ::16].numpy(), golden["mask_any"])
    assert relative_error(prediction.referred_DNQ2[-1].view(2, 2, 50, 2), golden["pred_is_referred"]) < TOLERANCE
    assert relative_error(prediction.mask_logits()[:, ::5].reshape(2, 2, 10, 24, 32), golden["pred_masks"]) < TOLERANCE


@torch.inference_mode()
def test_frames_and_queries_apart_say_what_they_say_together(network: MTTR, bike: Tensor) -> None:
    seen = network.encode_videos(VideoBatch(random_tensor(3, 5, 1, 3, 34, 60)))
    words = network.encode_queries(bike, everywhere(bike))
    whole = network.predict_instances(seen, words)
    parts = [network.predict_instances(part, words) for part in seen.split_frames(2)]
    assert [len(part.features_NKhw) for part in parts] == [2, 2, 1]
    assert relative_error(torch.cat([part.mask_logits() for part in parts]), whole.mask_logits().numpy()) < TOLERANCE
    assert (
        relative_error(torch.cat([part.referred_DNQ2 for part in parts], dim=1), whole.referred_DNQ2.numpy())
        < TOLERANCE
    )


def test_positions_are_counted_within_the_image() -> None:
    seen_Nhw = torch.zeros(2, 4, 6, dtype=torch.bool)
    seen_Nhw[0], seen_Nhw[1, :2, :3] = True, True
    position = position_encoding(seen_Nhw, 256)
    assert position.shape == (2, 4, 6, 256)
    assert torch.equal(position[1, :2, :3], position_encoding(torch.ones(1, 2, 3, dtype=torch.bool), 256)[0])
    # the last row of both lies at 2 pi, the last column too
    assert np.allclose(position[0, -1, 0, :2], [0, 1], atol=1e-5)
    assert np.allclose(position[1, 0, 2, 128:130], [0, 1], atol=1e-5)

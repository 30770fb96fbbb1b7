"""ResNet-50 with the published names and the published numbers, and a network in place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from shared.errors import ModelUnavailable
from tests.support.model_runs import make_pattern
from tests.support.seeded_weights import (
    GOLDEN,
    TOLERANCE,
    build_own_shapes,
    load_seeded_weights,
    random_tensor,
    read_published_shapes,
    relative_error,
)
from worker.networks.resnet import FEATURE_WIDTH, Head, ResNet50
from worker.runtime.device import DeviceNetwork, normalise_frames, resolve_precision


@pytest.fixture(scope="module")
def encoder() -> ResNet50:
    """The shot encoder of BaSSL."""
    network = ResNet50()
    load_seeded_weights(network, "bassl", only="shot_encoder.")
    return network


@pytest.fixture(scope="module")
def placed(encoder: ResNet50) -> DeviceNetwork[ResNet50]:
    """The same, in a place that has bf16."""
    return DeviceNetwork.load_on(copy.deepcopy(encoder), "cpu", "bf16")


def pictures(count: int = 3) -> np.ndarray:
    """Windows of one image: (B, 1, 96, 96, 3)."""
    return np.stack([make_pattern(seed, 96, 96) for seed in range(count)])[:, None]


def test_three_channels_without_a_head_have_the_published_names() -> None:
    named = {f"shot_encoder.{key}": value for key, value in build_own_shapes(ResNet50).items()}
    assert named == {key: value for key, value in read_published_shapes("bassl").items() if key in named}
    assert len(named) == sum(key.startswith("shot_encoder.") for key in read_published_shapes("bassl"))


def test_nine_channels_with_a_linear_head_have_the_published_names() -> None:
    assert build_own_shapes(lambda: ResNet50(channels=9, head=Head.LINEAR)) == read_published_shapes("scrl_encoder")


def test_the_head_of_pre_training_has_the_published_names() -> None:
    names = build_own_shapes(lambda: ResNet50(head=Head.MLP)).keys() - build_own_shapes(ResNet50).keys()
    assert names == {"fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"}


@torch.inference_mode()
def test_the_numbers_are_the_published_ones(encoder: ResNet50) -> None:
    golden = np.load(GOLDEN / "bassl_encoder.npz")
    x = torch.from_numpy(golden["x"]).float()
    assert relative_error(encoder(x), golden["y"]) < TOLERANCE
    assert relative_error(encoder(x.to(memory_format=torch.channels_last)), golden["y"]) < TOLERANCE


@torch.inference_mode()
def test_nine_channels_give_the_published_numbers_with_and_without_the_head() -> None:
    golden = np.load(GOLDEN / "scrl_encoder.npz")
    network = ResNet50(channels=9, head=Head.LINEAR)
    load_seeded_weights(network, "scrl_encoder")
    x = random_tensor(21, 2, 9, 64, 64)
    assert relative_error(network.extract_features(x), golden["embedding"]) < TOLERANCE
    assert relative_error(network(x), golden["with_fc"]) < TOLERANCE


@torch.inference_mode()
def test_the_head_of_pre_training_is_two_layers_behind_the_feature() -> None:
    network, x = ResNet50(head=Head.MLP).eval(), random_tensor(1, 2, 3, 64, 64)
    first, last = network.get_submodule("fc.0"), network.get_submodule("fc.2")
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = network.extract_features(x) @ first.weight.T + first.bias
    wanted = hidden.clamp_min(0) @ last.weight.T + last.bias
    assert network(x).shape == (2, FEATURE_WIDTH)
    assert torch.allclose(network(x), wanted, atol=1e-5)


def test_images_are_normalised_colour_by_colour_and_image_by_image() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 5, 3), np.uint8)
    made = normalise_frames(torch.from_numpy(frames))
    assert made.shape == (2, 9, 4, 5)
    assert made.is_contiguous(memory_format=torch.channels_last)
    for picture in range(3):
        for colour, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
            wanted = (frames[:, picture, :, :, colour] / 255 - mean) / std
            assert np.allclose(made[:, 3 * picture + colour].numpy(), wanted, atol=1e-6)


def test_a_batch_of_n_is_n_batches_of_one_in_place(placed: DeviceNetwork[ResNet50]) -> None:
    frames = pictures()
    with placed.inference_context("fp32"):
        together = placed.network(placed.normalise_frames(frames))
        alone = torch.cat([placed.network(placed.normalise_frames(frames[n : n + 1])) for n in range(len(frames))])
    assert relative_error(together, alone.numpy()) < TOLERANCE


def test_bf16_is_computed_where_it_is_asked_for_and_is_near(placed: DeviceNetwork[ResNet50]) -> None:
    x = placed.normalise_frames(pictures())
    with placed.inference_context("fp32"):
        exact = placed.network(x)
    with placed.inference_context("auto"):
        by_default = placed.network(x)
    with placed.inference_context("bf16"):
        coarse = placed.network(x)
    assert (exact.dtype, by_default.dtype, coarse.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    assert torch.equal(by_default, coarse)
    assert nn.functional.cosine_similarity(exact, coarse.float()).min() > 0.999


@pytest.mark.parametrize(
    ("asked", "placed", "wanted"),
    [("auto", "fp32", "fp32"), ("auto", "bf16", "bf16"), ("fp32", "bf16", "fp32"), ("bf16", "bf16", "bf16")],
)
def test_what_was_asked_for_is_done(asked: str, placed: str, wanted: str) -> None:
    assert resolve_precision(asked, placed) == wanted


def test_bf16_is_refused_where_there_is_none(encoder: ResNet50) -> None:
    with pytest.raises(ModelUnavailable, match="bf16"):
        resolve_precision("bf16", "fp32")

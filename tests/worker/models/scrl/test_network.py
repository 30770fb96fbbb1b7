"""SCRL: the published numbers from keyframes to probabilities, and videos of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.catalog import ScrlParams
from tests.support.factories import make_video
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
from tests.worker.models.scenes.synthetic_shots import make_context, make_shot_rows, make_window_outputs
from worker.models.contract import RunInputs
from worker.models.scrl.config import SLIDING_WINDOWS
from worker.models.scrl.network import SCRL, BoundaryNetwork, boundary_probabilities
from worker.models.scrl.stages import encode, infer, pad_shots, plan, postprocess, score_shots
from worker.runtime.device import DeviceNetwork
from worker.runtime.placement import Placement

TRAINED = 1e-4


def boundary_network() -> BoundaryNetwork:
    """With name-seeded weights."""
    built = BoundaryNetwork()
    load_seeded_weights(built, "scrl_bilstm")
    return built


@pytest.fixture(scope="module")
def placed() -> DeviceNetwork[SCRL]:
    """The whole network with name-seeded weights, on the CPU."""
    network = SCRL()
    load_seeded_weights(network.encoder, "scrl_encoder", drop="fc.")
    load_seeded_weights(network.boundary, "scrl_bilstm")
    return DeviceNetwork.load_on(network, "cpu", "fp32")


def published_way(network: BoundaryNetwork, features_ND: Tensor) -> Tensor:
    """Windows one by one, the short one at the end among them, as the specification of the released code has it."""
    shots, spare = len(features_ND), -(len(features_ND) + 20) % 20
    rows = [features_ND[0]] * 10 + list(features_ND) + [features_ND[-1]] * (10 + spare)
    kept = []
    for start in range(0, len(rows), 20):
        window = torch.stack(rows[start : start + 40])
        kept += boundary_probabilities(network(window[None]))[0, 10:30].tolist()
    return torch.tensor(kept[:shots])


# The network ---------------------------------------------------------------------------------------------------------


def test_the_names_are_the_published_ones() -> None:
    assert build_own_shapes(BoundaryNetwork) == read_published_shapes("scrl_bilstm")
    encoder = {key: value for key, value in read_published_shapes("scrl_encoder").items() if not key.startswith("fc.")}
    wanted = {f"encoder.{key}": value for key, value in encoder.items()}
    wanted |= {f"boundary.{key}": value for key, value in read_published_shapes("scrl_bilstm").items()}
    assert build_own_shapes(SCRL) == wanted


@torch.inference_mode()
def test_the_encoder_gives_the_published_numbers(placed: DeviceNetwork[SCRL]) -> None:
    golden = np.load(GOLDEN / "scrl_encoder.npz")
    assert relative_error(placed.network.encode_shots(random_tensor(21, 2, 9, 64, 64)), golden["embedding"]) < TOLERANCE


@torch.inference_mode()
def test_the_boundary_network_gives_the_published_numbers(placed: DeviceNetwork[SCRL]) -> None:
    golden = np.load(GOLDEN / "scrl_bilstm.npz")
    logits_BL2 = placed.network(random_tensor(int(golden["x_seed"]), *golden["x_shape"].tolist()))
    assert relative_error(torch.softmax(logits_BL2, -1), golden["prob_eval"]) < TOLERANCE
    assert torch.equal(boundary_probabilities(logits_BL2), torch.softmax(logits_BL2, -1)[..., 1])


def test_the_boundary_network_trains_by_the_published_numbers() -> None:
    golden, network = np.load(GOLDEN / "scrl_bilstm.npz"), boundary_network().train()
    network.input_dropout.p = network.fc_dropout.p = network.lstm.dropout = 0.0
    logits_BL2 = network(random_tensor(int(golden["x_seed"]), *golden["x_shape"].tolist()))
    classes = torch.tensor([1.0, 4.0])
    loss = nn.functional.cross_entropy(logits_BL2.flatten(0, 1), torch.from_numpy(golden["y"]).flatten(), classes)
    assert relative_error(logits_BL2, golden["logits_train_nodrop"]) < TRAINED
    assert relative_error(loss, golden["loss"]) < TRAINED
    assert isinstance(network.bn1.running_mean, Tensor)
    assert isinstance(network.bn2.running_var, Tensor)
    assert relative_error(network.bn1.running_mean, golden["bn1_mean_after"]) < TRAINED
    assert relative_error(network.bn2.running_var, golden["bn2_var_after"]) < TRAINED


# Stages --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [7, 40, 53, 101])
def test_sliding_over_a_video_gives_the_published_numbers(placed: DeviceNetwork[SCRL], shots: int) -> None:
    golden = np.load(GOLDEN / f"scrl_infer_{shots}.npz")
    features = random_tensor(int(golden["emb_seed"]), shots, 1, 2048)
    scored = infer(placed, make_window_outputs(features.numpy()), ScrlParams())
    assert SLIDING_WINDOWS.padded_length(shots) == len(pad_shots(features[:, 0])) == golden["padded_len"]
    assert relative_error(scored.probabilities, golden["prob"]) < TOLERANCE
    assert np.array_equal(scored.probabilities > 0.5, golden["prob"] > 0.5)


@pytest.mark.parametrize("shots", [1, 2, 19, 20, 21, 60])
@torch.inference_mode()
def test_the_window_that_is_left_out_says_nothing(placed: DeviceNetwork[SCRL], shots: int) -> None:
    features_ND, network = random_tensor(shots, shots, 2048), placed.network.boundary
    assert relative_error(score_shots(network, features_ND), published_way(network, features_ND).numpy()) < TOLERANCE


def test_the_keyframes_of_a_shot_are_one_image_of_nine_channels(placed: DeviceNetwork[SCRL]) -> None:
    inputs = RunInputs({"shots": make_shot_rows([5, 1])}, {"shots": {"keyframes": Path("keyframes.zip")}})
    places = plan(make_video(), inputs, ScrlParams(), Placement()).windows
    assert [(len(place.names), place.start, place.stop) for place in places] == [(3, 0, 1), (3, 1, 2)]
    frames = np.stack([make_pattern(seed, 224, 224) for seed in range(6)]).reshape(2, 3, 224, 224, 3)
    made = encode(placed, frames, ScrlParams())
    assert made.shape == (2, 1, 2048)
    assert made.dtype == np.float32
    mean, std = np.float32([0.485, 0.456, 0.406] * 3), np.float32([0.229, 0.224, 0.225] * 3)
    plain = (np.concatenate(frames.swapaxes(0, 1), axis=-1) / 255 - mean) / std
    with torch.inference_mode():
        wanted = placed.network.encode_shots(torch.from_numpy(plain.transpose(0, 3, 1, 2).astype(np.float32)))
    assert relative_error(made[:, 0], wanted.numpy()) < TOLERANCE


@pytest.mark.parametrize("shots", [1, 2, pytest.param(12_000, marks=pytest.mark.slow)])
def test_videos_of_any_length(placed: DeviceNetwork[SCRL], shots: int) -> None:
    features_ND = random_tensor(9, shots, 2048)
    scored = infer(placed, make_window_outputs(features_ND.numpy()[:, None]), ScrlParams())
    with torch.inference_mode():
        tail = published_way(placed.network.boundary, features_ND[-60:])[-30:]
        head = published_way(placed.network.boundary, features_ND[:60])[:20]
    assert relative_error(scored.probabilities[:20], head.numpy()) < TOLERANCE
    if shots % 20 == 0 or shots <= 60:
        assert relative_error(scored.probabilities[-30:], tail.numpy()) < TOLERANCE
    results = postprocess(scored, make_context(make_shot_rows([3] * shots)), ScrlParams()).results
    scenes = [result.data["shots"] for result in results if result.kind == "scene"]
    assert [first for first, _ in scenes] == [0, *(last + 1 for _, last in scenes[:-1])]
    assert scenes[-1][1] == shots - 1
    assert len(results) == shots + len(scenes)


def test_a_video_without_shots(placed: DeviceNetwork[SCRL]) -> None:
    scored = infer(placed, [], ScrlParams())
    assert postprocess(scored, make_context([]), ScrlParams()).results == ()

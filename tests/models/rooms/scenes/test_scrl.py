"""SCRL: the published numbers from keyframes to probabilities, and films of any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.catalog import ScrlParams
from tests.factories import video
from tests.models.films import pattern
from tests.models.rooms.scenes.made import film_of, pieces_of, shots_of
from tests.models.seeded import GOLDEN, SAME, off, own, published, rnd, seeded
from worker.encoders.placed import Placed
from worker.models.contract import Inputs
from worker.models.placement import Placement
from worker.models.scrl.config import SLIDING
from worker.models.scrl.network import SCRL, BoundaryNetwork, probabilities
from worker.models.scrl.stages import decode, encode, infer, padded, plan, slid

TRAINED = 1e-4


def boundary_network() -> BoundaryNetwork:
    """With name-seeded weights."""
    built = BoundaryNetwork()
    seeded(built, "scrl_bilstm")
    return built


@pytest.fixture(scope="module")
def placed() -> Placed[SCRL]:
    """The whole network with name-seeded weights, on the CPU."""
    network = SCRL()
    seeded(network.encoder, "scrl_encoder", drop="fc.")
    seeded(network.boundary, "scrl_bilstm")
    return Placed.put(network, "cpu", "fp32")


def published_way(network: BoundaryNetwork, features_ND: Tensor) -> Tensor:
    """Windows one by one, the short one at the end among them, as the specification of the released code has it."""
    shots, spare = len(features_ND), -(len(features_ND) + 20) % 20
    rows = [features_ND[0]] * 10 + list(features_ND) + [features_ND[-1]] * (10 + spare)
    kept = []
    for start in range(0, len(rows), 20):
        window = torch.stack(rows[start : start + 40])
        kept += probabilities(network(window[None]))[0, 10:30].tolist()
    return torch.tensor(kept[:shots])


# The network ---------------------------------------------------------------------------------------------------------


def test_the_names_are_the_published_ones() -> None:
    assert own(BoundaryNetwork) == published("scrl_bilstm")
    encoder = {key: value for key, value in published("scrl_encoder").items() if not key.startswith("fc.")}
    wanted = {f"encoder.{key}": value for key, value in encoder.items()}
    wanted |= {f"boundary.{key}": value for key, value in published("scrl_bilstm").items()}
    assert own(SCRL) == wanted


@torch.inference_mode()
def test_the_encoder_gives_the_published_numbers(placed: Placed[SCRL]) -> None:
    golden = np.load(GOLDEN / "scrl_encoder.npz")
    assert off(placed.network.features(rnd(21, 2, 9, 64, 64)), golden["embedding"]) < SAME


@torch.inference_mode()
def test_the_boundary_network_gives_the_published_numbers(placed: Placed[SCRL]) -> None:
    golden = np.load(GOLDEN / "scrl_bilstm.npz")
    logits_BL2 = placed.network(rnd(int(golden["x_seed"]), *golden["x_shape"].tolist()))
    assert off(torch.softmax(logits_BL2, -1), golden["prob_eval"]) < SAME
    assert torch.equal(probabilities(logits_BL2), torch.softmax(logits_BL2, -1)[..., 1])


def test_the_boundary_network_trains_by_the_published_numbers() -> None:
    golden, network = np.load(GOLDEN / "scrl_bilstm.npz"), boundary_network().train()
    network.input_dropout.p = network.fc_dropout.p = network.lstm.dropout = 0.0
    logits_BL2 = network(rnd(int(golden["x_seed"]), *golden["x_shape"].tolist()))
    classes = torch.tensor([1.0, 4.0])
    loss = nn.functional.cross_entropy(logits_BL2.flatten(0, 1), torch.from_numpy(golden["y"]).flatten(), classes)
    assert off(logits_BL2, golden["logits_train_nodrop"]) < TRAINED
    assert off(loss, golden["loss"]) < TRAINED
    assert isinstance(network.bn1.running_mean, Tensor)
    assert isinstance(network.bn2.running_var, Tensor)
    assert off(network.bn1.running_mean, golden["bn1_mean_after"]) < TRAINED
    assert off(network.bn2.running_var, golden["bn2_var_after"]) < TRAINED


# Stages --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [7, 40, 53, 101])
def test_sliding_over_a_film_gives_the_published_numbers(placed: Placed[SCRL], shots: int) -> None:
    golden = np.load(GOLDEN / f"scrl_infer_{shots}.npz")
    features = rnd(int(golden["emb_seed"]), shots, 1, 2048)
    scored = infer(placed, pieces_of(features.numpy()), ScrlParams())
    assert SLIDING.padded(shots) == len(padded(features[:, 0])) == golden["padded_len"]
    assert off(scored.probabilities, golden["prob"]) < SAME
    assert np.array_equal(scored.probabilities > 0.5, golden["prob"] > 0.5)


@pytest.mark.parametrize("shots", [1, 2, 19, 20, 21, 60])
@torch.inference_mode()
def test_the_window_that_is_left_out_says_nothing(placed: Placed[SCRL], shots: int) -> None:
    features_ND, network = rnd(shots, shots, 2048), placed.network.boundary
    assert off(slid(network, features_ND), published_way(network, features_ND).numpy()) < SAME


def test_the_keyframes_of_a_shot_are_one_picture_of_nine_channels(placed: Placed[SCRL]) -> None:
    inputs = Inputs({"shots": shots_of([5, 1])}, {"shots": {"keyframes": Path("keyframes.zip")}})
    places = plan(video(), inputs, ScrlParams(), Placement()).places
    assert [(len(place.names), place.start, place.stop) for place in places] == [(3, 0, 1), (3, 1, 2)]
    frames = np.stack([pattern(seed, 224, 224) for seed in range(6)]).reshape(2, 3, 224, 224, 3)
    made = encode(placed, frames, ScrlParams())
    assert made.shape == (2, 1, 2048)
    assert made.dtype == np.float32
    mean, std = np.float32([0.485, 0.456, 0.406] * 3), np.float32([0.229, 0.224, 0.225] * 3)
    plain = (np.concatenate(frames.swapaxes(0, 1), axis=-1) / 255 - mean) / std
    with torch.inference_mode():
        wanted = placed.network.features(torch.from_numpy(plain.transpose(0, 3, 1, 2).astype(np.float32)))
    assert off(made[:, 0], wanted.numpy()) < SAME


@pytest.mark.parametrize("shots", [1, 2, pytest.param(12_000, marks=pytest.mark.slow)])
def test_films_of_any_length(placed: Placed[SCRL], shots: int, tmp_path: Path) -> None:
    features_ND = rnd(9, shots, 2048)
    scored = infer(placed, pieces_of(features_ND.numpy()[:, None]), ScrlParams())
    with torch.inference_mode():
        tail = published_way(placed.network.boundary, features_ND[-60:])[-30:]
        head = published_way(placed.network.boundary, features_ND[:60])[:20]
    assert off(scored.probabilities[:20], head.numpy()) < SAME
    if shots % 20 == 0 or shots <= 60:
        assert off(scored.probabilities[-30:], tail.numpy()) < SAME
    results = decode(scored, film_of(shots_of([3] * shots), tmp_path), ScrlParams()).results
    scenes = [result.data["shots"] for result in results if result.kind == "scene"]
    assert [first for first, _ in scenes] == [0, *(last + 1 for _, last in scenes[:-1])]
    assert scenes[-1][1] == shots - 1
    assert len(results) == shots + len(scenes)


def test_a_film_without_shots(placed: Placed[SCRL], tmp_path: Path) -> None:
    scored = infer(placed, [], ScrlParams())
    assert decode(scored, film_of([], tmp_path), ScrlParams()).results == ()

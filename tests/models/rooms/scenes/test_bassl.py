"""BaSSL: the published numbers from keyframes to scenes, and films of any length."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from shared.catalog import BasslParams
from shared.errors import ModelUnavailable
from shared.values import Result, Shot
from shared.values.scenes import Stamp, modelscope
from tests.factories import video
from tests.models.cut import names, off_golden
from tests.models.films import FPS, pattern, shots_film
from tests.models.rooms.scenes.made import film_of, pieces_of, shots_of
from tests.models.seeded import GOLDEN, SAME, image, off, own, published, rnd, seeded
from worker.encoders.placed import Placed
from worker.encoders.scored import Scored
from worker.models.bassl.config import CROP
from worker.models.bassl.network import BaSSL, Pooling, around, pooled, probabilities
from worker.models.bassl.stages import decode, encode, infer, of_shots, plan
from worker.models.contract import Inputs, Piece
from worker.models.placement import Placement
from worker.video.probe import probe
from worker.video.reader import Reader

GRADIENT = 1e-4


@pytest.fixture(scope="module")
def network() -> BaSSL:
    """With name-seeded weights."""
    built = BaSSL()
    seeded(built, "bassl")
    return built


@pytest.fixture(scope="module")
def placed(network: BaSSL) -> Placed[BaSSL]:
    """A copy of it, on the CPU."""
    return Placed.put(copy.deepcopy(network), "cpu", "fp32")


# The network ---------------------------------------------------------------------------------------------------------


def test_the_names_are_the_published_ones() -> None:
    assert own(BaSSL) == published("bassl")


@torch.inference_mode()
def test_the_context_network_gives_the_published_numbers(network: BaSSL) -> None:
    golden = np.load(GOLDEN / "bassl_crn.npz")
    shots_BSD = rnd(int(golden["shot_repr_seed"]), 3, 17, 2048)
    masked = network.crn(shots_BSD, torch.from_numpy(golden["mask"]))
    assert off(masked, golden["encoded_masked"]) < SAME
    assert off(pooled(masked, "center"), golden["pooled_masked"]) < SAME
    tokens_BLC = network.crn(shots_BSD)
    poolings: tuple[Pooling, ...] = ("cls", "avg", "max", "center")
    for pooling in poolings:
        assert off(pooled(tokens_BLC, pooling), golden[f"pool_{pooling}"]) < SAME, pooling
    assert off(network(shots_BSD), golden["logits"]) < SAME


def test_the_gradients_are_the_published_ones(network: BaSSL) -> None:
    golden = np.load(GOLDEN / "bassl_crn.npz")
    labels = torch.from_numpy(golden["labels"])
    logits_B2 = network(rnd(int(golden["shot_repr_seed"]), 3, 17, 2048))
    balance = sum(0.5 * (labels == label) / ((labels == label).sum() + 1e-5) for label in (0, 1))
    loss = (functional.cross_entropy(logits_B2, labels, reduction="none") * balance).sum()
    query = network.get_parameter("crn.encoder.layer.0.attention.self.query.weight")
    head_gradient, query_gradient = torch.autograd.grad(loss, [network.head_sbd.weight, query])
    assert off(loss, golden["loss"]) < SAME
    assert off(head_gradient, golden["grad_head_weight"]) < GRADIENT
    assert off(query_gradient[:4, :8], golden["grad_q_l0_top"]) < GRADIENT


@torch.inference_mode()
def test_the_numbers_are_the_published_ones_from_pixels_on(network: BaSSL) -> None:
    golden = np.load(GOLDEN / "bassl_full.npz")
    x = rnd(int(golden["x_seed"]), *golden["x_shape"].tolist())
    shots_BSD = network.features(x.flatten(0, 2)).unflatten(0, x.shape[:3]).mean(dim=2)
    tokens_BLC = network.crn(shots_BSD)
    made = {
        "shot_repr": shots_BSD,
        "embedding": network.crn.shot_embedding(shots_BSD),
        "encoded": tokens_BLC,
        "pooled": pooled(tokens_BLC, "center"),
        "logits": network(shots_BSD),
        "prob": functional.softmax(network(shots_BSD), dim=-1),
    }
    assert made.keys() == names(golden) - {"x_seed", "x_shape"}
    far = {key: off_golden(value, golden, key) for key, value in made.items()}
    assert all(distance < SAME for distance in far.values()), far


def test_a_mask_hides_a_shot(network: BaSSL) -> None:
    shots_BSD, mask_BS = rnd(1, 1, 17, 2048), torch.zeros(1, 17)
    with torch.inference_mode():
        assert torch.equal(network.crn(shots_BSD, mask_BS), network.crn(shots_BSD))
        mask_BS[0, 3] = 1
        hidden = network.crn(shots_BSD, mask_BS)
        shots_BSD[0, 3] = 7
        assert torch.equal(network.crn(shots_BSD, mask_BS), hidden)


# Stages --------------------------------------------------------------------------------------------------------------


def test_pictures_are_prepared_as_published() -> None:
    seen = CROP.see(image(5, 240, 427))
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    wanted = np.load(GOLDEN / "bassl_preprocess.npz")["tensor"]
    assert np.array_equal(((seen.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1), wanted)
    on_device = Placed(torch.nn.Identity(), torch.device("cpu"), "fp32").normalised(seen[None, None])
    assert np.array_equal(on_device[0].numpy(), wanted)


def test_keyframes_are_encoded_by_themselves(placed: Placed[BaSSL]) -> None:
    frames = np.stack([pattern(seed, 224, 224) for seed in range(2)])[:, None]
    made = encode(placed, frames, BasslParams())
    assert made.shape == (2, 1, 2048)
    assert made.dtype == np.float32
    alone = np.concatenate([encode(placed, frames[n : n + 1], BasslParams()) for n in range(2)])
    assert off(made, alone) < SAME


def inputs_of(lengths: list[int]) -> Inputs:
    return Inputs({"shots": shots_of(lengths)}, {"shots": {"keyframes": Path("keyframes.zip")}})


def test_each_distinct_keyframe_is_encoded_once() -> None:
    planned = plan(video(), inputs_of([5, 1, 2]), BasslParams(), Placement())
    assert [(place.start, place.stop) for place in planned.places] == [
        (0, 1), (1, 2), (2, 3), (3, 6), (6, 8), (8, 9)
    ]  # fmt: skip
    assert [name for place in planned.places for name in place.names] == [
        "shot_0000_img_0.jpg", "shot_0000_img_1.jpg", "shot_0000_img_2.jpg",
        "shot_0001_img_0.jpg", "shot_0002_img_0.jpg", "shot_0002_img_2.jpg",
    ]  # fmt: skip


def test_a_shot_is_the_mean_of_its_keyframes_however_many_are_the_same() -> None:
    one, two, three = np.eye(3, 2048, dtype=np.float32)
    places = plan(video(), inputs_of([5, 1, 2]), BasslParams(), Placement()).places
    values = [one, two, three, one, one, two]
    pieces = [Piece(place.start, place.stop, value[None]) for place, value in zip(places, values, strict=True)]
    wanted = [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [2 / 3, 1 / 3, 0]]
    assert np.allclose(of_shots(pieces)[:, :3], wanted)


def test_bf16_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ModelUnavailable):
        plan(video(), inputs_of([5]), BasslParams(precision="bf16"), Placement(precision="fp32"))


def test_the_shots_around_the_first_and_the_last_are_repeated() -> None:
    assert around(3, 2).tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 2], [0, 1, 2, 2, 2]]


@pytest.mark.parametrize("pooling", ["center", "avg"])
@torch.inference_mode()
def test_a_film_at_once_is_each_window_by_itself(network: BaSSL, pooling: str) -> None:
    features_ND = rnd(5, 23, 2048)
    network = copy.copy(network)
    network.pooling = pooling  # type: ignore[assignment] # parametrised by name
    wanted = torch.cat([probabilities(network(features_ND[window][None])) for window in around(23, 8)])
    assert off(network.film(features_ND, batch=7), wanted.numpy()) < SAME


@pytest.mark.parametrize("shots", [1, 2, 40])
def test_short_films(placed: Placed[BaSSL], shots: int, tmp_path: Path) -> None:
    features = rnd(shots, 3 * shots, 1, 2048).numpy()
    scored = infer(placed, pieces_of(features), BasslParams())
    assert scored.features.shape == (shots, 2048)
    assert scored.probabilities.dtype == np.float32
    check(placed, scored, range(shots))
    outcome = decode(scored, film_of(shots_of([10] * shots), tmp_path), BasslParams())
    assert sum(result.kind == "boundary" for result in outcome.results) == shots


def test_a_film_without_shots(placed: Placed[BaSSL], tmp_path: Path) -> None:
    scored = infer(placed, [], BasslParams())
    assert scored.features.shape == (0, 2048)
    assert decode(scored, film_of([], tmp_path), BasslParams()).results == ()


@pytest.mark.slow
def test_twelve_thousand_shots(placed: Placed[BaSSL], tmp_path: Path) -> None:
    shots = 12_000
    keyframes = np.repeat(rnd(3, shots, 1, 2048).numpy(), 3, axis=0)
    scored = infer(placed, pieces_of(keyframes), BasslParams())
    check(placed, scored, [0, 1, 8, 63, 64, 4095, 9_999, 10_000, 11_991, shots - 1])
    scenes = scenes_of(decode(scored, film_of(shots_of([2] * shots), tmp_path), BasslParams(threshold=0.5)).results)
    spans = [scene.data["shots"] for scene in scenes]
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == shots - 1
    assert len(spans) == len(np.flatnonzero(scored.probabilities[:-1] > 0.5)) + 1 > 100


def check(placed: Placed[BaSSL], scored: Scored, some: object) -> None:
    """The probabilities of those shots, each by its own window and the whole network."""
    chosen = list(some)  # type: ignore[call-overload] # any iterable of numbers
    windows_BSD = torch.from_numpy(scored.features)[around(len(scored.features), 8)[chosen]]
    with torch.inference_mode():
        wanted = probabilities(placed.network(windows_BSD)).numpy()
    assert off(scored.probabilities[chosen], wanted) < SAME


def scenes_of(results: tuple[Result, ...]) -> list[Result]:
    return [result for result in results if result.kind == "scene"]


# Scenes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(7))
def test_scenes_are_the_published_ones(case: int) -> None:
    golden = json.loads((GOLDEN / "bassl_postprocess.json").read_text())[case]
    fields = [line.split(" ") for line in golden["shot2keyf"]]
    stamps = [Stamp(first, last, since, until) for first, last, _, since, until in fields]
    made = modelscope(stamps, golden["pred"], golden["threshold"])
    assert made == {
        "shot_num": golden["shot_num"],
        "shot_meta_list": golden["shots"],
        "scene_num": golden["scene_num"],
        "scene_meta_list": golden["scenes"],
    }


def test_another_threshold_needs_neither_pictures_nor_a_network(tmp_path: Path) -> None:
    scored = Scored(rnd(1, 4, 2048).numpy(), np.float32([0.3, 0.9, 0.6, 0.1]))
    first = decode(scored, film_of(shots_of([10] * 4), tmp_path), BasslParams())
    files = {file.kind: file.path for file in first.files}
    kept = Scored.read(files)
    assert np.array_equal(kept.features, scored.features)
    (tmp_path / "again").mkdir()
    again = decode(kept, film_of(shots_of([10] * 4), tmp_path / "again"), BasslParams(threshold=0.5))
    assert [scene.data["shots"] for scene in scenes_of(first.results)] == [[0, 1], [2, 3]]
    assert [scene.data["shots"] for scene in scenes_of(again.results)] == [[0, 1], [2, 2], [3, 3]]
    assert [file.path.read_bytes() for file in again.files] == [file.path.read_bytes() for file in first.files]


def test_scenes_are_cut_out_of_the_film_on_request(tmp_path: Path) -> None:
    path = shots_film([12, 9, 15], tmp_path / "film.mp4")
    with Reader(path) as reader:
        assert sum(1 for _ in reader.frames()) == 36
        spans = [reader.timeline.range(*bounds) for bounds in ((0, 12), (12, 21), (21, 36))]
    rows = [Shot(span).result(seq) for seq, span in enumerate(spans)]
    film = replace(film_of(rows, tmp_path), path=path, video=probe(path))
    scored = Scored(rnd(1, 3, 2048).numpy(), np.float32([0.1, 0.9, 0.2]))
    files = decode(scored, film, BasslParams(split_scenes=True)).files
    clips = [file for file in files if file.kind == "scene_clip"]
    assert [file.name for file in clips] == ["scene_0000.mp4", "scene_0001.mp4"]
    assert [probe(file.path).frames for file in clips] == [21, 15]
    assert probe(clips[0].path).clock.fps == FPS

"""BaSSL: the published numbers from keyframes to scenes, and videos of any length."""

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
from shared.values.modelscope import ModelscopeShot, format_modelscope_scenes
from tests.support.factories import make_video
from tests.support.golden_samples import names, off_golden
from tests.support.model_runs import FPS, make_pattern, make_shots_video
from tests.support.seeded_weights import (
    GOLDEN,
    TOLERANCE,
    build_own_shapes,
    load_seeded_weights,
    random_image,
    random_tensor,
    read_published_shapes,
    relative_error,
)
from tests.worker.models.scenes.synthetic_shots import make_context, make_shot_rows, make_window_outputs
from worker.models.bassl.config import CROP
from worker.models.bassl.network import BaSSL, Pooling, boundary_probabilities, neighbour_indices, pool_tokens
from worker.models.bassl.stages import average_keyframes, encode, infer, plan, postprocess
from worker.models.contract import RenderContext, RunInputs, WindowOutput, ignore_progress
from worker.models.scene_output import SceneScores, render_scenes
from worker.runtime.device import DeviceNetwork
from worker.runtime.placement import Placement
from worker.video.probe import probe_video
from worker.video.reader import VideoReader

GRADIENT = 1e-4


@pytest.fixture(scope="module")
def network() -> BaSSL:
    """With name-seeded weights."""
    built = BaSSL()
    load_seeded_weights(built, "bassl")
    return built


@pytest.fixture(scope="module")
def placed(network: BaSSL) -> DeviceNetwork[BaSSL]:
    """A copy of it, on the CPU."""
    return DeviceNetwork.load_on(copy.deepcopy(network), "cpu", "fp32")


# The network ---------------------------------------------------------------------------------------------------------


def test_the_names_are_the_published_ones() -> None:
    assert build_own_shapes(BaSSL) == read_published_shapes("bassl")


@torch.inference_mode()
def test_the_context_network_gives_the_published_numbers(network: BaSSL) -> None:
    golden = np.load(GOLDEN / "bassl_crn.npz")
    shots_BSD = random_tensor(int(golden["shot_repr_seed"]), 3, 17, 2048)
    masked = network.crn(shots_BSD, torch.from_numpy(golden["mask"]))
    assert relative_error(masked, golden["encoded_masked"]) < TOLERANCE
    assert relative_error(pool_tokens(masked, "center"), golden["pooled_masked"]) < TOLERANCE
    tokens_BLC = network.crn(shots_BSD)
    poolings: tuple[Pooling, ...] = ("cls", "avg", "max", "center")
    for pooling in poolings:
        assert relative_error(pool_tokens(tokens_BLC, pooling), golden[f"pool_{pooling}"]) < TOLERANCE, pooling
    assert relative_error(network(shots_BSD), golden["logits"]) < TOLERANCE


def test_the_gradients_are_the_published_ones(network: BaSSL) -> None:
    golden = np.load(GOLDEN / "bassl_crn.npz")
    labels = torch.from_numpy(golden["labels"])
    logits_B2 = network(random_tensor(int(golden["shot_repr_seed"]), 3, 17, 2048))
    balance = sum(0.5 * (labels == label) / ((labels == label).sum() + 1e-5) for label in (0, 1))
    loss = (functional.cross_entropy(logits_B2, labels, reduction="none") * balance).sum()
    query = network.get_parameter("crn.encoder.layer.0.attention.self.query.weight")
    head_gradient, query_gradient = torch.autograd.grad(loss, [network.head_sbd.weight, query])
    assert relative_error(loss, golden["loss"]) < TOLERANCE
    assert relative_error(head_gradient, golden["grad_head_weight"]) < GRADIENT
    assert relative_error(query_gradient[:4, :8], golden["grad_q_l0_top"]) < GRADIENT


@torch.inference_mode()
def test_the_numbers_are_the_published_ones_from_pixels_on(network: BaSSL) -> None:
    golden = np.load(GOLDEN / "bassl_full.npz")
    x = random_tensor(int(golden["x_seed"]), *golden["x_shape"].tolist())
    shots_BSD = network.encode_keyframes(x.flatten(0, 2)).unflatten(0, x.shape[:3]).mean(dim=2)
    tokens_BLC = network.crn(shots_BSD)
    made = {
        "shot_repr": shots_BSD,
        "embedding": network.crn.shot_embedding(shots_BSD),
        "encoded": tokens_BLC,
        "pooled": pool_tokens(tokens_BLC, "center"),
        "logits": network(shots_BSD),
        "prob": functional.softmax(network(shots_BSD), dim=-1),
    }
    assert made.keys() == names(golden) - {"x_seed", "x_shape"}
    far = {key: off_golden(value, golden, key) for key, value in made.items()}
    assert all(distance < TOLERANCE for distance in far.values()), far


def test_a_mask_hides_a_shot(network: BaSSL) -> None:
    shots_BSD, mask_BS = random_tensor(1, 1, 17, 2048), torch.zeros(1, 17)
    with torch.inference_mode():
        assert torch.equal(network.crn(shots_BSD, mask_BS), network.crn(shots_BSD))
        mask_BS[0, 3] = 1
        hidden = network.crn(shots_BSD, mask_BS)
        shots_BSD[0, 3] = 7
        assert torch.equal(network.crn(shots_BSD, mask_BS), hidden)


# Stages --------------------------------------------------------------------------------------------------------------


def test_images_are_prepared_as_published() -> None:
    seen = CROP.apply_to(random_image(5, 240, 427))
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    wanted = np.load(GOLDEN / "bassl_preprocess.npz")["tensor"]
    assert np.array_equal(((seen.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1), wanted)
    on_device = DeviceNetwork(torch.nn.Identity(), torch.device("cpu"), "fp32").normalise_frames(seen[None, None])
    assert np.array_equal(on_device[0].numpy(), wanted)


def test_keyframes_are_encoded_by_themselves(placed: DeviceNetwork[BaSSL]) -> None:
    frames = np.stack([make_pattern(seed, 224, 224) for seed in range(2)])[:, None]
    made = encode(placed, frames, BasslParams())
    assert made.shape == (2, 1, 2048)
    assert made.dtype == np.float32
    alone = np.concatenate([encode(placed, frames[n : n + 1], BasslParams()) for n in range(2)])
    assert relative_error(made, alone) < TOLERANCE


def inputs_of(lengths: list[int]) -> RunInputs:
    return RunInputs({"shots": make_shot_rows(lengths)}, {"shots": {"keyframes": Path("keyframes.zip")}})


def test_each_distinct_keyframe_is_encoded_once() -> None:
    planned = plan(make_video(), inputs_of([5, 1, 2]), BasslParams(), Placement())
    assert [(place.start, place.stop) for place in planned.windows] == [
        (0, 1), (1, 2), (2, 3), (3, 6), (6, 8), (8, 9)
    ]  # fmt: skip
    assert [name for place in planned.windows for name in place.names] == [
        "shot_0000_img_0.jpg", "shot_0000_img_1.jpg", "shot_0000_img_2.jpg",
        "shot_0001_img_0.jpg", "shot_0002_img_0.jpg", "shot_0002_img_2.jpg",
    ]  # fmt: skip


def test_a_shot_is_the_mean_of_its_keyframes_however_many_are_the_same() -> None:
    one, two, three = np.eye(3, 2048, dtype=np.float32)
    places = plan(make_video(), inputs_of([5, 1, 2]), BasslParams(), Placement()).windows
    values = [one, two, three, one, one, two]
    pieces = [WindowOutput(place.start, place.stop, value[None]) for place, value in zip(places, values, strict=True)]
    wanted = [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [2 / 3, 1 / 3, 0]]
    assert np.allclose(average_keyframes(pieces)[:, :3], wanted)


def test_bf16_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ModelUnavailable):
        plan(make_video(), inputs_of([5]), BasslParams(precision="bf16"), Placement(precision="fp32"))


def test_the_shots_around_the_first_and_the_last_are_repeated() -> None:
    assert neighbour_indices(3, 2).tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 2], [0, 1, 2, 2, 2]]


@pytest.mark.parametrize("pooling", ["center", "avg"])
@torch.inference_mode()
def test_a_video_at_once_is_each_window_by_itself(network: BaSSL, pooling: str) -> None:
    features_ND = random_tensor(5, 23, 2048)
    network = copy.copy(network)
    network.pooling = pooling  # type: ignore[assignment] # parametrised by name
    wanted = torch.cat(
        [boundary_probabilities(network(features_ND[window][None])) for window in neighbour_indices(23, 8)]
    )
    assert relative_error(network.score_shots(features_ND, batch_size=7), wanted.numpy()) < TOLERANCE


@pytest.mark.parametrize("shots", [1, 2, 40])
def test_short_videos(placed: DeviceNetwork[BaSSL], shots: int) -> None:
    features = random_tensor(shots, 3 * shots, 1, 2048).numpy()
    scored = infer(placed, make_window_outputs(features), BasslParams())
    assert scored.features.shape == (shots, 2048)
    assert scored.probabilities.dtype == np.float32
    check(placed, scored, range(shots))
    outcome = postprocess(scored, make_context(make_shot_rows([10] * shots)), BasslParams())
    assert sum(result.kind == "boundary" for result in outcome.results) == shots


def test_a_video_without_shots(placed: DeviceNetwork[BaSSL]) -> None:
    scored = infer(placed, [], BasslParams())
    assert scored.features.shape == (0, 2048)
    assert postprocess(scored, make_context([]), BasslParams()).results == ()


@pytest.mark.slow
def test_twelve_thousand_shots(placed: DeviceNetwork[BaSSL]) -> None:
    shots = 12_000
    keyframes = np.repeat(random_tensor(3, shots, 1, 2048).numpy(), 3, axis=0)
    scored = infer(placed, make_window_outputs(keyframes), BasslParams())
    check(placed, scored, [0, 1, 8, 63, 64, 4095, 9_999, 10_000, 11_991, shots - 1])
    scenes = scenes_of(
        postprocess(scored, make_context(make_shot_rows([2] * shots)), BasslParams(threshold=0.5)).results
    )
    spans = [scene.data["shots"] for scene in scenes]
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == shots - 1
    assert len(spans) == len(np.flatnonzero(scored.probabilities[:-1] > 0.5)) + 1 > 100


def check(placed: DeviceNetwork[BaSSL], scored: SceneScores, some: object) -> None:
    """The probabilities of those shots, each by its own window and the whole network."""
    chosen = list(some)  # type: ignore[call-overload] # any iterable of numbers
    windows_BSD = torch.from_numpy(scored.features)[neighbour_indices(len(scored.features), 8)[chosen]]
    with torch.inference_mode():
        wanted = boundary_probabilities(placed.network(windows_BSD)).numpy()
    assert relative_error(scored.probabilities[chosen], wanted) < TOLERANCE


def scenes_of(results: tuple[Result, ...]) -> list[Result]:
    return [result for result in results if result.kind == "scene"]


# Scenes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(7))
def test_scenes_are_the_published_ones(case: int) -> None:
    golden = json.loads((GOLDEN / "bassl_postprocess.json").read_text())[case]
    fields = [line.split(" ") for line in golden["shot2keyf"]]
    stamps = [ModelscopeShot(first, last, since, until) for first, last, _, since, until in fields]
    made = format_modelscope_scenes(stamps, golden["pred"], golden["threshold"])
    assert made == {
        "shot_num": golden["shot_num"],
        "shot_meta_list": golden["shots"],
        "scene_num": golden["scene_num"],
        "scene_meta_list": golden["scenes"],
    }


def test_another_threshold_needs_neither_images_nor_a_network(tmp_path: Path) -> None:
    scored = SceneScores(random_tensor(1, 4, 2048).numpy(), np.float32([0.3, 0.9, 0.6, 0.1]))
    context = make_context(make_shot_rows([10] * 4))
    first = postprocess(scored, context, BasslParams())
    files = [array.save_in(tmp_path) for array in first.arrays]
    loaded = SceneScores.load_arrays({file.kind: file.path for file in files})
    assert loaded == scored
    (tmp_path / "again").mkdir()
    again = postprocess(loaded, context, BasslParams(threshold=0.5))
    files_again = [array.save_in(tmp_path / "again") for array in again.arrays]
    assert [scene.data["shots"] for scene in scenes_of(first.results)] == [[0, 1], [2, 3]]
    assert [scene.data["shots"] for scene in scenes_of(again.results)] == [[0, 1], [2, 2], [3, 3]]
    assert [file.path.read_bytes() for file in files_again] == [file.path.read_bytes() for file in files]


def test_scenes_are_cut_out_of_the_video_on_request(tmp_path: Path) -> None:
    path = make_shots_video([12, 9, 15], tmp_path / "film.mp4")
    with VideoReader(path) as reader:
        assert sum(1 for _ in reader.read_frames()) == 36
        spans = [reader.timeline.time_range(*bounds) for bounds in ((0, 12), (12, 21), (21, 36))]
    rows = [Shot(span).to_result(seq) for seq, span in enumerate(spans)]
    context = replace(make_context(rows), video=probe_video(path))
    scored = SceneScores(random_tensor(1, 3, 2048).numpy(), np.float32([0.1, 0.9, 0.2]))
    results = postprocess(scored, context, BasslParams()).results
    files, progress = RenderContext(context, path, tmp_path), list[tuple[int, int]]()
    assert render_scenes(results, files, BasslParams(), ignore_progress) == ()
    clips = render_scenes(results, files, BasslParams(split_scenes=True), lambda *frames: progress.append(frames))
    assert {file.kind for file in clips} == {"scene_clip"}
    assert progress == [(21, 36), (36, 36)]
    assert [file.name for file in clips] == ["scene_0000.mp4", "scene_0001.mp4"]
    assert [probe_video(file.path).frames for file in clips] == [21, 15]
    assert probe_video(clips[0].path).clock.fps == FPS

"""R(2+1)D-26 and its siblings: the published numbers, the published frames, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from shared.catalog import R2plus1dParams
from shared.errors import ModelUnavailable
from shared.values import Timeline
from shared.values.modelscope import format_modelscope_embedding
from tests.support.factories import make_clock, make_shots, make_timeline, make_video
from tests.support.seeded_networks import build_r2plus1d
from tests.support.seeded_weights import (
    GOLDEN,
    TOLERANCE,
    build_own_shapes,
    load_seeded_weights,
    random_tensor,
    read_published_shapes,
    relative_error,
)
from worker.models.contract import ModelOutput, RunContext, RunInputs, WindowOutput
from worker.models.r2plus1d.clips import clip_frames, clip_starts, make_clips
from worker.models.r2plus1d.config import CROP
from worker.models.r2plus1d.network import C3D, R3D, R2Plus1D, pool_features
from worker.models.r2plus1d.stages import EMBEDDING_FILES, encode, infer, normalise_clips, plan, postprocess
from worker.runtime.placement import Placement
from worker.video.windows import ClipSpec

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def golden() -> dict[str, Floats]:
    """What the reference networks gave."""
    with np.load(GOLDEN / "r2plus1d.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def given_clips(golden: dict[str, Floats]) -> Tensor:
    return random_tensor(int(golden["x_seed"]), *golden["x_shape"].tolist())


# The networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "name"),
    [(R2Plus1D, "r2plus1d"), (R3D, "r2plus1d_r3d"), (C3D, "r2plus1d_c3d")],
    ids=["r2+1d", "r3d", "c3d"],
)
def test_the_names_are_the_published_ones(build: type[nn.Module], name: str) -> None:
    assert build_own_shapes(build) == read_published_shapes(name)


@torch.inference_mode()
def test_the_numbers_are_the_published_ones(golden: dict[str, Floats], given_clips: Tensor) -> None:
    network = R2Plus1D()
    load_seeded_weights(network, "r2plus1d")
    maps = network.feature_maps(given_clips)
    assert [tuple(each.shape[1:]) for each in maps] == [
        (256, 16, 28, 28), (512, 8, 14, 14), (1024, 4, 7, 7), (2048, 2, 4, 4)
    ]  # fmt: skip
    features_ND = pool_features(maps[-1])
    assert relative_error(maps[-1][:, :64], golden["layer4"]) < TOLERANCE
    assert relative_error(features_ND, golden["clip_features"]) < TOLERANCE
    pieces = [WindowOutput(place, place + 1, value) for place, value in enumerate(features_ND.numpy())]
    assert relative_error(infer(build_r2plus1d(), pieces, R2plus1dParams(clips=2))[0], golden["embedding"]) < TOLERANCE


@torch.inference_mode()
def test_the_numbers_are_the_published_ones_as_served(golden: dict[str, Floats], given_clips: Tensor) -> None:
    """Channels last."""
    placed = build_r2plus1d()
    assert placed.network.conv1_s.weight.is_contiguous(memory_format=torch.channels_last_3d)
    last = given_clips.contiguous(memory_format=torch.channels_last_3d)
    assert relative_error(placed.network(last), golden["clip_features"]) < TOLERANCE


@pytest.mark.parametrize(("build", "name", "key"), [(R3D, "r2plus1d_r3d", "r3d26"), (C3D, "r2plus1d_c3d", "c3d")])
@torch.inference_mode()
def test_the_siblings_numbers_are_the_published_ones(
    build: type[nn.Module], name: str, key: str, golden: dict[str, Floats], given_clips: Tensor
) -> None:
    network = build()
    load_seeded_weights(network, name)
    assert relative_error(network(given_clips), golden[key]) < TOLERANCE


# Frames and images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 20, 61, 62, 100, 300, 1000])
def test_the_frames_are_the_published_ones(frames: int) -> None:
    wanted = np.load(GOLDEN / "r2plus1d_preprocess.npz")[f"idx_{frames}"]
    assert [list(clip_frames(start, frames)) for start in clip_starts(frames, 10)] == wanted.tolist()
    # As they are read: equal clips once, for all the places that they answer for.
    read = [clip for clip in make_clips([(0, frames)], 10) for _ in range(clip.start, clip.stop)]
    assert [list(clip.frames) for clip in read] == wanted.tolist()


@pytest.mark.parametrize("clips", [1, 3, 30])
def test_any_number_of_clips_is_spread_evenly(clips: int) -> None:
    begin = clip_starts(1061, clips)
    assert len(begin) == clips
    assert np.allclose(begin, (np.arange(clips) + 0.5) * 1000 / clips, atol=1)
    assert all(max(clip_frames(start, 1061)) < 1061 for start in begin)


def test_shots_have_clips_of_their_own_that_begin_anew() -> None:
    made = make_clips([(0, 300), (300, 301), (301, 340)], 10)
    assert len(made) == 12
    assert [clip.frames[0] for clip in made] == [*clip_starts(300, 10), 300, 301]
    assert made[10] == ClipSpec((300,) * 16, 10, 20)
    assert made[11] == ClipSpec((*range(301, 340, 4), *[301] * 6), 20, 30)
    later = make_clips([(1000, 1300)], 10)
    assert [tuple(frame - 1000 for frame in clip.frames) for clip in later] == [clip.frames for clip in made[:10]]


def made_up(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The image that the fixtures are made from: waves and noise."""
    draw = np.random.RandomState(seed)
    f, p = draw.uniform(0.01, 0.15, (3, 2)), draw.uniform(0, 6.28, 3)
    noise = draw.randint(-30, 31, (height, width, 3))
    y, x = np.ogrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(f[c, 0] * x + f[c, 1] * y + p[c]) for c in range(3)], axis=2)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (360, 640), (337, 251), (112, 113)])
def test_images_are_prepared_as_published(height: int, width: int) -> None:
    wanted = np.load(GOLDEN / "r2plus1d_preprocess.npz")[f"t_{height}x{width}"]
    seen = np.stack([CROP.apply_to(made_up(height + width + frame, height, width)) for frame in range(2)])
    made_CTHW = normalise_clips(torch.from_numpy(seen[None]))[0]
    assert np.array_equal(made_CTHW[:, :, ::4, ::4].numpy(), wanted)


# Stages --------------------------------------------------------------------------------------------------------------


def frames_of_clips(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 16, 112, 112, 3), np.uint8)


def test_each_clip_is_encoded_by_itself() -> None:
    frames = frames_of_clips(2)
    made = encode(build_r2plus1d(), frames, R2plus1dParams())
    assert made.shape == (2, 2048)
    assert made.dtype == np.float32
    assert relative_error(encode(build_r2plus1d(), frames[1:], R2plus1dParams())[0], made[1]) < TOLERANCE


def test_an_embedding_is_the_mean_of_its_clips_one_that_stands_for_several_as_often() -> None:
    one, two, three = np.eye(3, 2048, dtype=np.float32)
    pieces = [WindowOutput(0, 1, one), WindowOutput(1, 4, two), WindowOutput(4, 8, three)]
    made = infer(build_r2plus1d(), pieces, R2plus1dParams(clips=4))
    assert made[:, :3].tolist() == [[0.25, 0.75, 0], [0, 0, 1]]
    assert infer(build_r2plus1d(), [], R2plus1dParams()).shape == (0, 2048)


def inputs_of(*bounds: tuple[int, int]) -> RunInputs:
    return RunInputs({"shots": make_shots(*bounds)})


def test_a_plan_names_the_clips() -> None:
    whole = plan(make_video(frames=300), RunInputs(), R2plus1dParams(), Placement())
    assert whole.clips == make_clips([(0, 300)], 10)
    assert whole.allow_decord
    per_shot = plan(make_video(), inputs_of((0, 70), (70, 240)), R2plus1dParams(per="shot", clips=3), Placement())
    assert per_shot.clips == make_clips([(0, 70), (70, 240)], 3)
    assert not per_shot.allow_decord
    assert plan(make_video(), RunInputs({"shots": []}), R2plus1dParams(per="shot"), Placement()).clips == ()
    with pytest.raises(ModelUnavailable):
        plan(make_video(), RunInputs(), R2plus1dParams(precision="bf16"), Placement(precision="fp32"))


def make_context(inputs: RunInputs, timeline: Timeline) -> RunContext:
    return RunContext(make_video(), timeline, inputs, stop_frame=len(timeline))


def load_arrays(output: ModelOutput, folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays of both files, by file name, as a run saves them."""
    return {array.name: np.load(array.save_in(folder).path) for array in output.arrays}


def test_a_video_has_one_embedding_raw_and_of_length_one(tmp_path: Path) -> None:
    raw_ND = random_tensor(1, 1, 2048).numpy()
    outcome = postprocess(raw_ND, make_context(RunInputs(), make_timeline(300)), R2plus1dParams())
    (row,), (embedding,) = outcome.results, outcome.embeddings
    assert (row.kind, row.seq, row.range, row.score) == ("embedding", 0, None, None)
    norm = float(np.linalg.norm(raw_ND[0]))
    assert row.data == {"dimensions": 2048, "clips": 10, "norm": pytest.approx(norm), "files": EMBEDDING_FILES}
    assert (embedding.seq, embedding.range) == (0, None)
    assert embedding.vector.tolist() == raw_ND[0].tolist()
    arrays = load_arrays(outcome, tmp_path)
    raw, unit = arrays["embeddings_raw.npy"], arrays["embeddings_l2.npy"]
    assert {array.kind for array in outcome.arrays} == {"embeddings"}
    assert np.array_equal(raw, raw_ND)
    assert unit.dtype == np.float32
    assert np.allclose(unit, raw_ND / norm)
    assert format_modelscope_embedding(embedding) == {"video_embedding": raw_ND[0].tolist()}


def test_each_shot_has_an_embedding_even_one_of_zeros(tmp_path: Path) -> None:
    raw_ND = random_tensor(2, 3, 2048).numpy()
    raw_ND[1] = 0
    bounds = (0, 100), (100, 101), (101, 240)
    film = make_context(inputs_of(*bounds), Timeline.empty(make_clock()))
    outcome = postprocess(raw_ND, film, R2plus1dParams(per="shot", clips=4))
    spans = [row.range for row in outcome.results]
    assert spans == [one.range for one in outcome.embeddings] == [row.range for row in make_shots(*bounds)]
    assert [one.vector.tolist() for one in outcome.embeddings] == raw_ND.tolist()
    assert [row.data["norm"] for row in outcome.results] == pytest.approx(np.linalg.norm(raw_ND, axis=1).tolist())
    unit = load_arrays(outcome, tmp_path)["embeddings_l2.npy"]
    assert np.linalg.norm(unit, axis=1).tolist() == pytest.approx([1, 0, 1])
    with pytest.raises(ValueError, match="of a shot"):
        format_modelscope_embedding(outcome.embeddings[0])


def test_without_shots_there_are_no_embeddings(tmp_path: Path) -> None:
    film = make_context(RunInputs({"shots": []}), Timeline.empty(make_clock()))
    params = R2plus1dParams(per="shot")
    outcome = postprocess(infer(build_r2plus1d(), [], params), film, params)
    assert (outcome.results, outcome.embeddings) == ((), ())
    assert load_arrays(outcome, tmp_path)["embeddings_raw.npy"].shape == (0, 2048)

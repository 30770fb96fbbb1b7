"""Published files in their containers, imported and served; videos of all kinds, by the real loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from shared.catalog import R2plus1dParams
from shared.errors import WeightsCorrupt, WeightsMissing
from shared.values import Result, Shot
from tests.support.model_runs import CPU_PLACEMENT, SilentReport, make_shots_video
from tests.support.sample_videos import make_rotated, pattern_input, run_ffmpeg
from tests.support.seeded_networks import build_r2plus1d
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_tensor, read_table, relative_error
from worker.models.contract import LoadedModel, RunInputs
from worker.models.r2plus1d.clips import clip_frames, clip_starts
from worker.models.r2plus1d.config import CROP
from worker.models.r2plus1d.stages import MODEL, encode
from worker.models.r2plus1d.weights import WEIGHTS_MANIFEST
from worker.pipeline import StageTracker
from worker.pipeline.execute import Execution, execute_run
from worker.runtime.placement import resolve_placement
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.transform import View, apply_view
from worker.weights import import_weights

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
State = dict[str, Tensor]


# Weights -------------------------------------------------------------------------------------------------------------


def flat(state: State) -> Any:
    """As published."""
    return state | {row.key: torch.tensor(0) for row in read_table("r2plus1d") if row.kind == "keep"}


def pretraining(state: State) -> Any:
    """`epoch_N.pth`: the whole network of CMD, without counters."""
    others = {"fc.weight": torch.ones(2, 2), "m_backbone.conv1.weight": torch.ones(2, 2), "k_embedding": torch.ones(3)}
    return others | {f"rgb_backbone.{key}": value for key, value in state.items()}


def wrapped(state: State) -> Any:
    """The same by DistributedDataParallel, and beside an epoch."""
    return {"epoch": 119, "state_dict": {f"module.{key}": value for key, value in pretraining(state).items()}}


@pytest.mark.parametrize("container", [flat, pretraining, wrapped], ids=["flat", "pre-training", "wrapped"])
def test_the_model_is_served_from_its_published_file(container: Callable[[State], Any], tmp_path: Path) -> None:
    state = {key: value for key, value in build_r2plus1d().network.state_dict().items() if "num_batches" not in key}
    torch.save(container(state), tmp_path / "published.pt")
    import_weights(WEIGHTS_MANIFEST, [tmp_path / "published.pt"], tmp_path / "weights", AT)
    network = MODEL.load_network([tmp_path / "weights"], CPU_PLACEMENT)
    served = network.network.state_dict()
    assert all(torch.equal(served[key], value) for key, value in state.items())
    assert len(served) == 228
    golden = np.load(GOLDEN / "r2plus1d.npz")
    with network.inference_context():
        clip_NCTHW = random_tensor(int(golden["x_seed"]), *golden["x_shape"].tolist())[:1]
        assert relative_error(network.network(clip_NCTHW), golden["clip_features"][:1]) < TOLERANCE


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    torch.save({"rgb_backbone.conv1_s.weight": torch.ones(83, 3, 1, 7, 7)}, tmp_path / "epoch_1.pth")
    with pytest.raises(WeightsCorrupt, match=r"189 missing \(bn1_s\.bias, "):
        import_weights(WEIGHTS_MANIFEST, [tmp_path / "epoch_1.pth"], tmp_path / "weights", AT)
    with pytest.raises(WeightsMissing, match="sceneworks-worker weights pull r2plus1d"):
        MODEL.load_network([tmp_path], CPU_PLACEMENT)


# Videos ---------------------------------------------------------------------------------------------------------------


class Heard(SilentReport):
    """A report that remembers what was worth a line."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def log_event(self, action: str, **facts: Any) -> None:
        self.notes[action] = facts


def ran(path: Path, params: R2plus1dParams, scratch: Path, inputs: RunInputs | None = None) -> tuple[Execution, Heard]:
    """By the real loop."""
    heard = Heard()
    scratch.mkdir()
    model = LoadedModel(MODEL, CPU_PLACEMENT, (), build_r2plus1d())
    return execute_run(
        model, path, probe_video(path), inputs or RunInputs(), params, scratch, StageTracker(heard)
    ), heard


def vectors(execution: Execution) -> npt.NDArray[np.float32]:
    return np.array([one.vector for one in execution.outcome.embeddings], np.float32)


def by_hand(path: Path, *spans: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """The mean over the clips of each span, all frames read in order by PyAV."""
    with VideoReader(path) as reader:
        seen = [CROP.apply_to(apply_view(View.full_size(), frame, reader.video)) for frame in reader.read_frames()]
    distinct = sorted({tuple(clip) for clips in spans for clip in clips})
    frames_BTHWC = np.stack([np.stack([seen[frame] for frame in clip]) for clip in distinct])
    known = dict(zip(distinct, encode(build_r2plus1d(), frames_BTHWC, R2plus1dParams()), strict=True))
    return np.stack([np.mean([known[tuple(clip)] for clip in clips], axis=0) for clips in spans])


def test_a_video_is_the_mean_over_its_clips(tmp_path: Path) -> None:
    """Of 68 frames; still images, which decord and PyAV convert alike."""
    path = make_shots_video([30, 38], tmp_path / "film.mp4")
    execution, heard = ran(path, R2plus1dParams(clips=3), tmp_path / "scratch")
    wanted = by_hand(path, [clip_frames(start, 68) for start in clip_starts(68, 3)])
    assert relative_error(vectors(execution), wanted) < 1e-3
    assert (heard.notes, execution.frames_decoded) == ({}, 0)  # decord served
    assert execution.stages[1].unit == "clip"


@pytest.mark.parametrize("length", [1, 20])
def test_a_short_video_starts_again_where_it_ends(length: int, tmp_path: Path) -> None:
    path = make_shots_video([length], tmp_path / "film.mp4")
    execution, _ = ran(path, R2plus1dParams(), tmp_path / "scratch")
    assert execution.stages[1].done == 1  # ten clips that are one
    wanted = by_hand(path, [[*range(0, length, 4), *[0] * 16][:16]])
    assert relative_error(vectors(execution), wanted) < 1e-3


def rows_of(path: Path, *bounds: tuple[int, int]) -> list[Result]:
    """Shots of a video."""
    with VideoReader(path) as reader:
        assert sum(1 for _ in reader.read_frames())
        return [Shot(reader.timeline.time_range(*each)).to_result(seq) for seq, each in enumerate(bounds)]


def test_each_shot_is_embedded_by_itself(tmp_path: Path) -> None:
    """Also one of a single frame; times are those of `shots`."""
    path = make_shots_video([20, 1, 70], tmp_path / "film.mp4")
    bounds = (0, 20), (20, 21), (21, 91)
    rows = rows_of(path, *bounds)
    params = R2plus1dParams(per="shot", clips=2)
    execution, heard = ran(path, params, tmp_path / "scratch", RunInputs({"shots": rows}))
    assert [row.range for row in execution.outcome.results] == [row.range for row in rows]
    assert [one.range for one in execution.outcome.embeddings] == [row.range for row in rows]
    clips = [
        [[first + frame for frame in clip_frames(start, end - first)] for start in clip_starts(end - first, 2)]
        for first, end in bounds
    ]
    assert relative_error(vectors(execution), by_hand(path, *clips)) < TOLERANCE
    assert heard.notes == {}  # decord was not asked


def turned_film(out: Path) -> Path:
    make_rotated(out)
    return out


def stream(out: Path) -> Path:
    """A transport stream, in which decord miscounts."""
    run_ffmpeg(*pattern_input(), "-c:v", "libx264", "-preset", "veryfast", out)
    return out


@pytest.mark.parametrize(
    ("make", "name", "why"),
    [(turned_film, "film.mp4", "rotated, deep or cut-off frames"), (stream, "film.ts", "not exact in mpegts files")],
    ids=["rotated", "transport stream"],
)
def test_what_decord_cannot_read_pyav_does_and_says_so(
    make: Callable[[Path], Path], name: str, why: str, tmp_path: Path
) -> None:
    path = make(tmp_path / name)
    execution, heard = ran(path, R2plus1dParams(clips=1), tmp_path / "scratch")
    assert why in heard.notes["decord.refused"]["reason"]
    assert execution.frames_decoded >= 13
    assert relative_error(vectors(execution), by_hand(path, [clip_frames(0, 50)])) < TOLERANCE


@pytest.mark.skipif(
    resolve_placement("cpu", "auto", "torch", 1).precision != "bf16", reason="this CPU does not compute in bf16"
)
def test_bf16_is_near(tmp_path: Path) -> None:
    path = make_shots_video([20], tmp_path / "film.mp4")
    execution, _ = ran(path, R2plus1dParams(), tmp_path / "scratch")
    scratch, bf16 = tmp_path / "bf16", replace(CPU_PLACEMENT, precision="bf16")
    scratch.mkdir()
    placed = replace(build_r2plus1d(), precision="bf16")
    near = execute_run(
        LoadedModel(MODEL, bf16, (), placed),
        path,
        probe_video(path),
        RunInputs(),
        R2plus1dParams(),
        scratch,
        StageTracker(SilentReport()),
    )
    one, other = vectors(execution)[0], vectors(near)[0]
    assert not np.array_equal(one, other)
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999

"""Both models on real videos, by the real loop: shots first, then scenes out of the keyframes that it kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.catalog import CATALOG, ShotsParams
from tests.support.model_runs import CPU_PLACEMENT, SilentReport, make_shots_video, run_model
from tests.support.seeded_networks import NETWORKS
from worker.models import load_definition
from worker.models.contract import LoadedModel, RunInputs, RunOutput
from worker.pipeline import StageTracker
from worker.pipeline.execute import Execution, execute_run
from worker.video.probe import probe_video

LENGTHS = [40, 25, 60, 30]


@pytest.fixture(scope="module", params=["bassl", "scrl"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    """A model whose network has name-seeded weights."""
    return LoadedModel(load_definition(request.param), CPU_PLACEMENT, (), NETWORKS[request.param]())


def inputs(shots: RunOutput, kept: RunOutput | None = None) -> RunInputs:
    files = {file.kind: file.path for file in shots.files}
    again = {file.kind: file.path for file in kept.files} if kept else {}
    return RunInputs({"shots": shots.results}, {"shots": files}, again)


def scenes(model: LoadedModel, path: Path, given: RunInputs, scratch: Path, **params: Any) -> Execution:
    scratch.mkdir()
    chosen = CATALOG[model.definition.name].read_params(params)
    return execute_run(model, path, probe_video(path), given, chosen, scratch, StageTracker(SilentReport()))


@pytest.mark.parametrize("lengths", [[1], [2], LENGTHS], ids=["one frame", "two frames", "four shots"])
def test_scenes_come_out_of_the_keyframes_and_the_video_stays_closed(
    model: LoadedModel, lengths: list[int], tmp_path: Path
) -> None:
    path = make_shots_video(lengths, tmp_path / "film.mp4")
    shots = run_model("shots", path, ShotsParams(detector="hsv_luv"), tmp_path / "shots").outcome
    assert len(shots.results) == (4 if lengths == LENGTHS else 1)
    done = scenes(model, path, inputs(shots), tmp_path / "scenes")
    assert done.frames_decoded == 0
    bounds = [row for row in done.outcome.results if row.kind == "boundary"]
    assert [row.range for row in bounds] == [row.range for row in shots.results]
    assert all(row.score is not None and 0 < row.score < 1 for row in bounds)
    found = [row for row in done.outcome.results if row.kind == "scene"]
    assert found[0].range
    assert found[-1].range
    assert (found[0].range.start.frame, found[-1].range.end.frame) == (0, sum(lengths))
    assert [file.kind for file in done.outcome.files] == ["features", "probabilities"]


def test_another_threshold_encodes_nothing(model: LoadedModel, tmp_path: Path) -> None:
    path = make_shots_video(LENGTHS, tmp_path / "film.mp4")
    shots = run_model("shots", path, ShotsParams(detector="hsv_luv"), tmp_path / "shots").outcome
    first = scenes(model, path, inputs(shots), tmp_path / "first").outcome
    scores = sorted(row.score for row in first.results if row.kind == "boundary" and row.score is not None)
    empty = LoadedModel(model.definition, CPU_PLACEMENT, ())  # would have to load weights, and there are none
    again = scenes(empty, path, inputs(shots, first), tmp_path / "again", threshold=scores[0] * 0.99).outcome
    assert [row.data["shots"] for row in again.results if row.kind == "scene"] == [[n, n] for n in range(4)]
    assert [row.score for row in again.results if row.kind == "boundary"] == [
        row.score for row in first.results if row.kind == "boundary"
    ]
    for one, other in zip(first.files, again.files, strict=True):
        assert np.array_equal(np.load(one.path), np.load(other.path))

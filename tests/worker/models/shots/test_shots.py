"""The model `shots` on videos: what it finds, what it keeps, what the sheet shows."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.catalog import ShotsParams
from shared.errors import ModelUnavailable
from shared.values import Result
from tests.conftest import EXTERNAL_MATERIAL
from tests.support.model_runs import make_pattern, make_shots_video, run_model
from worker.models.shots.contact_sheet import CELL_GAP, CELL_WIDTH, MAX_CELLS, SHEET_MARGIN, choose_shots
from worker.models.shots.weights import load_network
from worker.runtime.placement import Placement, resolve_placement

LENGTHS = [40, 25, 60, 30]
STARTS = [0, 40, 65, 125]
LABELLED, NEEDED = 131, 120


def starts(results: tuple[Result, ...]) -> list[int]:
    return [result.range.start.frame for result in results if result.range]


@pytest.mark.parametrize("detector", ["transnetv2", "hsv_luv"])
def test_hard_cuts_are_found_and_the_right_images_kept(detector: str, tmp_path: Path) -> None:
    path = make_shots_video(LENGTHS, tmp_path / "film.mp4")
    params = ShotsParams.model_validate({"detector": detector})
    outcome = run_model("shots", path, params, tmp_path / "scratch").outcome
    assert starts(outcome.results) == STARTS
    assert [result.data["transition_frames"] for result in outcome.results] == [0, 0, 0, 0]
    scored = [result.score for result in outcome.results[1:]]
    assert all((score is not None and score > 0.5) if detector == "transnetv2" else score is None for score in scored)
    with zipfile.ZipFile(outcome.files[0].path) as archive:
        assert sorted(archive.namelist()) == [f"shot_{n:04d}_img_{k}.jpg" for n in range(4) for k in range(3)]
        for member in archive.namelist():
            with archive.open(member) as file, Image.open(file) as picture:
                seen = np.asarray(picture.convert("RGB"), np.int16)
            error = np.abs(seen - make_pattern(int(member[5:9]))).mean()
            assert error < 12, member
    with Image.open(outcome.files[1].path) as sheet:
        assert sheet.width == 2 * SHEET_MARGIN + 4 * (CELL_WIDTH + CELL_GAP) - CELL_GAP


@pytest.mark.parametrize(
    ("shots", "cells"), [(1, 1), (MAX_CELLS, MAX_CELLS), (MAX_CELLS + 1, MAX_CELLS), (5000, MAX_CELLS)]
)
def test_the_sheet_is_bounded_and_spread_over_the_video(shots: int, cells: int) -> None:
    shown = choose_shots(shots)
    assert len(set(shown)) == len(shown) == cells
    assert shown == sorted(shown)
    assert shown[0] == 0
    assert shown[-1] == shots - 1


def test_openvino_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ModelUnavailable, match="pip install"):
        load_network((), Placement(runtime="openvino"))


def test_openvino_on_a_gpu_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="CPU"):
        load_network((), Placement(device="cuda:0", runtime="openvino"))


def matched(found: list[int], labels: list[int]) -> int:
    """Labels with a start within one frame."""
    return sum(min(abs(start - label) for start in found) <= 1 for label in labels)


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "needed"), [("transnetv2", NEEDED), ("hsv_luv", 115)])
def test_the_shots_of_a_whole_video(detector: str, needed: int, big_buck_bunny: Path, tmp_path: Path) -> None:
    table = np.loadtxt(EXTERNAL_MATERIAL / "media/labels/big_buck_bunny/shots.txt", dtype=int)
    labels = [int(start) for start in table[1:, 0]]
    assert len(labels) == LABELLED
    params = ShotsParams.model_validate({"detector": detector})
    outcome = run_model(
        "shots", big_buck_bunny, params, tmp_path / "scratch", resolve_placement("cpu", "auto", "torch", 0)
    ).outcome
    found = starts(outcome.results)[1:]
    assert matched(found, labels) >= needed
    assert matched(labels, found) >= 0.75 * len(found)

"""The colour detector against the published one, and the goldens against where they come from."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from shared.catalog import ShotsParams
from tests.conftest import MATERIAL, REPOSITORY
from tests.models.films import windows_of
from worker.models.contract import Piece
from worker.models.shots.colour import differences, mean_difference
from worker.models.shots.config import COLOUR_WINDOWS, ColourRule
from worker.models.shots.stages import encode, infer
from worker.video.pictures.keyframes import middle

GOLDEN = REPOSITORY / "tests/golden"
ANOTHER_OPENCV = 0.02
"""Versions of OpenCV convert a few pixels to Luv one level apart."""


@pytest.mark.parametrize(("space", "prefix"), [(cv2.COLOR_BGR2HSV, "hsv"), (cv2.COLOR_BGR2Luv, "luv")])
def test_the_differences_are_the_published_ones(space: int, prefix: str) -> None:
    golden = np.load(GOLDEN / "shots_hsv_luv.npz")
    keys = [str(key) for key in golden["metric_keys"]]
    wanted = golden["metrics"][1:, keys.index(f"{prefix}_content_val")]
    turned = [cv2.cvtColor(frame, space) for frame in golden["frames_bgr"]]
    made = [mean_difference(before, after) for before, after in pairwise(turned)]
    assert np.abs(np.array(made) - wanted).max() <= ANOTHER_OPENCV


def test_luv_is_computed_where_the_rule_asks_for_it() -> None:
    golden = np.load(GOLDEN / "shots_hsv_luv.npz")
    keys = [str(key) for key in golden["metric_keys"]]
    d_hsv, d_luv = (golden["metrics"][1:, keys.index(f"{prefix}_content_val")] for prefix in ("hsv", "luv"))
    everywhere = differences(golden["frames_bgr"], ColourRule(threshold=0, gap=256))
    assert np.abs(everywhere - np.stack([d_hsv, d_luv], axis=1)).max() <= ANOTHER_OPENCV
    middle_half = ColourRule(
        threshold=float(np.quantile(d_hsv, 0.25)), gap=float(np.ptp(np.quantile(d_hsv, [0.25, 0.75])))
    )
    asked = np.array([middle_half.needs_luv(float(d)) for d in everywhere[:, 0]])
    assert 0 < asked.sum() < len(asked)
    made = differences(golden["frames_bgr"], middle_half)
    assert np.array_equal(made, everywhere * np.stack([np.ones(len(asked)), asked], axis=1))


def test_the_shots_are_the_published_ones() -> None:
    golden, shots = np.load(GOLDEN / "shots_hsv_luv.npz"), json.loads((GOLDEN / "shots_hsv_luv.json").read_text())
    params = ShotsParams(detector="hsv_luv")
    pieces = [
        Piece(
            window.start, window.stop, encode(None, window.frames_THWC[None], params)[0][: window.stop - window.start]
        )
        for window in windows_of(golden["frames_bgr"], COLOUR_WINDOWS)
    ]
    spans = infer(None, pieces, params)
    assert [span.start for span in spans[1:]] == golden["cuts"].tolist()
    made = [(span.start, span.end, span.end - 1, middle(span.start, span.end)) for span in spans]
    assert made == [(shot["start"], shot["end"], shot["last"], shot["mid"]) for shot in shots["shots"]]


@pytest.mark.parametrize(
    ("golden", "given"),
    [("shots_hsv_luv.npz", "shotdetect_frames.npz"), ("shots_hsv_luv.json", "shotdetect_shots.json")],
)
def test_the_goldens_are_the_given_ones(golden: str, given: str) -> None:
    source: Path = MATERIAL / "specs/fixtures" / given
    if not source.exists():
        pytest.skip("the fixtures do not lie beside this checkout")
    assert (GOLDEN / golden).read_bytes() == source.read_bytes()

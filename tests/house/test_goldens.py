"""The colour detector against the published one, and the goldens: none changed, none cut down too far."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shared.catalog import ShotsParams
from tests.support.golden_samples import cut, off_golden
from tests.support.model_runs import cut_windows
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_tensor
from worker.models.contract import WindowOutput
from worker.models.shots.colour import frame_differences, mean_difference
from worker.models.shots.config import COLOUR_WINDOWS, ColourRule
from worker.models.shots.stages import encode, infer
from worker.video.keyframes.loader import middle_frame

ANOTHER_OPENCV = 0.02
"""Versions of OpenCV convert a few pixels to Luv one level apart."""


@pytest.mark.parametrize(("space", "prefix"), [(cv2.COLOR_BGR2HSV, "hsv"), (cv2.COLOR_BGR2Luv, "luv")])
def test_the_differences_are_the_published_ones(space: int, prefix: str) -> None:
    golden = np.load(GOLDEN / "shots_hsv_luv.npz")
    keys = [str(key) for key in golden["metric_keys"]]
    wanted = golden["metrics"][1:, keys.index(f"{prefix}_content_val")]
    turned = [cv2.cvtColor(frame, space) for frame in golden["frames_bgr"]]
    computed = [mean_difference(before, after) for before, after in pairwise(turned)]
    assert np.abs(np.array(computed) - wanted).max() <= ANOTHER_OPENCV


def test_luv_is_computed_where_the_rule_asks_for_it() -> None:
    golden = np.load(GOLDEN / "shots_hsv_luv.npz")
    keys = [str(key) for key in golden["metric_keys"]]
    d_hsv, d_luv = (golden["metrics"][1:, keys.index(f"{prefix}_content_val")] for prefix in ("hsv", "luv"))
    everywhere = frame_differences(golden["frames_bgr"], ColourRule(threshold=0, gap=256))
    assert np.abs(everywhere - np.stack([d_hsv, d_luv], axis=1)).max() <= ANOTHER_OPENCV
    middle_half = ColourRule(
        threshold=float(np.quantile(d_hsv, 0.25)), gap=float(np.ptp(np.quantile(d_hsv, [0.25, 0.75])))
    )
    needed = np.array([middle_half.needs_luv(float(d)) for d in everywhere[:, 0]])
    assert 0 < needed.sum() < len(needed)
    computed = frame_differences(golden["frames_bgr"], middle_half)
    assert np.array_equal(computed, everywhere * np.stack([np.ones(len(needed)), needed], axis=1))


def test_the_shots_are_the_published_ones() -> None:
    golden, shots = np.load(GOLDEN / "shots_hsv_luv.npz"), json.loads((GOLDEN / "shots_hsv_luv.json").read_text())
    params = ShotsParams(detector="hsv_luv")
    pieces = [
        WindowOutput(
            window.start, window.stop, encode(None, window.frames_THWC[None], params)[0][: window.stop - window.start]
        )
        for window in cut_windows(golden["frames_bgr"], COLOUR_WINDOWS)
    ]
    spans = infer(None, pieces, params)
    assert [span.start for span in spans[1:]] == golden["cuts"].tolist()
    computed = [(span.start, span.end, span.end - 1, middle_frame(span.start, span.end)) for span in spans]
    assert computed == [(shot["start"], shot["end"], shot["last"], shot["mid"]) for shot in shots["shots"]]


# Stored files ---------------------------------------------------------------------------------------------------------


def test_no_golden_was_changed() -> None:
    listed = (line.split("  ") for line in (GOLDEN / "SHA256SUMS").read_text().splitlines())
    sums = {name: digest for digest, name in listed}
    stored = [path for path in GOLDEN.iterdir() if path.name not in {"README.md", "SHA256SUMS"}]
    assert {path.name: sha256(path.read_bytes()).hexdigest() for path in stored} == sums


def test_every_golden_is_described() -> None:
    """By its name, which may stand for several: `a_{1,2}.npz` is two."""
    text = (GOLDEN / "README.md").read_text()
    rows = re.findall(r"`([\w{},]+\.(?:npz|json|tsv))`", text)
    described = {name for row in rows for name in _spelled(row)}
    assert {path.name for path in GOLDEN.iterdir()} - {"README.md", "SHA256SUMS"} == described


def _spelled(row: str) -> list[str]:
    several = re.fullmatch(r"(.*)\{(.*)\}(.*)", row)
    return [several[1] + each + several[3] for each in several[2].split(",")] if several else [row]


def test_an_array_that_is_cut_down_is_near_itself() -> None:
    array = random_tensor(1, 3, 40, 64, 9)
    golden = cut("array", array.numpy())
    assert sum(part.size for part in golden.values()) < array.numel() / 10
    assert off_golden(array, golden, "array") == 0
    assert (
        0
        < off_golden(array * (1 + 1e-6), golden, "array")
        < TOLERANCE
        < off_golden(array * (1 + 2e-5), golden, "array")
    )


@given(st.integers(0, 3 * 40 * 64 * 9 - 1))
@settings(max_examples=50)
def test_one_wrong_value_is_detected_anywhere(place: int) -> None:
    array = random_tensor(1, 3, 40, 64, 9)
    golden = cut("array", array.numpy())
    array.view(-1)[place] += 0.01 * float(golden["array.scale"])
    assert off_golden(array, golden, "array") > TOLERANCE


def test_a_value_that_is_not_a_number_is_detected() -> None:
    array = random_tensor(1, 100, 100)
    golden = cut("array", array.numpy())
    array[7, 7] = float("nan")
    assert not off_golden(array, golden, "array") < TOLERANCE


def test_an_array_of_another_shape_is_refused() -> None:
    array = random_tensor(1, 100, 100)
    with pytest.raises(AssertionError):
        off_golden(array.view(50, 200), cut("array", array.numpy()), "array")

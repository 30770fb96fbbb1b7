"""TransNet V2: the same numbers as the published package, and its parts against plain forms of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.conftest import REPOSITORY
from tests.support.model_runs import cut_windows
from worker.models.shots.config import ARCHITECTURE, LEAD_FRAMES, LONG_WINDOWS, PAPER_WINDOWS
from worker.models.shots.network import ColourHistograms, neighbour_similarities, to_space_layout, to_time_layout
from worker.models.shots.weights import Detector, load_network
from worker.runtime.placement import Placement
from worker.video.windows import WindowSpec

GOLDEN = REPOSITORY / "tests/golden/shots_transnetv2.npz"
SAME = 1e-5


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The network with its real weights, in fp32."""
    return load_network((), Placement(threads=2))


def probabilities(detector: Detector, frames: np.ndarray, spec: WindowSpec = PAPER_WINDOWS) -> np.ndarray:
    """Of a whole video, windows as `worker.video.windows` cuts them."""
    parts = [
        detector(window.frames_THWC[None])[0, LEAD_FRAMES : LEAD_FRAMES + window.stop - window.start]
        for window in cut_windows(frames, spec)
    ]
    return np.concatenate(parts)


def test_the_numbers_are_those_of_the_published_package(detector: Detector) -> None:
    golden = np.load(GOLDEN)
    mine = probabilities(detector, golden["frames"])
    assert np.abs(mine - golden["probabilities"]).max() < SAME


@pytest.mark.slow
def test_the_golden_is_made_by_the_published_package(detector: Detector, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.worker.models.shots.reference", str(tmp_path / "again.npz")]
    subprocess.run(command, check=True, cwd=REPOSITORY, timeout=200)
    again, golden = np.load(tmp_path / "again.npz"), np.load(GOLDEN)
    assert np.array_equal(again["frames"], golden["frames"])
    assert np.abs(again["probabilities"] - golden["probabilities"]).max() < SAME
    assert np.abs(probabilities(detector, again["frames"]) - again["probabilities"]).max() < SAME


def test_windows_of_one_batch_do_not_mix(detector: Detector) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 60, 27, 48, 3), np.uint8)
    apart = np.concatenate([detector(frames[:1]), detector(frames[1:])])
    assert np.abs(detector(frames) - apart).max() < SAME


def test_bf16_is_near_and_finds_the_same_cuts() -> None:
    golden = np.load(GOLDEN)
    mine = probabilities(load_network((), Placement(precision="bf16", threads=2)), golden["frames"])
    assert np.abs(mine - golden["probabilities"]).max() < 0.1
    assert np.array_equal(mine > 0.5, golden["probabilities"] > 0.5)


def test_openvino_is_near_and_finds_the_same_cuts() -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    golden = np.load(GOLDEN)
    mine = probabilities(load_network((), Placement(runtime="openvino", threads=2)), golden["frames"], LONG_WINDOWS)
    assert np.abs(mine - golden["probabilities"]).max() < 0.15
    assert np.array_equal(mine > 0.5, golden["probabilities"] > 0.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 140), st.sampled_from([3, 11, 101]), st.integers(0, 99))
def test_the_band_holds_the_products_with_the_neighbours(windows: int, times: int, lookup: int, seed: int) -> None:
    x_BTC = torch.from_numpy(np.random.default_rng(seed).standard_normal((windows, times, 4)).astype(np.float32))
    wanted = torch.zeros(windows, times, lookup)
    for t in range(times):
        for k in range(lookup):
            other = t + k - lookup // 2
            if 0 <= other < times:
                wanted[:, t, k] = (x_BTC[:, t] * x_BTC[:, other]).sum(1)
    assert torch.allclose(neighbour_similarities(x_BTC, lookup), wanted, atol=1e-5)


def test_histograms_count_every_pixel_in_the_bin_of_its_colour() -> None:
    frames = np.random.default_rng(2).integers(0, 256, (2, 3, 27, 48, 3), np.uint8)
    counted = ColourHistograms(ARCHITECTURE).compute_histograms(torch.from_numpy(frames)).numpy()
    red, green, blue = np.moveaxis(frames.astype(int) // 32, -1, 0)
    bins = (red * 8 + green) * 8 + blue
    wanted = [[np.bincount(one.ravel(), minlength=512) for one in window] for window in bins]
    assert np.array_equal(counted, np.array(wanted))


def test_time_and_space_are_two_readings_of_the_same_memory() -> None:
    x_NCHW = torch.arange(6 * 4 * 2 * 3.0).reshape(6, 4, 2, 3)
    seen_BCTP = to_time_layout(x_NCHW, 2)
    assert seen_BCTP.shape == (2, 4, 3, 6)
    assert torch.equal(seen_BCTP[1, :, 2], x_NCHW[5].flatten(1))
    assert torch.equal(to_space_layout(seen_BCTP, 2, 3), x_NCHW)

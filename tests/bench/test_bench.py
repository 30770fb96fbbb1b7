"""The measurements run, compare equal things, and report different boundaries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.catalog import ShotsParams
from shared.errors import InvalidRequest, MediaCorrupt
from shared.settings import get_settings
from tests import bench
from tests.bench import measurement, shots
from tests.bench.baselines import embedding, masks, scenes, summaries
from tests.bench.masks import build_letter_tokenizer
from tests.support.model_runs import make_shots_video, run_model
from worker.models.bassl.config import CROP
from worker.models.clip_it import segments, selection
from worker.models.mttr.resize import Resize
from worker.models.mttr.tracks.masks import MaskSizes, upscale_mask
from worker.models.r2plus1d.clips import clip_frames, clip_starts
from worker.models.r2plus1d.config import CROP as CLIP_CROP
from worker.networks.roberta import tokenize_sentence
from worker.video.reader import VideoReader
from worker.video.transform import View, apply_view


@pytest.mark.slow
def test_the_bench_compares_everything_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["shots", "--seconds", "3", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:34].strip(): line[34:].split() for line in lines if line.strip()}
    assert float(rows["ffmpeg -f null"][1]) == 1.0
    assert float(rows["shots hsv_luv, keyframes, sheet"][1]) > 0
    assert float(rows["package as shipped, fp32 100/50"][2]) == 1.0
    parity = " ".join(rows["torch fp32 100/50"])
    assert "0 lost, 0 more" in parity
    assert float(parity.rpartition(" ")[2]) < 1e-5


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("SCENEWORKS_WEIGHTS_DIR", str(tmp_path / "weights"))
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_bassl_scores_equal_the_baseline_and_it_encodes_less(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["bassl", "--seconds", "4", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert "drawn at random" in output
    rows = {line[:22].strip(): line[22:] for line in output.splitlines()}
    shot_count = int(output.split(" frames, ")[1].split()[0])
    assert f" {shot_count * 17 * 3} keyframes;" in rows["baseline, fp32"]
    encoded = int(rows["ours, fp32"].split(" keyframes;")[0].split()[-1])
    assert 2 * shot_count < encoded <= 3 * shot_count  # a shot of one or two frames has fewer than three
    assert float(rows["ours, fp32"].split()[1]) > 1
    assert float(output.split("on the same keyframes: within ")[1].split()[0]) < 1e-6
    assert "ours, fp32, on its own keyframes: the same shots" in output


def split_rows(output: str) -> dict[str, list[str]]:
    """The columns of the table, by the name of each variant."""
    return {line[:34].strip(): line[34:].split() for line in output.splitlines() if " rounds;" not in line}


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_a_summary_equals_the_baseline_and_a_second_query_is_fast(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["clip_it", "--seconds", "4", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert "drawn at random" in output
    rows = split_rows(output)
    assert float(rows["baseline, fp32"][1]) == 1
    assert float(rows["ours, fp32, second query"][1]) > max(2, float(rows["ours, fp32"][1]))
    assert float(output.split("on the same frames: scores within ")[1].split(";")[0]) < 1e-5
    assert "OTHER" not in output


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_an_embedding_equals_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["r2plus1d", "--seconds", "4", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert float(split_rows(output)["ours, fp32"][0]) > 0
    assert float(output.split("on the same clips: within ")[1].split()[0]) < 1e-5
    assert float(output.split("ours, fp32, on its own clips: within ")[1].split()[0]) < 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_masks_equal_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["mttr", "--seconds", "0.2", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert float(split_rows(output)["ours, fp32"][3]) > 1.2  # by CPU time: the backbone runs once for two queries
    for frames in ("the same", "its own"):
        words = output.split(f"ours, fp32, on {frames} frames: ")[1].split()
        assert int(words[0]) >= 8
        assert int(words[2]) < 1e-4 * int(words[4])
        assert 0 < int(words[7]) < int(words[4])


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_cost_by_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["length", "clip_it", "--minutes", "0.05", "0.1", "--rate", "10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [(line[0], int(line[1])) for line in lines] == [("0.05", 30), ("0.1", 60)]
    assert all(float(line[6]) >= float(line[5]) > 100 for line in lines)


@pytest.mark.parametrize("seed", range(3))
def test_the_baseline_finds_the_same_segments_and_summary(seed: int) -> None:
    """Features that change at random places."""
    rng = np.random.default_rng(seed)
    stretches = [rng.standard_normal(64)[None].repeat(rng.integers(1, 12), 0) for _ in range(8)]
    whole = np.concatenate(stretches)
    features_TD = summaries.normalize_rows((whole + 0.3 * rng.standard_normal(whole.shape)).astype(np.float32))
    points = segments.find_change_points(features_TD)
    assert 2 < len(points) < 20
    assert summaries.find_change_points(features_TD) == points
    places, frames = list(range(0, 15 * len(features_TD), 15)), 15 * len(features_TD) - 7
    spans = segments.segment_bounds(points, places, frames)
    scores_T = rng.random(len(features_TD), np.float32)
    chosen = selection.select_segments(
        selection.expand_scores(scores_T, places, frames), spans, places, summaries.SUMMARY_SHARE
    )
    selected = summaries.select_segments(scores_T, spans, frames)
    assert selected == (list(chosen.segments) if chosen.rule == "knapsack" else [])


def test_the_embedding_baseline_samples_the_same_pixels() -> None:
    for frames in (1, 20, 61, 62, 100, 1000):
        assert embedding.sample_clips(frames) == [list(clip_frames(start, frames)) for start in clip_starts(frames, 10)]
    image = np.random.default_rng(3).integers(0, 256, (337, 251, 3), np.uint8)
    assert np.array_equal(embedding.resize_and_crop(image), CLIP_CROP.apply_to(image))


def test_the_mask_baseline_resizes_and_thresholds_alike() -> None:
    rng = np.random.default_rng(4)
    for high, wide in ((480, 854), (240, 320), (361, 641), (97, 400), (641, 361)):
        image = rng.integers(0, 256, (high, wide, 3), np.uint8)
        small = masks.resize_frames(image[None], 360)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(small, Resize(360).resize_frame(image))
    logits = rng.standard_normal((2, 9, 14)).astype(np.float32)
    sizes = MaskSizes(padded=(36, 54), unpadded=(36, 54), video=(71, 101))
    for mask, logit in zip(masks.upscale_mask(torch.from_numpy(logits), (36, 54), (71, 101)), logits, strict=True):
        assert np.count_nonzero(mask != upscale_mask(logit, sizes)) <= 2


@pytest.mark.slow
def test_the_queue_bench_runs_on_servers_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.bench", "queue", "--videos", "60"]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert "GET /operator" in completed.stdout
    assert completed.stdout.endswith("the job is next: yes\n")


def test_without_a_vocabulary_each_letter_is_a_token() -> None:
    numbers = tokenize_sentence(build_letter_tokenizer(), "a cat")
    assert (numbers[0], numbers[-1], len(numbers)) == (0, 2, 7)
    assert numbers[1] == numbers[4]  # the two letters a


def test_shots_and_baseline_find_the_same_cuts_and_keyframes(tmp_path: Path) -> None:
    video_path = make_shots_video([40, 25, 9, 60], tmp_path / "video.mp4")
    spans = scenes.detect_shots(video_path)
    assert spans == [(0, 40), (40, 65), (65, 134)]  # the cut at 74 comes too soon after the one at 65
    results = run_model("shots", video_path, ShotsParams(detector="hsv_luv"), tmp_path / "run").outcome.results
    assert [(row.range.start.frame, row.range.end.frame) for row in results if row.range] == spans
    images = scenes.read_keyframes(video_path, spans)
    assert images.shape == (3, 3, 224, 224, 3)
    with VideoReader(video_path) as reader:
        right = [
            CROP.apply_to(apply_view(View.full_size(), frame, reader.video))
            for frame in reader.read_frames_at([0, 19, 39])
        ]
    assert np.abs(images[0].astype(int) - np.stack(right)).max() <= 3


def test_the_baseline_refuses_a_file_that_opencv_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"no video")
    with pytest.raises(MediaCorrupt, match="OpenCV"):
        scenes.detect_shots(tmp_path / "video.mp4")


@pytest.mark.parametrize("command", ["shots", "bassl", "clip_it", "mttr", "r2plus1d"])
def test_zero_rounds_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main([command, "--rounds", "0"])
    assert "must be at least 1" in capsys.readouterr().err


def test_boundaries_are_the_starts_of_all_shots_but_the_first() -> None:
    probabilities = np.zeros(50, np.float32)
    probabilities[[10, 30, 31, 32]] = 0.9
    assert shots.find_boundaries(probabilities) == [11, 33]


def test_boundaries_a_frame_apart_are_equal_and_others_are_counted() -> None:
    shipped, other = np.zeros(50, np.float32), np.zeros(50, np.float32)
    shipped[[10, 30]] = other[[11, 40]] = 0.9
    assert shots.compare_boundaries(shipped, other).startswith("2, 1 lost, 1 more")


def test_without_the_sample_a_video_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="--video"):
        bench.main(["shots"])

"""The measurements run, compare what they say they compare, and tell when boundaries differ."""

from __future__ import annotations

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
from tests.bench.baselines import embedding, masks, scenes as published, summaries
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
def test_the_rooms_score_as_the_published_way_does_and_encode_less(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["bassl", "--seconds", "4", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "drawn at random" in said
    rows = {line[:22].strip(): line[22:] for line in said.splitlines()}
    shots_found = int(said.split(" frames, ")[1].split()[0])
    assert f" {shots_found * 17 * 3} pictures;" in rows["published way, fp32"]
    encoded = int(rows["ours, fp32"].split(" pictures;")[0].split()[-1])
    assert 2 * shots_found < encoded <= 3 * shots_found  # a shot of one or two frames has fewer than three
    assert float(rows["ours, fp32"].split()[1]) > 1
    assert float(said.split("on the same keyframe pictures: within ")[1].split()[0]) < 1e-6
    assert "ours, fp32, on its own keyframe pictures: the same shots" in said


def rows_of(said: str) -> dict[str, list[str]]:
    """The columns of the table behind the name of each way."""
    return {line[:34].strip(): line[34:].split() for line in said.splitlines() if " rounds;" not in line}


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_a_summary_is_that_of_the_published_way_and_a_second_question_is_soon_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["clip_it", "--seconds", "4", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "drawn at random" in said
    rows = rows_of(said)
    assert float(rows["published way, fp32"][1]) == 1
    assert float(rows["ours, fp32, second question"][1]) > max(2, float(rows["ours, fp32"][1]))
    assert float(said.split("on the same pictures: scores within ")[1].split(";")[0]) < 1e-5
    assert "OTHER" not in said


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_an_embedding_is_that_of_the_published_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["r2plus1d", "--seconds", "4", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert float(rows_of(said)["ours, fp32"][0]) > 0
    assert float(said.split("on the same pictures: within ")[1].split()[0]) < 1e-5
    assert float(said.split("ours, fp32, on its own pictures: within ")[1].split()[0]) < 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_masks_are_those_of_the_published_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["mttr", "--seconds", "0.2", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert float(rows_of(said)["ours, fp32"][3]) > 1.2  # by CPU time: the backbone runs once for two queries
    for pictures in ("the same", "its own"):
        counted = said.split(f"ours, fp32, on {pictures} pictures: ")[1].split()
        assert int(counted[0]) >= 8
        assert int(counted[2]) < 1e-4 * int(counted[4])
        assert 0 < int(counted[7]) < int(counted[4])


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_cost_by_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["length", "clip_it", "--minutes", "0.05", "0.1", "--rate", "10"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [(line[0], int(line[1])) for line in lines] == [("0.05", 30), ("0.1", 60)]
    assert all(float(line[6]) >= float(line[5]) > 100 for line in lines)


@pytest.mark.parametrize("seed", range(3))
def test_the_published_loops_find_the_segments_and_the_summary_that_the_room_finds(seed: int) -> None:
    """Features that change their mind at random places."""
    draw = np.random.default_rng(seed)
    stretches = [draw.standard_normal(64)[None].repeat(draw.integers(1, 12), 0) for _ in range(8)]
    whole = np.concatenate(stretches)
    features_TD = summaries.normalize_rows((whole + 0.3 * draw.standard_normal(whole.shape)).astype(np.float32))
    points = segments.find_change_points(features_TD)
    assert 2 < len(points) < 20
    assert summaries.find_change_points(features_TD) == points
    places, frames = list(range(0, 15 * len(features_TD), 15)), 15 * len(features_TD) - 7
    spans = segments.segment_bounds(points, places, frames)
    scores_T = draw.random(len(features_TD), np.float32)
    chosen = selection.select_segments(
        selection.expand_scores(scores_T, places, frames), spans, places, summaries.SUMMARY_SHARE
    )
    found = summaries.select_segments(scores_T, spans, frames)
    assert found == (list(chosen.segments) if chosen.rule == "knapsack" else [])


def test_the_published_way_of_likeness_looks_at_the_same_pixels() -> None:
    for frames in (1, 20, 61, 62, 100, 1000):
        assert embedding.sample_clips(frames) == [list(clip_frames(start, frames)) for start in clip_starts(frames, 10)]
    picture = np.random.default_rng(3).integers(0, 256, (337, 251, 3), np.uint8)
    assert np.array_equal(embedding.resize_and_crop(picture), CLIP_CROP.apply_to(picture))


def test_the_published_way_of_masks_resizes_and_cuts_as_the_room_does() -> None:
    draw = np.random.default_rng(4)
    for high, wide in ((480, 854), (240, 320), (361, 641), (97, 400), (641, 361)):
        picture = draw.integers(0, 256, (high, wide, 3), np.uint8)
        small = masks.resize_frames(picture[None], 360)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(small, Resize(360).resize_frame(picture))
    logits = draw.standard_normal((2, 9, 14)).astype(np.float32)
    sizes = MaskSizes(padded=(36, 54), unpadded=(36, 54), video=(71, 101))
    for made, one in zip(masks.upscale_mask(torch.from_numpy(logits), (36, 54), (71, 101)), logits, strict=True):
        assert np.count_nonzero(made != upscale_mask(one, sizes)) <= 2


def test_without_a_vocabulary_each_letter_is_a_token() -> None:
    numbers = tokenize_sentence(build_letter_tokenizer(), "a cat")
    assert (numbers[0], numbers[-1], len(numbers)) == (0, 2, 7)
    assert numbers[1] == numbers[4]  # the two letters a


def test_both_ways_cut_the_same_film_alike_and_see_the_same_keyframes(tmp_path: Path) -> None:
    film = make_shots_video([40, 25, 9, 60], tmp_path / "film.mp4")
    spans = published.detect_shots(film)
    assert spans == [(0, 40), (40, 65), (65, 134)]  # the cut at 74 comes too soon after the one at 65
    found = run_model("shots", film, ShotsParams(detector="hsv_luv"), tmp_path / "run").outcome.results
    assert [(row.range.start.frame, row.range.end.frame) for row in found if row.range] == spans
    pictures = published.read_keyframes(film, spans)
    assert pictures.shape == (3, 3, 224, 224, 3)
    with VideoReader(film) as reader:
        right = [
            CROP.apply_to(apply_view(View.full_size(), frame, reader.video))
            for frame in reader.read_frames_at([0, 19, 39])
        ]
    assert np.abs(pictures[0].astype(int) - np.stack(right)).max() <= 3


def test_the_published_way_says_so_where_opencv_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(MediaCorrupt, match="OpenCV"):
        published.detect_shots(tmp_path / "film.mp4")


@pytest.mark.parametrize("command", ["shots", "bassl", "clip_it", "mttr", "r2plus1d"])
def test_no_round_is_no_measurement(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main([command, "--rounds", "0"])
    assert "at least one round" in capsys.readouterr().err


def test_boundaries_are_the_starts_of_all_shots_but_the_first() -> None:
    found = np.zeros(50, np.float32)
    found[[10, 30, 31, 32]] = 0.9
    assert shots.find_boundaries(found) == [11, 33]


def test_boundaries_a_frame_apart_are_the_same_and_others_are_told() -> None:
    shipped, other = np.zeros(50, np.float32), np.zeros(50, np.float32)
    shipped[[10, 30]] = other[[11, 40]] = 0.9
    assert shots.compare_boundaries(shipped, other).startswith("2, 1 lost, 1 more")


def test_a_film_without_the_sample_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="--film"):
        bench.main(["shots"])

"""From video to summary by the real loop: exact rows and files, and a second question without reading the video."""

from __future__ import annotations

import io
from array import array
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shared.catalog import ClipItParams
from shared.errors import Internal, InvalidRequest, MediaCorrupt, ModelUnavailable
from shared.values import Result, Timeline
from tests.support.factories import make_video
from tests.support.model_runs import SilentReport, make_pattern, make_shots_video, run_model
from tests.support.sample_videos import X264_OPTIONS, pattern_input as moving, run_ffmpeg
from tests.support.seeded_networks import build_clip_it
from tests.support.seeded_weights import TOLERANCE, relative_error
from worker.models.clip_it.config import CROP
from worker.models.clip_it.files import read_frame_at, render_summary
from worker.models.clip_it.stages import MODEL, encode, infer, normalise_rows, plan, postprocess, restore_features
from worker.models.clip_it.summary import SampledFrames, VideoSummary
from worker.models.contract import (
    LoadedModel,
    RenderContext,
    RunContext,
    RunInputs,
    RunOutput,
    WindowOutput,
    ignore_progress,
)
from worker.networks.clip.tokens import tokenize_sentences
from worker.pipeline import StageTracker
from worker.pipeline.execute import Execution, execute_run
from worker.runtime.placement import Placement
from worker.video.keyframes.store import encode_jpeg
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.transform import View, apply_view
from worker.video.windows import WindowSpec

LENGTHS = [50, 31, 45]
FRAMES = sum(LENGTHS)
QUESTION = ClipItParams(sentences=("a red square", "a blue square"), budget=0.4, sample_every=20)


def kept(execution: Execution) -> dict[str, Path]:
    return {file.kind: file.path for file in execution.outcome.files}


def rows(outcome: RunOutput, kind: str) -> list[Result]:
    return [row for row in outcome.results if row.kind == kind]


def frames(some: Sequence[Result]) -> list[tuple[int, int]]:
    return [(row.range.start.frame, row.range.end.frame) for row in some if row.range]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots of 126 frames, with sound."""
    folder = tmp_path_factory.mktemp("film")
    make_shots_video(LENGTHS, folder / "mute.mp4")
    sine = ("-f", "lavfi", "-i", f"sine=d={FRAMES / 25}")
    run_ffmpeg("-i", folder / "mute.mp4", *sine, "-c:v", "copy", "-c:a", "aac", folder / "film.mp4")
    return folder / "film.mp4"


@pytest.fixture(scope="module")
def first(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """The video, asked `QUESTION`."""
    return run_model("clip_it", path, QUESTION, tmp_path_factory.mktemp("first") / "scratch")


# What a run yields ---------------------------------------------------------------------------------------------------


def test_scores_segments_and_highlights_cover_what_they_should(first: Execution) -> None:
    outcome = first.outcome
    scores, segments, highlights = (rows(outcome, kind) for kind in ("frame_score", "segment", "highlight"))
    assert frames(scores) == [(0, 20), (20, 40), (40, 60), (60, 80), (80, 100), (100, 120), (120, 126)]
    assert frames(segments)[0][0] == 0
    assert all(before == after for (_, before), (after, _) in pairwise(frames(segments)))
    assert frames(segments)[-1][1] == FRAMES
    chosen = [span for row, span in zip(segments, frames(segments), strict=True) if row.data["selected"]]
    assert chosen
    assert 0 < sum(stop - start for start, stop in frames(highlights)) <= int(FRAMES * 0.4)
    assert all(row.data["rule"] in {"knapsack", "part"} for row in highlights)
    for row, (start, stop) in zip(segments, frames(segments), strict=True):
        inside = [
            score.score
            for score, (at, _) in zip(scores, frames(scores), strict=True)
            for _ in range(20)
            if start <= at < stop
        ]
        assert row.score is not None
        if stop < FRAMES:
            assert row.score == pytest.approx(np.mean(inside), abs=1e-6)


def test_the_result_says_what_guided_it(first: Execution) -> None:
    assert [row.data for row in rows(first.outcome, "caption")] == [
        {"text": "a red square", "source": "request", "places": 1},
        {"text": "a blue square", "source": "request", "places": 6},
    ]


def test_the_summary_is_a_video_of_its_highlights_with_sound(first: Execution, path: Path) -> None:
    made = probe_video(kept(first)["summary_video"])
    wanted = [frame for span in frames(rows(first.outcome, "highlight")) for frame in range(*span)]
    assert made.frames == len(wanted)
    assert len(made.audio) == 1
    with VideoReader(path) as source, VideoReader(kept(first)["summary_video"]) as summary:
        shown = [apply_view(View.short_side(96), frame, source.video).astype(int) for frame in source.read_frames()]
        for frame, number in zip(summary.read_frames(), wanted, strict=True):
            assert np.abs(apply_view(View.short_side(96), frame, made) - shown[number]).mean() < 4
    data = kept(first)["summary_video"].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_poster_is_the_best_sampled_frame(first: Execution, path: Path) -> None:
    scores = rows(first.outcome, "frame_score")
    best = max(scores, key=lambda row: row.score or 0).range
    assert best is not None
    with VideoReader(path) as reader:
        [frame] = reader.read_frames_at([best.start.frame])
        assert kept(first)["poster"].read_bytes() == encode_jpeg(apply_view(View.full_size(), frame, reader.video))


def test_without_a_video_there_is_none(path: Path, tmp_path: Path) -> None:
    outcome = run_model(
        "clip_it", path, ClipItParams(summary_video=False, sample_every=60), tmp_path / "scratch"
    ).outcome
    assert [file.kind for file in outcome.files] == ["frame_features"]
    assert [row.data["source"] for row in rows(outcome, "caption")] == ["neutral"]


@pytest.mark.parametrize("length", [1, 2])
def test_a_video_of_a_frame_or_two_has_a_summary(length: int, tmp_path: Path) -> None:
    path = make_shots_video([length], tmp_path / "short.mp4")
    execution = run_model("clip_it", path, ClipItParams(), tmp_path / "scratch")
    [highlight] = rows(execution.outcome, "highlight")
    assert frames([highlight]) == [(0, 1)]
    assert highlight.data == {"segments": [0, 0], "rule": "part"}
    assert probe_video(kept(execution)["summary_video"]).frames == 1
    assert frames(rows(execution.outcome, "segment")) == frames(rows(execution.outcome, "frame_score")) == [(0, length)]


def test_a_video_without_frames_has_nothing_to_show(tmp_path: Path) -> None:
    facts = make_video()
    context = RunContext(facts, Timeline.empty(facts.clock))
    output = postprocess(infer(build_clip_it(), [], QUESTION), context, QUESTION)
    assert output.results == ()
    files = RenderContext(context, tmp_path / "video.mp4", tmp_path)
    assert render_summary(output.results, files, QUESTION, ignore_progress) == ()
    [features] = output.arrays
    again = restore_features({features.kind: features.save_in(tmp_path).path}, facts)
    assert (again.outputs, len(again.timeline)) == ((), 0)


# A second question ---------------------------------------------------------------------------------------------------

SECOND = QUESTION.model_copy(update={"sentences": ("somebody runs",), "budget": 0.7})


def test_a_second_question_is_answered_as_if_it_were_the_first(first: Execution, path: Path, tmp_path: Path) -> None:
    fresh = run_model("clip_it", path, SECOND, tmp_path / "fresh")
    again = run_model("clip_it", path, SECOND, tmp_path / "again", inputs=RunInputs(cached_files=kept(first)))
    assert again.outcome.results == fresh.outcome.results != first.outcome.results
    assert fresh.frames_decoded == FRAMES == again.frames == fresh.frames
    assert again.frames_decoded == 0
    assert {kind: file.read_bytes() for kind, file in kept(again).items()} == {
        kind: file.read_bytes() for kind, file in kept(fresh).items()
    }


def test_the_video_may_be_gone_where_no_video_is_asked_for(first: Execution, path: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    model = LoadedModel(MODEL, Placement(threads=2), (), build_clip_it())
    inputs, params = RunInputs(cached_files=kept(first)), SECOND.model_copy(update={"summary_video": False})
    gone, stages = tmp_path / "gone.mp4", StageTracker(SilentReport())
    execution = execute_run(model, gone, probe_video(path), inputs, params, tmp_path / "scratch", stages)
    assert frames(rows(execution.outcome, "highlight"))


def test_what_is_kept_is_all_of_the_video(first: Execution, path: Path) -> None:
    again = restore_features(kept(first), probe_video(path))
    assert [(piece.start, piece.stop) for piece in again.outputs] == frames(rows(first.outcome, "frame_score"))
    with VideoReader(path) as reader:
        pts = [frame.pts for frame in reader.read_frames()]
        assert [again.timeline.moment_at(frame).pts for frame in range(FRAMES)] == pts
        assert again.timeline.moment_at(FRAMES) == reader.timeline.moment_at(FRAMES)
    assert again.decode_failures == 0


def test_decode_failures_are_kept(tmp_path: Path) -> None:
    facts = make_video().with_decode_failures(3)
    sampled = SampledFrames(np.ones((1, 512), np.float32), (0,), 2)
    times = Timeline(facts.clock, array("q", [0, 1001]), 2002)
    summary = VideoSummary(sampled, None, np.float32([0.5]), ((0, 2),))
    [features] = postprocess(summary, RunContext(facts, times), ClipItParams(summary_video=False)).arrays
    again = restore_features({features.kind: features.save_in(tmp_path).path}, make_video())
    assert again.decode_failures == 3
    assert again.timeline.moment_at(2).pts == 2002


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"PK no archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: np.savez(path, features=np.zeros((1, 512), np.float32)),
        lambda path: np.savez(path, features=np.zeros((1, 512)), starts=[0], pts=[0, 1], decode_failures=0),
        lambda path: np.savez(path, features=np.zeros((2, 512), np.float32), starts=[0], pts=[0, 1], decode_failures=0),
        lambda path: np.savez(
            path,
            features=np.zeros((0, 512), np.float32),
            starts=np.zeros(0, int),
            pts=np.zeros(0, int),
            decode_failures=0,
        ),
    ],
    ids=["no archive", "cut off", "lacking", "of another type", "of another length", "without an end"],
)
def test_what_cannot_be_read_again_is_told(spoil: Any, first: Execution, tmp_path: Path) -> None:
    path = tmp_path / "frame_features.npz"
    path.write_bytes(kept(first)["frame_features"].read_bytes())
    spoil(path)
    with pytest.raises(Internal, match="stored features"):
        restore_features({"frame_features": path}, make_video())


# Stages --------------------------------------------------------------------------------------------------------------


def test_the_plan_looks_at_every_so_manyth_frame() -> None:
    planned = plan(make_video(), RunInputs(), ClipItParams(), Placement())
    assert planned.windows == WindowSpec(1, 15)
    assert (planned.view, planned.preprocess, planned.batch_size) == (View.full_size(), CROP.apply_to, 8)
    assert plan(make_video(), RunInputs(), ClipItParams(sample_every=1), Placement(device="cuda:0")).batch_size == 64


def test_what_cannot_be_done_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidRequest, match=r"Sentence 2 has 1\d\d tokens"):
        plan(make_video(), RunInputs(), ClipItParams(sentences=("a cat", "word " * 150)), Placement())
    with pytest.raises(ModelUnavailable):
        plan(make_video(), RunInputs(), ClipItParams(precision="bf16"), Placement(precision="fp32"))


def test_a_question_that_is_too_long_is_refused_for_a_video_that_was_read(first: Execution, path: Path) -> None:
    long = SECOND.model_copy(update={"sentences": ("word " * 150,)})
    with pytest.raises(InvalidRequest, match="tokens"):
        infer(build_clip_it(), restore_features(kept(first), probe_video(path)).outputs, long)


def test_frames_are_encoded_as_images_are() -> None:
    seen = np.stack([CROP.apply_to(make_pattern(seed, 96, 128)) for seed in range(2)])[:, None]
    made = encode(build_clip_it(), seen, ClipItParams())
    assert made.shape == (2, 512)
    assert made.dtype == np.float32
    mean, std = np.float32([0.48145466, 0.4578275, 0.40821073]), np.float32([0.26862954, 0.26130258, 0.27577711])
    plain = (seen[:, 0].astype(np.float32) / 255 - mean) / std
    with torch.inference_mode():
        wanted = build_clip_it().network.clip.encode_images(torch.from_numpy(plain.transpose(0, 3, 1, 2).copy()))
    assert relative_error(made, wanted.numpy()) < TOLERANCE


def test_bf16_is_nearly_the_same() -> None:
    placed = replace(build_clip_it(), precision="bf16")
    seen = CROP.apply_to(make_pattern(1, 96, 128))[None, None]
    exact, short = (encode(placed, seen, ClipItParams(precision=which)) for which in ("fp32", "bf16"))
    assert 0 < relative_error(short, exact) < 3e-2


def test_each_distinct_sentence_is_encoded_once() -> None:
    batches: list[int] = []
    text = build_clip_it().network.clip.model.text_model
    hook = text.register_forward_hook(lambda _module, _args, out: batches.append(len(out.last_hidden_state)))
    pieces = [
        WindowOutput(start, start + 15, value)
        for start, value in zip((0, 15), np.eye(2, 512, dtype=np.float32), strict=True)
    ]
    try:
        many = tuple(f"sentence {number}" for number in range(20))
        for sentences in (("a", "b", "a"), many, ()):
            infer(build_clip_it(), pieces, ClipItParams(sentences=sentences))
    finally:
        hook.remove()
    assert batches == [2, 7, 1]


def test_the_text_is_seven_features_side_by_side_with_one_length() -> None:
    """The scorer's own answer, from the published way of putting its input together."""
    placed, sentences = build_clip_it(), ("a dog", "a cat")
    features_TD = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
    pieces = [WindowOutput(15 * n, 15 * n + 15, value) for n, value in enumerate(features_TD)]
    made = infer(placed, pieces, ClipItParams(sentences=sentences))
    with torch.inference_mode():
        ids = torch.from_numpy(tokenize_sentences([*sentences[:1], *sentences[1:] * 6]))
        text = placed.network.clip.encode_texts(ids).reshape(1, 1, -1)
        frames_1TD = torch.from_numpy(features_TD / np.linalg.norm(features_TD, axis=1, keepdims=True))[None]
        wanted = placed.network.scorer.score_frames(frames_1TD, text / text.norm())
    assert relative_error(made.scores, wanted[0].numpy()) < TOLERANCE
    assert np.allclose(np.linalg.norm(normalise_rows(features_TD), axis=1), 1)


# Finding a frame again -----------------------------------------------------------------------------------------------


def test_a_frame_is_found_again_in_a_damaged_video(tmp_path: Path) -> None:
    run_ffmpeg(*moving(seconds=4), *X264_OPTIONS, tmp_path / "whole.mp4")
    data = bytearray((tmp_path / "whole.mp4").read_bytes())
    data[len(data) * 2 // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) * 2 // 5)
    (tmp_path / "broken.mp4").write_bytes(data)
    check_again(tmp_path / "broken.mp4", damaged=True)


@pytest.mark.parametrize("name", ["raw.h264", "late.ts", "plain.avi"])
def test_a_frame_is_found_again_whatever_holds_it(name: str, tmp_path: Path) -> None:
    form = ("-f", "h264") if name == "raw.h264" else ()
    run_ffmpeg(*moving(), *X264_OPTIONS, *form, tmp_path / name)
    check_again(tmp_path / name, damaged=False)


def check_again(path: Path, damaged: bool) -> None:
    with VideoReader(path) as reader:
        shown = [apply_view(View.short_side(120), frame, reader.video) for frame in reader.read_frames()]
        times, failures = reader.timeline, reader.decode_failures
    assert bool(failures) == damaged
    for number in (0, len(shown) // 3, len(shown) - 1):
        with VideoReader(path, video=probe_video(path, allow_damaged=True).with_decode_failures(failures)) as reader:
            found = read_frame_at(reader, times.moment_at(number))
            assert np.array_equal(apply_view(View.short_side(120), found, reader.video), shown[number])


def test_a_frame_that_is_no_longer_there_is_missed(tmp_path: Path) -> None:
    path = make_shots_video([5], tmp_path / "film.mp4")
    with VideoReader(path) as reader:
        clock = reader.clock
        with pytest.raises(MediaCorrupt, match="frame 9"):
            read_frame_at(reader, clock.moment_at(9, clock.start_pts + 10**9))


def test_a_large_video_has_a_small_poster(tmp_path: Path) -> None:
    run_ffmpeg(*moving(size="1600x900", seconds=0.2), *X264_OPTIONS, tmp_path / "large.mp4")
    files = run_model("clip_it", tmp_path / "large.mp4", ClipItParams(), tmp_path / "scratch").outcome.files
    with Image.open(io.BytesIO(next(file for file in files if file.kind == "poster").path.read_bytes())) as image:
        assert image.size == (1280, 720)

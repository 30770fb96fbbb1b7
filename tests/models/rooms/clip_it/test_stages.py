"""From film to summary by the real loop: exact rows and files, and a second question without reading the film."""

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
from tests.factories import video
from tests.models.films import Quiet, pattern, run, shots_film
from tests.models.networks import clip_it
from tests.models.seeded import SAME, off
from tests.worker.video.films import X264, ffmpeg, pattern as moving
from worker.encoders.clip.tokens import tokens
from worker.models.clip_it.config import CROP
from worker.models.clip_it.files import frame_at
from worker.models.clip_it.stages import ROOM, decode, encode, infer, plan, reread, unit
from worker.models.clip_it.summary import Sampled, Summary
from worker.models.contract import Film, Inputs, Model, Outcome, Piece
from worker.models.placement import Placement
from worker.pipeline import Execution, Stages, execute
from worker.video.feed import Windows
from worker.video.pictures.keep import jpeg
from worker.video.probe import probe
from worker.video.reader import Reader
from worker.video.transform import View, see

LENGTHS = [50, 31, 45]
FRAMES = sum(LENGTHS)
QUESTION = ClipItParams(sentences=("a red square", "a blue square"), budget=0.4, sample_every=20)


def kept(execution: Execution) -> dict[str, Path]:
    return {file.kind: file.path for file in execution.outcome.files}


def rows(outcome: Outcome, kind: str) -> list[Result]:
    return [row for row in outcome.results if row.kind == kind]


def frames(some: Sequence[Result]) -> list[tuple[int, int]]:
    return [(row.range.start.frame, row.range.end.frame) for row in some if row.range]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots of 126 frames, with sound."""
    folder = tmp_path_factory.mktemp("film")
    shots_film(LENGTHS, folder / "mute.mp4")
    sine = ("-f", "lavfi", "-i", f"sine=d={FRAMES / 25}")
    ffmpeg("-i", folder / "mute.mp4", *sine, "-c:v", "copy", "-c:a", "aac", folder / "film.mp4")
    return folder / "film.mp4"


@pytest.fixture(scope="module")
def first(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Execution:
    """The film, asked `QUESTION`."""
    return run("clip_it", path, QUESTION, tmp_path_factory.mktemp("first") / "scratch")


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


def test_the_summary_is_a_film_of_its_highlights_with_sound(first: Execution, path: Path) -> None:
    made = probe(kept(first)["summary_film"])
    wanted = [frame for span in frames(rows(first.outcome, "highlight")) for frame in range(*span)]
    assert made.frames == len(wanted)
    assert len(made.audio) == 1
    with Reader(path) as source, Reader(kept(first)["summary_film"]) as summary:
        shown = [see(View.short_side(96), frame, source.video).astype(int) for frame in source.frames()]
        for frame, number in zip(summary.frames(), wanted, strict=True):
            assert np.abs(see(View.short_side(96), frame, made) - shown[number]).mean() < 4
    data = kept(first)["summary_film"].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_poster_is_the_best_sampled_frame(first: Execution, path: Path) -> None:
    scores = rows(first.outcome, "frame_score")
    best = max(scores, key=lambda row: row.score or 0).range
    assert best is not None
    with Reader(path) as reader:
        [frame] = reader.at([best.start.frame])
        assert kept(first)["poster"].read_bytes() == jpeg(see(View.full(), frame, reader.video))


def test_without_a_film_there_is_none(path: Path, tmp_path: Path) -> None:
    outcome = run("clip_it", path, ClipItParams(film=False, sample_every=60), tmp_path / "scratch").outcome
    assert [file.kind for file in outcome.files] == ["frame_features"]
    assert [row.data["source"] for row in rows(outcome, "caption")] == ["neutral"]


@pytest.mark.parametrize("length", [1, 2])
def test_a_film_of_a_frame_or_two_has_a_summary(length: int, tmp_path: Path) -> None:
    path = shots_film([length], tmp_path / "short.mp4")
    execution = run("clip_it", path, ClipItParams(), tmp_path / "scratch")
    [highlight] = rows(execution.outcome, "highlight")
    assert frames([highlight]) == [(0, 1)]
    assert highlight.data == {"segments": [0, 0], "rule": "part"}
    assert probe(kept(execution)["summary_film"]).frames == 1
    assert frames(rows(execution.outcome, "segment")) == frames(rows(execution.outcome, "frame_score")) == [(0, length)]


def test_a_film_without_frames_has_nothing_to_show(tmp_path: Path) -> None:
    facts = video()
    film = Film(tmp_path / "film.mp4", facts, Timeline.nothing(facts.clock), None, tmp_path, Inputs())
    outcome = decode(infer(clip_it(), [], QUESTION), film, QUESTION)
    assert outcome.results == ()
    again = reread({file.kind: file.path for file in outcome.files}, facts)
    assert (again.pieces, len(again.timeline)) == ((), 0)


# A second question ---------------------------------------------------------------------------------------------------

SECOND = QUESTION.model_copy(update={"sentences": ("somebody runs",), "budget": 0.7})


def test_a_second_question_is_answered_as_if_it_were_the_first(first: Execution, path: Path, tmp_path: Path) -> None:
    fresh = run("clip_it", path, SECOND, tmp_path / "fresh")
    again = run("clip_it", path, SECOND, tmp_path / "again", inputs=Inputs(kept=kept(first)))
    assert again.outcome.results == fresh.outcome.results != first.outcome.results
    assert fresh.frames_decoded == FRAMES == again.frames == fresh.frames
    assert again.frames_decoded == 0
    assert {kind: file.read_bytes() for kind, file in kept(again).items()} == {
        kind: file.read_bytes() for kind, file in kept(fresh).items()
    }


def test_the_film_may_be_gone_where_no_film_is_asked_for(first: Execution, path: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    model = Model(ROOM, Placement(threads=2), (), clip_it())
    inputs, params = Inputs(kept=kept(first)), SECOND.model_copy(update={"film": False})
    gone, stages = tmp_path / "gone.mp4", Stages(Quiet())
    execution = execute(model, gone, probe(path), inputs, params, tmp_path / "scratch", stages)
    assert frames(rows(execution.outcome, "highlight"))


def test_what_is_kept_is_all_of_the_film(first: Execution, path: Path) -> None:
    again = reread(kept(first), probe(path))
    assert [(piece.start, piece.stop) for piece in again.pieces] == frames(rows(first.outcome, "frame_score"))
    with Reader(path) as reader:
        pts = [frame.pts for frame in reader.frames()]
        assert [again.timeline.at(frame).pts for frame in range(FRAMES)] == pts
        assert again.timeline.at(FRAMES) == reader.timeline.at(FRAMES)
    assert again.decode_failures == 0


def test_decode_failures_are_kept(tmp_path: Path) -> None:
    facts = video().with_failures(3)
    sampled = Sampled(np.ones((1, 512), np.float32), (0,), 2)
    times = Timeline(facts.clock, array("q", [0, 1001]), 2002)
    film = Film(tmp_path / "film.mp4", facts, times, None, tmp_path, Inputs())
    summary = Summary(sampled, None, np.float32([0.5]), ((0, 2),))
    [file] = decode(summary, film, ClipItParams(film=False)).files
    again = reread({file.kind: file.path}, video())
    assert again.decode_failures == 3
    assert again.timeline.at(2).pts == 2002


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
    with pytest.raises(Internal, match="kept features"):
        reread({"frame_features": path}, video())


# Stages --------------------------------------------------------------------------------------------------------------


def test_the_plan_looks_at_every_so_manyth_frame() -> None:
    planned = plan(video(), Inputs(), ClipItParams(), Placement())
    assert planned.windows == Windows(1, 15)
    assert (planned.view, planned.prepare, planned.batch) == (View.full(), CROP.see, 8)
    assert plan(video(), Inputs(), ClipItParams(sample_every=1), Placement(device="cuda:0")).batch == 64


def test_what_cannot_be_done_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidRequest, match=r"Sentence 2 has 1\d\d tokens"):
        plan(video(), Inputs(), ClipItParams(sentences=("a cat", "word " * 150)), Placement())
    with pytest.raises(ModelUnavailable):
        plan(video(), Inputs(), ClipItParams(precision="bf16"), Placement(precision="fp32"))


def test_a_question_that_is_too_long_is_refused_for_a_film_that_was_read(first: Execution, path: Path) -> None:
    long = SECOND.model_copy(update={"sentences": ("word " * 150,)})
    with pytest.raises(InvalidRequest, match="tokens"):
        infer(clip_it(), reread(kept(first), probe(path)).pieces, long)


def test_frames_are_encoded_as_pictures_are() -> None:
    seen = np.stack([CROP.see(pattern(seed, 96, 128)) for seed in range(2)])[:, None]
    made = encode(clip_it(), seen, ClipItParams())
    assert made.shape == (2, 512)
    assert made.dtype == np.float32
    mean, std = np.float32([0.48145466, 0.4578275, 0.40821073]), np.float32([0.26862954, 0.26130258, 0.27577711])
    plain = (seen[:, 0].astype(np.float32) / 255 - mean) / std
    with torch.inference_mode():
        wanted = clip_it().network.clip.images(torch.from_numpy(plain.transpose(0, 3, 1, 2).copy()))
    assert off(made, wanted.numpy()) < SAME


def test_bf16_is_nearly_the_same() -> None:
    placed = replace(clip_it(), precision="bf16")
    seen = CROP.see(pattern(1, 96, 128))[None, None]
    exact, short = (encode(placed, seen, ClipItParams(precision=which)) for which in ("fp32", "bf16"))
    assert 0 < off(short, exact) < 3e-2


def test_each_distinct_sentence_is_encoded_once() -> None:
    batches: list[int] = []
    text = clip_it().network.clip.model.text_model
    hook = text.register_forward_hook(lambda _module, _args, out: batches.append(len(out.last_hidden_state)))
    pieces = [
        Piece(start, start + 15, value) for start, value in zip((0, 15), np.eye(2, 512, dtype=np.float32), strict=True)
    ]
    try:
        many = tuple(f"sentence {number}" for number in range(20))
        for sentences in (("a", "b", "a"), many, ()):
            infer(clip_it(), pieces, ClipItParams(sentences=sentences))
    finally:
        hook.remove()
    assert batches == [2, 7, 1]


def test_the_text_is_seven_features_side_by_side_with_one_length() -> None:
    """The scorer's own answer, from the published way of putting its input together."""
    placed, sentences = clip_it(), ("a dog", "a cat")
    features_TD = np.random.default_rng(1).standard_normal((4, 512)).astype(np.float32)
    pieces = [Piece(15 * n, 15 * n + 15, value) for n, value in enumerate(features_TD)]
    made = infer(placed, pieces, ClipItParams(sentences=sentences))
    with torch.inference_mode():
        ids = torch.from_numpy(tokens([*sentences[:1], *sentences[1:] * 6]))
        text = placed.network.clip.texts(ids).reshape(1, 1, -1)
        frames_1TD = torch.from_numpy(features_TD / np.linalg.norm(features_TD, axis=1, keepdims=True))[None]
        wanted = placed.network.scorer.scores(frames_1TD, text / text.norm())
    assert off(made.scores, wanted[0].numpy()) < SAME
    assert np.allclose(np.linalg.norm(unit(features_TD), axis=1), 1)


# Finding a frame again -----------------------------------------------------------------------------------------------


def test_a_frame_is_found_again_in_a_damaged_film(tmp_path: Path) -> None:
    ffmpeg(*moving(seconds=4), *X264, tmp_path / "whole.mp4")
    data = bytearray((tmp_path / "whole.mp4").read_bytes())
    data[len(data) * 2 // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) * 2 // 5)
    (tmp_path / "broken.mp4").write_bytes(data)
    check_again(tmp_path / "broken.mp4", damaged=True)


@pytest.mark.parametrize("name", ["raw.h264", "late.ts", "plain.avi"])
def test_a_frame_is_found_again_whatever_holds_it(name: str, tmp_path: Path) -> None:
    form = ("-f", "h264") if name == "raw.h264" else ()
    ffmpeg(*moving(), *X264, *form, tmp_path / name)
    check_again(tmp_path / name, damaged=False)


def check_again(path: Path, damaged: bool) -> None:
    with Reader(path) as reader:
        shown = [see(View.short_side(120), frame, reader.video) for frame in reader.frames()]
        times, failures = reader.timeline, reader.decode_failures
    assert bool(failures) == damaged
    for number in (0, len(shown) // 3, len(shown) - 1):
        with Reader(path, video=probe(path, allow_damaged=True).with_failures(failures)) as reader:
            found = frame_at(reader, times.at(number))
            assert np.array_equal(see(View.short_side(120), found, reader.video), shown[number])


def test_a_frame_that_is_no_longer_there_is_missed(tmp_path: Path) -> None:
    path = shots_film([5], tmp_path / "film.mp4")
    with Reader(path) as reader:
        clock = reader.clock
        with pytest.raises(MediaCorrupt, match="frame 9"):
            frame_at(reader, clock.at(9, clock.start_pts + 10**9))


def test_a_large_film_has_a_small_poster(tmp_path: Path) -> None:
    ffmpeg(*moving(size="1600x900", seconds=0.2), *X264, tmp_path / "large.mp4")
    files = run("clip_it", tmp_path / "large.mp4", ClipItParams(), tmp_path / "scratch").outcome.files
    with Image.open(io.BytesIO(next(file for file in files if file.kind == "poster").path.read_bytes())) as image:
        assert image.size == (1280, 720)

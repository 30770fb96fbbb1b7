"""From scores to shots: the rules by example, and what must hold for any scores however they arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from worker.models.contract import KeyframeSelector, WindowOutput
from worker.models.shots.config import COLOUR_RULE
from worker.models.shots.segmentation import (
    ColourSegmenter,
    ShotKeyframeSelector,
    ShotSegmenter,
    ShotSpan,
    TransitionSegmenter,
)
from worker.video.keyframes.loader import keyframe_name, middle_frame

HALF = 0.5


def spans(scores: list[float]) -> list[tuple[int, int, int, float | None]]:
    cutter = TransitionSegmenter(HALF)
    made = cutter.add_scores(np.array(scores, np.float32)) + cutter.finish()
    return [(span.start, span.end, span.transition, span.score) for span in made]


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([], []),
        ([0.125], [(0, 1, 0, None)]),
        ([0.875], [(0, 1, 0, None)]),
        ([0.125, 0.25, 0.5], [(0, 3, 0, None)]),
        ([0.875, 0.75, 0.625], [(0, 3, 0, None)]),
        ([0.125, 0.125, 0.875, 0.125, 0.125], [(0, 3, 0, None), (3, 5, 0, 0.875)]),
        ([0.125, 0.5625, 0.875, 0.625, 0.125], [(0, 2, 0, None), (4, 5, 2, 0.875)]),
        ([0.875, 0.875, 0.125, 0.125], [(2, 4, 2, None)]),
        ([0.125, 0.125, 0.875, 0.875], [(0, 3, 0, None)]),
        ([0.875, 0.125, 0.875], [(1, 3, 1, None)]),
        ([0.125, 0.75, 0.125, 0.625, 0.125], [(0, 2, 0, None), (2, 4, 0, 0.75), (4, 5, 0, 0.625)]),
    ],
)
def test_transitions_by_the_published_rule(
    scores: list[float], wanted: list[tuple[int, int, int, float | None]]
) -> None:
    assert spans(scores) == wanted


def cuts(scores: list[tuple[float, float]], min_frames: int = 2) -> list[tuple[int, int]]:
    cutter = ColourSegmenter(min_frames)
    made = cutter.add_scores(np.array(scores, np.float32).reshape(-1, 2)) + cutter.finish()
    return [(span.start, span.end) for span in made]


STILL, CUT = (0.0, 0.0), (40.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([], []),
        ([CUT], [(0, 1)]),
        ([STILL, CUT, STILL], [(0, 1), (1, 3)]),
        ([STILL, STILL, CUT, CUT, CUT, STILL], [(0, 2), (2, 4), (4, 6)]),
        ([STILL, STILL, CUT, CUT, STILL], [(0, 2), (2, 5)]),
    ],
    ids=["no frames", "one frame", "the first cut is free", "too near", "a passed over cut resets nothing"],
)
def test_colour_cuts_keep_their_distance(scores: list[tuple[float, float]], wanted: list[tuple[int, int]]) -> None:
    assert cuts(scores) == wanted


@pytest.mark.parametrize(
    ("d_hsv", "d_luv", "cut"),
    [
        (30, 0, True),
        (19.9, 255, False),
        (20, 20, False),
        (20, 20.1, True),
        (22, 10, False),
        (22, 10.1, True),
        (29.9, 0, True),
    ],
)
def test_the_colour_rule_at_its_edges(d_hsv: float, d_luv: float, cut: bool) -> None:
    assert COLOUR_RULE.is_cut(d_hsv, d_luv) is cut


def fresh(kind: str, min_frames: int) -> ShotSegmenter:
    return TransitionSegmenter(HALF) if kind == "transitions" else ColourSegmenter(min_frames)


def cut_up(scores: np.ndarray, sizes: list[int]) -> list[WindowOutput[np.ndarray]]:
    """The scores in pieces of random sizes."""
    pieces, start = [], 0
    for size in [*sizes, len(scores)]:
        stop = min(len(scores), start + size)
        if stop > start:
            pieces.append(WindowOutput(start, stop, scores[start:stop]))
        start = stop
    return pieces


def followed(
    selector: KeyframeSelector[np.ndarray], outputs: list[WindowOutput[np.ndarray]], frames: int
) -> dict[str, int]:
    """Every image asked for; each at a time when its frame is still held and has been seen."""
    asked: dict[str, int] = {}
    horizon = 0
    for output in outputs:
        picks = selector.add_output(output)
        for frame, file in picks.frames:
            assert horizon <= frame < output.stop
            assert file not in asked
            asked[file] = frame
        assert horizon <= picks.horizon <= output.stop
        horizon = picks.horizon
    picks = selector.finish(frames)
    for frame, file in picks.frames:
        assert horizon <= frame < frames
        assert file not in asked
        asked[file] = frame
    return asked


def wanted(shots: list[ShotSpan]) -> dict[str, int]:
    frames = [(span.start, middle_frame(span.start, span.end), span.end - 1) for span in shots]
    return {keyframe_name(shot, image): frame for shot, three in enumerate(frames) for image, frame in enumerate(three)}


scores_of_a_film = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.51, 0.9]), max_size=80)
kinds = st.sampled_from(["transitions", "colour"])


@settings(max_examples=400, deadline=None)
@given(kinds, scores_of_a_film, st.lists(st.integers(1, 30), max_size=12), st.integers(1, 6))
def test_the_picker_follows_what_is_inferred(kind: str, marks: list[float], sizes: list[int], min_frames: int) -> None:
    marked = np.array(marks, np.float32)
    scores = marked if kind == "transitions" else np.stack([marked * 60, marked * 60], axis=1)
    at_once = fresh(kind, min_frames)
    shots = at_once.add_scores(scores) + at_once.finish()
    asked = followed(ShotKeyframeSelector(fresh(kind, min_frames)), cut_up(scores, sizes), len(scores))
    assert asked == wanted(shots)
    check(shots, len(scores))


def check(shots: list[ShotSpan], frames: int) -> None:
    """In order, none empty, none over another; the gaps are the transitions they carry."""
    end = 0
    for span in shots:
        assert span.start < span.end <= frames
        assert span.start - end == span.transition
        end = span.end
    assert bool(shots) is bool(frames)


def test_the_later_half_of_the_open_shot_is_all_that_is_held() -> None:
    picker = ShotKeyframeSelector(TransitionSegmenter(HALF))
    horizons = [
        picker.add_output(WindowOutput(n, n + 100, np.zeros(100, np.float32))).horizon for n in range(0, 500, 100)
    ]
    assert horizons == [49, 99, 149, 199, 249]
    assert picker.add_output(WindowOutput(500, 501, np.ones(1, np.float32))).horizon == 501


def test_a_picker_that_missed_a_frame_says_so() -> None:
    picker = ShotKeyframeSelector(ColourSegmenter(1))
    picker.add_output(WindowOutput(0, 1, np.zeros((1, 2), np.float32)))
    with pytest.raises(ValueError, match="1 frames of 2"):
        picker.finish(2)


def test_names_are_those_of_movienet() -> None:
    assert keyframe_name(0, 0) == "shot_0000_img_0.jpg"
    assert keyframe_name(12345, 2) == "shot_12345_img_2.jpg"

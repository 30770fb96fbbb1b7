"""Segments, selection and the published answer: the given cases exactly, every rule against a plain rendering of it."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given as draw, strategies

from shared.values import Clock, Result, TimeRange
from shared.values.modelscope import format_modelscope_summary
from tests.support.factories import make_timeline
from tests.support.seeded_weights import GOLDEN
from worker.models.clip_it.captions import (
    NEUTRAL_SENTENCES,
    NeutralCaptions,
    build_guide,
    make_caption_source,
    select_sentences,
)
from worker.models.clip_it.segments import change_point_penalties, find_change_points, iter_scatters, segment_bounds
from worker.models.clip_it.selection import (
    Selection,
    expand_scores,
    mean_scores,
    merge_spans,
    select_segments,
    solve_knapsack,
)

CASES: list[dict[str, Any]] = json.loads((GOLDEN / "clip_it_postprocess.json").read_text())
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['T']} frames")


def features_of(case: dict[str, Any]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = np.load(GOLDEN / f"clip_it_kts_{case['seed']}.npz")["features"]
    return found


def spans_of(case: dict[str, Any]) -> list[tuple[int, int]]:
    return [(first, last + 1) for first, last in case["change_points"]]


def scores_of(case: dict[str, Any]) -> npt.NDArray[np.float32]:
    return expand_scores(np.float32(case["scores"]), case["picks"], case["n_frames"])


# The given cases -----------------------------------------------------------------------------------------------------


@every_case
def test_segments_are_the_published_ones(case: dict[str, Any]) -> None:
    made = segment_bounds(find_change_points(features_of(case)), case["picks"], case["n_frames"])
    assert list(made) == spans_of(case)
    assert [stop - start - 1 for start, stop in made] == case["n_frame_per_seg"]


@every_case
def test_the_summary_is_the_published_one(case: dict[str, Any]) -> None:
    made = select_segments(scores_of(case), spans_of(case), case["picks"], 0.15)
    assert len(scores_of(case)) == case["summary_len"]
    if case["summary_on"]:
        assert made.rule == "knapsack"
        assert [frame for start, stop in made.spans for frame in range(start, stop)] == case["summary_on"]
    else:  # where the published pipeline has nothing to show
        assert made.rule == "part"
        assert made.spans


@every_case
def test_the_answer_is_the_published_one(case: dict[str, Any]) -> None:
    selection = select_segments(scores_of(case), spans_of(case), case["picks"], 0.15)
    chosen = selection if selection.rule == "knapsack" else Selection()
    times = make_timeline(case["n_frames"])
    rows = [Result("highlight", seq, times.time_range(*span)) for seq, span in enumerate(chosen.spans)]
    assert format_modelscope_summary(rows, Fraction(str(case["fps"]))) == {"output": case["output"]}


# Segments ------------------------------------------------------------------------------------------------------------


def by_hand(features_TD: npt.NDArray[np.float32]) -> list[int]:
    """Change points by the formulas of the published code, one number after the other."""
    frames = len(features_TD)
    kernel = features_TD.astype(np.float64) @ features_TD.astype(np.float64).T
    most = min(frames - 1, 120)

    def scatter(first: int, last: int) -> float:
        block = kernel[first : last + 1, first : last + 1]
        return float(np.trace(block) - block.sum() / len(block))

    least = {(0, end): scatter(0, end - 1) for end in range(1, frames + 1)}
    cut = {}
    for count in range(1, most + 1):
        for end in range(count + 1, frames + 1):
            tried = [scatter(at, end - 1) + least[count - 1, at] for at in range(count, end)]
            cut[count, end] = count + int(np.argmin(tried))
            least[count, end] = min(tried)
    costs = [
        least[count, frames] / frames + float(change_point_penalties(frames, most, 0.55)[count])
        for count in range(most + 1)
    ]
    points, end = [], frames
    for count in range(int(np.argmin(costs)), 0, -1):
        end = cut[count, end]
        points.append(end)
    return points[::-1]


def made_of(lengths: list[int], seed: int, spread: float) -> npt.NDArray[np.float32]:
    """Features of shots of so many sampled frames, each of length one."""
    rng = np.random.default_rng(seed)
    centres_TD = rng.standard_normal((len(lengths), 16)).repeat(lengths, axis=0)
    rows_TD = centres_TD + spread * rng.standard_normal(centres_TD.shape)
    return (rows_TD / np.linalg.norm(rows_TD, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("lengths", [[1], [2], [1, 1], [3, 4], [9, 2, 7, 1, 8], [12] * 3])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_change_points_are_those_of_the_formulas(lengths: list[int], spread: float) -> None:
    features_TD = made_of(lengths, seed=len(lengths), spread=spread)
    assert find_change_points(features_TD) == by_hand(features_TD)


def test_clear_changes_are_found() -> None:
    assert find_change_points(made_of([20, 30, 10, 25], seed=3, spread=0.1)) == [20, 50, 60]


def test_the_scatter_of_a_stretch_is_that_of_its_frames() -> None:
    features_TD = made_of([5, 6], seed=1, spread=1.0)
    for end, scatter_T in enumerate(iter_scatters(features_TD), 1):
        wanted = [float(np.square(features_TD[at:end] - features_TD[at:end].mean(axis=0)).sum()) for at in range(end)]
        assert np.allclose(scatter_T, wanted, atol=1e-5)


@pytest.mark.parametrize("frames", [0, 1, 2, 50])
def test_a_video_in_which_nothing_changes_is_one_segment(frames: int) -> None:
    features_TD = np.full((frames, 512), 512**-0.5, np.float32)
    assert find_change_points(features_TD) == []
    assert segment_bounds([], range(0, 15 * frames, 15), 15 * frames) == (((0, 15 * frames),) if frames else ())


def test_there_are_at_most_120_change_points() -> None:
    alone = made_of([1] * 400, seed=4, spread=0.0)
    points = find_change_points(np.repeat(alone, 3, axis=0))
    assert len(points) == 120
    assert points == sorted(set(points))


@pytest.mark.timeout(120)  # not hours: the work grows with the square of the frames, not with their cube
def test_4000_sampled_frames_are_cut() -> None:
    features_TD = np.concatenate([made_of([40] * 100, seed=5, spread=0.3)] * 4, axis=1) / 2
    points = find_change_points(features_TD)
    assert [point for point in points if point % 40 == 0] == points == list(range(40, 4000, 40))


# Selection -----------------------------------------------------------------------------------------------------------


def test_each_frame_has_the_score_of_the_last_sampled_one() -> None:
    assert (
        expand_scores(np.float32([0.1, 0.2, 0.3]), [0, 2, 4], 7).tolist()
        == np.float32([0.1] * 2 + [0.2] * 2 + [0.3] * 3).tolist()
    )
    assert expand_scores(np.empty(0, np.float32), [], 0).tolist() == []


@draw(
    strategies.lists(strategies.tuples(strategies.integers(1, 9), strategies.integers(1, 5)), max_size=7),
    strategies.integers(0, 30),
)
def test_nothing_else_that_fits_is_worth_more(things: list[tuple[int, int]], room: int) -> None:
    weights, worth = [weight for weight, _ in things], [value / 4 for _, value in things]
    chosen = solve_knapsack(weights, worth, room)
    assert chosen == sorted(set(chosen))
    assert sum(weights[number] for number in chosen) <= room
    best = max(
        sum(worth[number] for number in some)
        for count in range(len(things) + 1)
        for some in combinations(range(len(things)), count)
        if sum(weights[number] for number in some) <= room
    )
    assert sum(worth[number] for number in chosen) == best


@pytest.mark.parametrize(
    ("weights", "worth", "room", "wanted"),
    [
        ([5, 5], [0.5, 0.5], 5, [0]),
        ([5, 5, 5], [0.5, 0.6, 0.6], 5, [1]),
        ([3, 2, 5], [0.5, 0.5, 1.0], 5, [0, 1]),
        ([2, 3], [0.0, 0.5], 5, [1]),
        ([6], [1.0], 5, []),
        ([], [], 5, []),
    ],
)
def test_of_equals_the_later_stays_out(weights: list[int], worth: list[float], room: int, wanted: list[int]) -> None:
    assert solve_knapsack(weights, worth, room) == wanted


def test_segments_that_touch_are_one_highlight() -> None:
    assert merge_spans([(0, 10), (10, 15), (20, 30), (30, 31)]) == ((0, 15), (20, 31))
    assert merge_spans([(5, 6)]) == ((5, 6),)
    assert merge_spans([]) == ()


def test_the_whole_video_fits_into_its_whole_length() -> None:
    scores_N = expand_scores(np.float32([0.2, 0.9, 0.4]), [0, 15, 30], 40)
    assert select_segments(scores_N, [(0, 15), (15, 40)], [0, 15, 30], 1.0) == Selection(((0, 40),), (0, 1), "knapsack")


# Where no segment fits ------------------------------------------------------------------------------------------------


def part(scores: list[float], frames: int, budget: float, segments: list[tuple[int, int]] | None = None) -> Selection:
    starts = list(range(0, frames, 15))
    return select_segments(expand_scores(np.float32(scores), starts, frames), segments or [(0, frames)], starts, budget)


def test_the_best_part_has_whole_steps() -> None:
    # Model for 39 frames of 130: two steps of 15. The two with the greatest mean begin at 45.
    scores = [0.1, 0.6, 0.2, 0.7, 0.8, 0.1, 0.5, 0.9, 0.2]
    assert part(scores, 130, 0.3) == Selection(((45, 75),), (0,), "part")


def test_the_first_of_equal_parts_is_taken() -> None:
    assert part([0.5] * 9, 130, 0.3).spans == ((0, 30),)


def test_the_part_lies_in_the_best_segment() -> None:
    scores = [0.9, 0.1, 0.1, 0.1, 0.4, 0.5, 0.4, 0.4]
    assert part(scores, 120, 0.15, [(0, 60), (60, 120)]) == Selection(((75, 90),), (1,), "part")


def test_where_not_one_step_fits_it_is_as_many_frames_as_do() -> None:
    assert part([0.1, 0.9, 0.3], 45, 0.15).spans == ((15, 21),)
    assert part([0.1, 0.9, 0.3], 31, 0.15).spans == ((15, 19),)  # the last step has one frame


@pytest.mark.parametrize("frames", range(1, 20))
@pytest.mark.parametrize("budget", [0.01, 0.15, 0.5, 1.0])
def test_no_video_is_too_short_for_a_summary(frames: int, budget: float) -> None:
    scores = [0.5, 0.7][: 1 + frames // 16]
    selection = part(scores, frames, budget)
    [(start, stop)] = selection.spans
    assert 0 <= start < stop <= frames
    assert stop - start <= max(1, int(frames * budget))


def test_scores_of_nothing_still_make_a_summary() -> None:
    assert part([0.0] * 4, 60, 1.0, [(0, 30), (30, 60)]) == Selection(((0, 30),), (0,), "part")


def test_a_video_without_frames_has_none() -> None:
    assert select_segments(np.empty(0, np.float32), [], [], 0.15) == Selection()
    assert mean_scores(np.empty(0, np.float32), []) == []


# Sentences -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0]),
        (3, [0, 1, 2, 2, 2, 2, 2]),
        (7, [0, 1, 2, 3, 4, 5, 6]),
        (8, [0, 1, 2, 3, 4, 5, 7]),
        (13, [0, 2, 4, 6, 8, 10, 12]),
        (64, [0, 10, 21, 31, 42, 52, 63]),
    ],
)
def test_seven_sentences_guide_whatever_their_number(count: int, wanted: list[int]) -> None:
    assert select_sentences([str(number) for number in range(count)]) == tuple(map(str, wanted))


def test_without_sentences_the_source_of_captions_says_what_guides() -> None:
    features_TD = np.zeros((3, 512), np.float32)
    asked = build_guide((), make_caption_source("neutral"), features_TD)
    assert (asked.sentences, asked.source, asked.distinct_sentences) == (
        NEUTRAL_SENTENCES * 7,
        "neutral",
        NEUTRAL_SENTENCES,
    )
    own = build_guide(("a dog", "a cat", "a dog"), NeutralCaptions(), features_TD)
    assert own.sentences == ("a dog", "a cat", "a dog", "a dog", "a dog", "a dog", "a dog")
    assert (own.source, own.distinct_sentences) == ("request", ("a dog", "a cat"))


# The published answer ------------------------------------------------------------------------------------------------


def row_of(start: int, stop: int, clock: Clock) -> Result:
    return Result("highlight", 0, TimeRange(clock.moment_at(start, 512 * start), clock.moment_at(stop, 512 * stop)))


@pytest.mark.parametrize(
    ("fps", "start", "stop", "wanted"),
    [
        (Fraction(25), 0, 1, ["00:00:00.000", "00:00:00.000"]),
        (Fraction(25), 90_000, 90_026, ["01:00:00.000", "01:00:01.000"]),
        (Fraction(30_000, 1001), 1798, 1800, ["00:00:59.993", "00:01:00.027"]),
        (Fraction(24_000, 1001), 1438, 1439, ["00:00:59.977", "00:00:59.977"]),
        (Fraction(100_000, 1001), 5994, 5995, ["00:00:60.000", "00:00:60.000"]),  # 59.99994: rounded last, as published
        (Fraction(0), 90_000, 90_025, ["01:00:00.000", "01:00:01.000"]),  # no rate: exact times
    ],
)
def test_time_stamps_are_written_as_published(fps: Fraction, start: int, stop: int, wanted: list[str]) -> None:
    clock = Clock(Fraction(1, 25 * 512), fps, 0)
    assert format_modelscope_summary([row_of(start, stop, clock)], fps) == {
        "output": [{"frame": [start, stop - 1], "timestamps": wanted}]
    }


def test_a_highlight_without_range_is_refused() -> None:
    with pytest.raises(ValueError, match="highlight 3"):
        format_modelscope_summary([Result("highlight", 3)], Fraction(25))

"""Select the parts of a video that make its summary: segments within the budget, by a 0/1 knapsack as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
FrameSpan = tuple[int, int]
SelectionRule = Literal["knapsack", "part"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The parts that make a summary.

    Args:
        spans: frames (end exclusive) in order; adjacent ones are merged.
        segments: numbers of the segments that they come from.
        rule: `knapsack`: whole segments, as published. `part`: no segment fits into the budget, so a part of the best.
    """

    spans: tuple[FrameSpan, ...] = ()
    segments: tuple[int, ...] = ()
    rule: SelectionRule = "knapsack"


def expand_scores(scores_T: Floats, starts: Sequence[int], frames: int) -> Floats:
    """Give each frame the score of the last sampled frame: (frames,)."""
    return np.repeat(scores_T, np.diff([*starts, frames]))


def mean_scores(frame_scores_N: Floats, segments: Sequence[FrameSpan]) -> list[float]:
    """Compute the mean score of each segment, in float32 as published."""
    return [float(frame_scores_N[start:stop].mean()) for start, stop in segments]


def select_segments(
    frame_scores_N: Floats, segments: Sequence[FrameSpan], starts: Sequence[int], budget: float
) -> Selection:
    """Select the segments with the greatest sum of scores whose frames stay within the budget.

    Where no segment fits, the published pipeline yields an empty summary. Here the summary is then a part of the
    segment with the best mean: the part with the greatest mean score, the first of equals. It begins with a sampled
    frame and has as many whole sampling steps as fit into the budget; where not even one does, as many frames as fit,
    at least one.

    Args:
        frame_scores_N: a score for each frame of the video.
        segments: of the whole video.
        starts: numbers of the sampled frames.
        budget: fraction of the video that the summary may have.
    """
    if not segments:
        return Selection()
    capacity, segment_scores = int(len(frame_scores_N) * budget), mean_scores(frame_scores_N, segments)
    chosen = solve_knapsack([stop - start for start, stop in segments], segment_scores, capacity)
    if chosen:
        return Selection(merge_spans([segments[number] for number in chosen]), tuple(chosen))
    best = int(np.argmax(segment_scores))
    return Selection((_best_part(frame_scores_N, segments[best], starts, capacity),), (best,), "part")


def solve_knapsack(weights: Sequence[int], values: Sequence[float], capacity: int) -> list[int]:
    """Solve the 0/1 knapsack: numbers of the chosen items, ascending.

    Of equal choices the later item stays out, as published: it is taken only where the best value differs without it.
    """
    best_W, taken = np.zeros(capacity + 1), []
    for weight, value in zip(weights, values, strict=True):
        updated_W = best_W.copy()
        updated_W[weight:] = np.maximum(value + best_W[: max(0, capacity + 1 - weight)], best_W[weight:])
        taken.append(updated_W != best_W)
        best_W = updated_W
    chosen, remaining = [], capacity
    for number in reversed(range(len(weights))):
        if taken[number][remaining]:
            chosen.append(number)
            remaining -= weights[number]
    return chosen[::-1]


def merge_spans(spans: Sequence[FrameSpan]) -> tuple[FrameSpan, ...]:
    """Merge adjacent spans; they come in order."""
    if not spans:
        return ()
    breaks = [
        0,
        *(n for n, (previous, following) in enumerate(pairwise(spans), 1) if previous[1] < following[0]),
        len(spans),
    ]
    return tuple((spans[first][0], spans[last - 1][1]) for first, last in pairwise(breaks))


def _best_part(frame_scores_N: Floats, segment: FrameSpan, starts: Sequence[int], capacity: int) -> FrameSpan:
    """Find the best part of a segment that fits, as `select_segments` describes."""
    start, stop = segment
    step = starts[1] - starts[0] if len(starts) > 1 else len(frame_scores_N)
    length = min(capacity // step * step or max(1, capacity), stop - start)
    sums = np.concatenate([[0.0], np.cumsum(frame_scores_N[start:stop], dtype=np.float64)])
    begins = np.array([begin for begin in starts if start <= begin <= stop - length])
    best = int(begins[np.argmax(sums[begins + length - start] - sums[begins - start])])
    return best, best + length

"""Which parts of a film make its summary: whole segments within the budget, chosen by a 0/1 knapsack as published."""

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
    """What a summary is made of.

    Args:
        spans: frames (end exclusive) in order of the film; they do not touch.
        segments: numbers of the segments that they come from.
        rule: `solve_knapsack`: whole segments, as published. `part`: no segment fits into the budget, so a part of the best.
    """

    spans: tuple[FrameSpan, ...] = ()
    segments: tuple[int, ...] = ()
    rule: SelectionRule = "knapsack"


def expand_scores(scores_T: Floats, starts: Sequence[int], frames: int) -> Floats:
    """A score for each frame: that of the last sampled frame. (frames,)."""
    return np.repeat(scores_T, np.diff([*starts, frames]))


def mean_scores(frame_scores_N: Floats, segments: Sequence[FrameSpan]) -> list[float]:
    """Mean score of each segment, in float32 as published."""
    return [float(frame_scores_N[start:stop].mean()) for start, stop in segments]


def select_segments(
    frame_scores_N: Floats, segments: Sequence[FrameSpan], starts: Sequence[int], budget: float
) -> Selection:
    """The segments whose scores add up to most while their frames stay within the budget.

    Where that is none, the published pipeline yields an empty summary. Here it is then the part of the best segment (by
    mean) with the greatest mean score, each time the first of equals: it begins with a sampled frame and has as many
    whole steps of the sampling as fit into the budget, or as many frames where not even one does, and one at least.

    Args:
        frame_scores_N: a score for each frame of the film.
        segments: that the film falls into; the last ends with it.
        starts: numbers of the sampled frames.
        budget: part of the film that the summary may have.
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
    """Numbers of the things that are worth most together while they weigh at most `capacity`, ascending.

    Of equals the later thing stays out, as published: it is in only where the worth then differs from that without it.
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
    """The same frames, spans that touch made one; they come in order."""
    if not spans:
        return ()
    breaks = [
        0,
        *(n for n, (previous, following) in enumerate(pairwise(spans), 1) if previous[1] < following[0]),
        len(spans),
    ]
    return tuple((spans[first][0], spans[last - 1][1]) for first, last in pairwise(breaks))


def _best_part(frame_scores_N: Floats, segment: FrameSpan, starts: Sequence[int], capacity: int) -> FrameSpan:
    """The best part of a segment that fits, as `select_segments` says."""
    start, stop = segment
    step = starts[1] - starts[0] if len(starts) > 1 else len(frame_scores_N)
    length = min(capacity // step * step or max(1, capacity), stop - start)
    sums = np.concatenate([[0.0], np.cumsum(frame_scores_N[start:stop], dtype=np.float64)])
    begins = np.array([begin for begin in starts if start <= begin <= stop - length])
    best = int(begins[np.argmax(sums[begins + length - start] - sums[begins - start])])
    return best, best + length

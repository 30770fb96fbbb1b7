"""Which parts of a film make its summary: whole segments within the budget, chosen by a 0/1 knapsack as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Span = tuple[int, int]
Rule = Literal["knapsack", "part"]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a summary is made of.

    Args:
        spans: frames (end exclusive) in order of the film; they do not touch.
        segments: numbers of the segments that they come from.
        rule: `knapsack`: whole segments, as published. `part`: no segment fits into the budget, so a part of the best.
    """

    spans: tuple[Span, ...] = ()
    segments: tuple[int, ...] = ()
    rule: Rule = "knapsack"


def stepped(scores_T: Floats, starts: Sequence[int], frames: int) -> Floats:
    """A score for each frame: that of the last sampled frame. (frames,)."""
    return np.repeat(scores_T, np.diff([*starts, frames]))


def values(frame_scores_N: Floats, segments: Sequence[Span]) -> list[float]:
    """Mean score of each segment, in float32 as published."""
    return [float(frame_scores_N[start:stop].mean()) for start, stop in segments]


def select(frame_scores_N: Floats, segments: Sequence[Span], starts: Sequence[int], budget: float) -> Selection:
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
    room, worth = int(len(frame_scores_N) * budget), values(frame_scores_N, segments)
    chosen = knapsack([stop - start for start, stop in segments], worth, room)
    if chosen:
        return Selection(joined([segments[number] for number in chosen]), tuple(chosen))
    best = int(np.argmax(worth))
    return Selection((_part(frame_scores_N, segments[best], starts, room),), (best,), "part")


def knapsack(weights: Sequence[int], worth: Sequence[float], room: int) -> list[int]:
    """Numbers of the things that are worth most together while they weigh at most `room`, ascending.

    Of equals the later thing stays out, as published: it is in only where the worth then differs from that without it.
    """
    best_W, taken = np.zeros(room + 1), []
    for weight, value in zip(weights, worth, strict=True):
        with_W = best_W.copy()
        with_W[weight:] = np.maximum(value + best_W[: max(0, room + 1 - weight)], best_W[weight:])
        taken.append(with_W != best_W)
        best_W = with_W
    chosen, left = [], room
    for number in reversed(range(len(weights))):
        if taken[number][left]:
            chosen.append(number)
            left -= weights[number]
    return chosen[::-1]


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The same frames, spans that touch made one; they come in order."""
    if not spans:
        return ()
    breaks = [0, *(n for n, (one, other) in enumerate(pairwise(spans), 1) if one[1] < other[0]), len(spans)]
    return tuple((spans[first][0], spans[last - 1][1]) for first, last in pairwise(breaks))


def _part(frame_scores_N: Floats, segment: Span, starts: Sequence[int], room: int) -> Span:
    """The best part of a segment that fits, as `select` says."""
    start, stop = segment
    step = starts[1] - starts[0] if len(starts) > 1 else len(frame_scores_N)
    length = min(room // step * step or max(1, room), stop - start)
    sums = np.concatenate([[0.0], np.cumsum(frame_scores_N[start:stop], dtype=np.float64)])
    begins = np.array([begin for begin in starts if start <= begin <= stop - length])
    best = int(begins[np.argmax(sums[begins + length - start] - sums[begins - start])])
    return best, best + length

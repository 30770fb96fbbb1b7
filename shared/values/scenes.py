"""Scenes built from shots, grouped by the probability that a scene ends with a shot.

Both scene models follow this rule, and whoever has their probabilities can apply it again with another threshold.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.values.results import Result
from shared.values.time import TimeRange


@dataclass(frozen=True, slots=True)
class Scene:
    """Shots `first` to `last` (inclusive).

    Args:
        first, last: numbers of the shots.
        range: from the start of the first shot to the end of the last.
        score: probability of the boundary that closes the scene; None where the end of the video does.
    """

    first: int
    last: int
    range: TimeRange
    score: float | None

    def to_result(self, seq: int) -> Result:
        """As a row."""
        return Result("scene", seq, self.range, self.score, {"shots": [self.first, self.last]})


def is_boundary(probability: float, threshold: float) -> bool:
    """Whether a scene ends here: strictly above, both as float32, as published (0.8 is no boundary at 0.8)."""
    score, bound = array("f", (probability, threshold))
    return score > bound


def group_shots(probabilities: Sequence[float], threshold: float) -> list[tuple[int, int]]:
    """First and last shot (inclusive) of each scene: a scene ends with a boundary shot, or with the video."""
    groups, first = [], 0
    for shot, probability in enumerate(probabilities):
        if is_boundary(probability, threshold) or shot == len(probabilities) - 1:
            groups.append((first, shot))
            first = shot + 1
    return groups


def build_boundaries(shots: Sequence[Result], probabilities: Iterable[float]) -> tuple[Result, ...]:
    """A row for each shot: its range, and as score the probability that a scene ends with it."""
    pairs = zip(shots, probabilities, strict=True)
    return tuple(Result("boundary", seq, shot.range, float(score)) for seq, (shot, score) in enumerate(pairs))


def build_scenes(boundaries: Sequence[Result], threshold: float) -> tuple[Result, ...]:
    """A row for each scene, out of the rows of `build_boundaries`. ValueError for a row without range or score."""
    ranges, scores = [], []
    for row in boundaries:
        if row.range is None or row.score is None:
            raise ValueError(f"boundary {row.seq} has no range or no score")
        ranges.append(row.range)
        scores.append(row.score)
    scene_values = []
    for first, last in group_shots(scores, threshold):
        closing = scores[last] if is_boundary(scores[last], threshold) else None
        scene_values.append(Scene(first, last, TimeRange(ranges[first].start, ranges[last].end), closing))
    return tuple(scene.to_result(seq) for seq, scene in enumerate(scene_values))

"""Scenes out of shots: grouped by the probability that a scene ends with a shot, and the forms in which they are given.

Both scene models follow this rule, and whoever has their probabilities can apply it again with another threshold.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shared.values.time import TimeRange, clock_time
from shared.values.work import Result


@dataclass(frozen=True, slots=True)
class Scene:
    """Shots `first` to `last` (inclusive).

    Args:
        first, last: numbers of the shots.
        range: from the start of the first shot to the end of the last.
        score: probability of the boundary that closes the scene; None where the end of the film does.
    """

    first: int
    last: int
    range: TimeRange
    score: float | None

    def result(self, seq: int) -> Result:
        """As a row."""
        return Result("scene", seq, self.range, self.score, {"shots": [self.first, self.last]})


@dataclass(frozen=True, slots=True)
class Stamp:
    """A shot as the published pipeline writes it.

    Args:
        first, last: numbers of its first and its last frame, the last one inclusive.
        since, until: `HH:MM:SS.mmm`.
    """

    first: str
    last: str
    since: str
    until: str

    @staticmethod
    def of(span: TimeRange) -> Stamp:
        """The shot lasts until its last frame is no longer shown; that frame's number is inclusive."""
        last = max(span.start.frame, span.end.frame - 1)
        return Stamp(str(span.start.frame), str(last), clock_time(span.start.seconds), clock_time(span.end.seconds))

    def to(self, last: Stamp) -> dict[str, list[str]]:
        """From this shot to that one."""
        return {"frame": [self.first, last.last], "timestamps": [self.since, last.until]}


def above(probability: float, threshold: float) -> bool:
    """Whether a scene ends here: strictly above, both as float32, as published (0.8 is no boundary at 0.8)."""
    score, bound = array("f", (probability, threshold))
    return score > bound


def grouped(probabilities: Sequence[float], threshold: float) -> list[tuple[int, int]]:
    """First and last shot (inclusive) of each scene: it ends with a shot `above` the threshold, or with the film."""
    found, first = [], 0
    for shot, probability in enumerate(probabilities):
        if above(probability, threshold) or shot == len(probabilities) - 1:
            found.append((first, shot))
            first = shot + 1
    return found


def boundaries(shots: Sequence[Result], probabilities: Iterable[float]) -> tuple[Result, ...]:
    """A row for each shot: its range, and as score the probability that a scene ends with it."""
    pairs = zip(shots, probabilities, strict=True)
    return tuple(Result("boundary", seq, shot.range, float(score)) for seq, (shot, score) in enumerate(pairs))


def scenes(bounds: Sequence[Result], threshold: float) -> tuple[Result, ...]:
    """A row for each scene, out of the rows of `boundaries`. ValueError for a row without range or score."""
    ranges, scores = [], []
    for row in bounds:
        if row.range is None or row.score is None:
            raise ValueError(f"boundary {row.seq} has no range or no score")
        ranges.append(row.range)
        scores.append(row.score)
    made = []
    for first, last in grouped(scores, threshold):
        closing = scores[last] if above(scores[last], threshold) else None
        made.append(Scene(first, last, TimeRange(ranges[first].start, ranges[last].end), closing))
    return tuple(scene.result(seq) for seq, scene in enumerate(made))


def modelscope(stamps: Sequence[Stamp], probabilities: Sequence[float], threshold: float) -> dict[str, Any]:
    """The answer of the published BaSSL pipeline on ModelScope: its keys, and every value but the counts a string.

    Shot numbers have four digits, more from shot 10,000 on; they stay in the order of the film there as well (the
    published pipeline sorts them as text).
    """
    groups = grouped(probabilities, threshold)
    return {
        "shot_num": len(stamps),
        "shot_meta_list": [stamp.to(stamp) for stamp in stamps],
        "scene_num": len(groups),
        "scene_meta_list": [
            {"shot": [f"{shot:04d}" for shot in range(first, last + 1)], **stamps[first].to(stamps[last])}
            for first, last in groups
        ],
    }

"""Highlights of a film in the form of the published CLIP-It pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from shared.values.time import Moment
from shared.values.work import Result


def modelscope(highlights: Iterable[Result], fps: Fraction) -> dict[str, Any]:
    """The answer of the published CLIP-It pipeline on ModelScope: stretches of frames, both ends inclusive.

    Its time stamps are those of a film of even rate: the number of the frame by the frames per second. Exact times are
    in the rows.

    Args:
        highlights: rows of that kind, in order.
        fps: of the film; where it has none (0), the time stamps are the exact times.

    Raises:
        ValueError: a row has no range, or an empty one.
    """
    return {"output": [_stretch(row, fps) for row in highlights]}


def _stretch(row: Result, fps: Fraction) -> dict[str, Any]:
    if row.range is None or not row.range.frames:
        raise ValueError(f"highlight {row.seq} has no range, or no frame in it")
    start, end = row.range.start, row.range.end
    last = end.frame - 1
    seconds = [frame / float(fps) for frame in (start.frame, last)] if fps else [_exact(start), _exact(end)]
    return {"frame": [start.frame, last], "timestamps": [stamp(each) for each in seconds]}


def stamp(seconds: float) -> str:
    """`HH:MM:SS.mmm` as published: the seconds are rounded last, so that they may be 60.000."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{int(hours):02d}:{int(minutes):02d}:{rest:06.3f}"


def _exact(moment: Moment) -> float:
    return float(moment.seconds)

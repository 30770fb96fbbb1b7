"""Which frames a clip is made of: the published sampling, over a video or over each of its shots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from worker.models.r2plus1d.config import SAMPLING, Sampling
from worker.video.windows import ClipSpec


def clip_starts(frames: int, clips: int, sampling: Sampling = SAMPLING) -> list[int]:
    """First frame of each clip: the middles of so many equal parts of what a start can be, rounded down.

    Args:
        frames: of the video or shot.
        clips: how many.
        sampling: of a clip; where it reaches over all frames or beyond, every clip starts at 0.
    """
    last_start = frames - sampling.frame_span
    if last_start <= 0:
        return [0] * clips
    return [int((first + last) / 2) for first, last in pairwise(np.linspace(0, last_start, clips + 1))]


def clip_frames(start: int, frames: int, sampling: Sampling = SAMPLING) -> tuple[int, ...]:
    """The frames of a clip; where there are no more, the very first stands, as published (and not the last)."""
    numbers = range(start, start + sampling.frame_span, sampling.stride)
    return tuple(number if number < frames else 0 for number in numbers)


def make_clips(spans: Sequence[tuple[int, int]], clips: int) -> tuple[ClipSpec, ...]:
    """The clips of each span of frames (end exclusive), counted from its first frame; equal ones stand there once.

    Clip k of span n has place `n * clips + k`. Short spans have one clip that answers for all their places.
    """
    result: list[ClipSpec] = []
    for number, (first, end) in enumerate(spans):
        offsets = clip_starts(end - first, clips)
        distinct_places = [place for place in range(clips) if place == 0 or offsets[place] != offsets[place - 1]]
        for place, stop in zip(distinct_places, [*distinct_places[1:], clips], strict=True):
            frames = tuple(first + frame for frame in clip_frames(offsets[place], end - first))
            result.append(ClipSpec(frames, number * clips + place, number * clips + stop))
    return tuple(result)

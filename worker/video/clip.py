"""decord for what it is exact and fast at: frames by number out of short clips (the published R(2+1)D uses it so)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from shared.values import Video
from worker.video.packets import PacketIndex

MOST_FRAMES = 1500
"""Longest clip: decord keeps what it has decoded (8 GB for one film read in sequence)."""

MOST_BYTES = 2**29
"""Largest clip as RGB, for the same reason."""

MOST_LATE = 1e-3
"""Seconds that its first frame may be off."""

BATCH = 16
"""Pictures asked for at a time."""


def pictures_of_clip(
    path: Path, video: Video, index: PacketIndex, indices: Sequence[int], threads: int
) -> Iterator[tuple[int, VideoFrame]] | str:
    """(index, RGB picture) for each of `indices`, or the reason why decord cannot be trusted with this file.

    decord is wrong about edit lists, transport streams, start times and open GOPs, and turns pictures by itself; so it
    serves only files where none of these is and whose frame count and every frame time agree with the packets (to half
    a frame, as it counts in float).
    """
    refused, times = _unfit(video, index), index.pts
    if refused:
        return refused
    import decord

    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=threads)
        seen = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except decord.DECORDError:
        return "decord cannot open it"
    if len(seen) != len(times):
        return f"decord counts {len(seen)} frames, the packets {len(times)}"
    ours = np.array([float((pts - times[0]) * video.clock.time_base) for pts in times])
    late = abs(seen[0] - float(video.start_time))
    if late > MOST_LATE or np.abs(seen - seen[0] - ours).max(initial=0) > _half_frame(video):
        return "decord gives the frames other times than the packets"
    return _fetched(reader, indices)


def _unfit(video: Video, index: PacketIndex) -> str | None:
    """Why a file is not even tried."""
    if video.container not in {"mov", "matroska"}:
        return f"decord is not exact in {video.container} files"
    if not (index.regular and index.closed):
        return "decord is not exact with open GOPs and made-up times"
    if video.rotation or video.bit_depth != 8 or video.truncated:
        return "decord is not exact with turned, deep or cut-off pictures"
    size = video.coded_width * video.coded_height * 3 * video.frames
    return "too long for decord's memory" if video.frames > MOST_FRAMES or size > MOST_BYTES else None


def _half_frame(video: Video) -> float:
    return float(1 / (2 * video.clock.fps)) if video.clock.fps else float(Fraction(1, 100))


def _fetched(reader: Any, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    for at in range(0, len(indices), BATCH):
        chosen = list(indices[at : at + BATCH])
        batch = reader.get_batch(chosen).asnumpy()
        for index, picture in zip(chosen, batch, strict=True):
            yield index, VideoFrame.from_ndarray(picture, format="rgb24")

"""The files of the room: features that answer another question about the same film, the summary film, the poster."""

from __future__ import annotations

import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import Internal, MediaCorrupt
from shared.values import Moment, OutputFile, Timeline, VideoFacts
from worker.models.clip_it.config import ARCHITECTURE, POSTER_SHORT_SIDE
from worker.models.clip_it.summary import SampledFrames, VideoSummary
from worker.models.contract import CachedFeatures, RunContext
from worker.video.keyframes.store import encode_jpeg
from worker.video.reader import Frame, VideoReader
from worker.video.render import concatenate_ranges
from worker.video.transform import View, apply_view

ARRAY_DTYPES = {"features": np.float32, "starts": np.int64, "pts": np.int64, "decode_failures": np.int64}
"""What `frame_features` holds; `pts` has the times of all frames, and at its end when the last is no longer shown."""


def save_features(sampled: SampledFrames, timeline: Timeline, decode_failures: int, folder: Path) -> OutputFile:
    """All that `restore_features` needs, as an NPZ; the same numbers make the same bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "features": sampled.features,
        "starts": np.array(sampled.starts, np.int64),
        "pts": np.array([timeline.moment_at(frame).pts for frame in range(len(timeline) + 1)], np.int64),
        "decode_failures": np.array(decode_failures, np.int64),
    }
    path = folder / "frame_features.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return OutputFile("frame_features", path.name, "application/octet-stream", path)


def restore_features(files: Mapping[str, Path], video: VideoFacts) -> CachedFeatures:
    """What a finished run kept of its film.

    Args:
        files: of that run, by kind.
        video: the film's facts.

    Raises:
        Internal: the file is not what `save_features` wrote.
    """
    arrays = _load_arrays(files["frame_features"])
    *pts, end_pts = arrays["pts"].tolist()
    sampled = SampledFrames(arrays["features"], tuple(arrays["starts"].tolist()), len(pts))
    timeline = Timeline(video.clock, array("q", pts), end_pts)
    return CachedFeatures(sampled.window_outputs, timeline, int(arrays["decode_failures"]))


def render_summary(summary: VideoSummary, context: RunContext) -> tuple[OutputFile, ...]:
    """The summary as a film with its sound, and a picture of its best sampled frame; nothing of a film without frames.

    Raises:
        MediaCorrupt, StorageFull, Internal: as `worker.video.render.cuts`.
    """
    if not summary.selection.spans:
        return ()
    spans = [context.timeline.time_range(*span) for span in summary.selection.spans]
    best = context.timeline.moment_at(summary.sampled.starts[int(np.argmax(summary.scores))])
    path, poster = context.scratch / "summary.mp4", context.scratch / "poster.jpg"
    with VideoReader(context.path, video=context.video) as reader:
        concatenate_ranges(reader, spans, path, on_progress=context.report_progress)
        poster_frame = apply_view(View.short_side(POSTER_SHORT_SIDE), read_frame_at(reader, best), context.video)
    poster.write_bytes(encode_jpeg(poster_frame))
    return (
        OutputFile("summary_video", path.name, "video/mp4", path),
        OutputFile("poster", poster.name, "image/jpeg", poster),
    )


def read_frame_at(reader: VideoReader, moment: Moment) -> Frame:
    """The frame that is shown at a moment of a film that was read before.

    It is gone to where the packets have that time. Where they do not, or what is found there is another frame (damage,
    times that jump), the film is read from its start, as it was then.

    Raises:
        MediaCorrupt: it cannot be decoded any more.
    """
    for frame in _seek_frame(reader, moment):
        if frame.pts == moment.pts:
            return frame
    for frame in reader.read_frames():
        if frame.pts == moment.pts:
            return frame
    raise MediaCorrupt(f"frame {moment.frame} cannot be decoded again")


def _seek_frame(reader: VideoReader, moment: Moment) -> Iterator[Frame]:
    """What is found by going to that time, if anything."""
    times = reader.packets.pts
    number = bisect_left(times, moment.pts)
    is_seekable = reader.packets.has_exact_pts and not reader.video.decode_failures and not reader.video.truncated
    if is_seekable and number < len(times) and times[number] == moment.pts:
        yield from reader.read_frames_at([number])


def _load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in ARRAY_DTYPES}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise Internal("The kept features of a film cannot be read.") from error
    types_match = all(arrays[name].dtype == dtype for name, dtype in ARRAY_DTYPES.items()) and arrays["pts"].size
    if not types_match or arrays["features"].shape != (len(arrays["starts"]), ARCHITECTURE.width):
        raise Internal("The kept features of a film do not belong together.")
    return arrays

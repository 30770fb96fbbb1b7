"""The files of `clip_it`: features that answer another query about the same video, the summary video, the poster."""

from __future__ import annotations

import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.catalog import ClipItParams
from shared.errors import Internal, MediaCorrupt
from shared.values import Moment, OutputFile, Result, Timeline, VideoFacts
from worker.models.clip_it.config import ARCHITECTURE, POSTER_SHORT_SIDE
from worker.models.clip_it.summary import Floats, SampledFrames
from worker.models.contract import ArrayOutput, CachedFeatures, ProgressCallback, RenderContext
from worker.video.keyframes.store import encode_jpeg
from worker.video.reader import Frame, VideoReader
from worker.video.render import concatenate_ranges
from worker.video.transform import View, apply_view

ARRAY_DTYPES = {"features": np.float32, "starts": np.int64, "pts": np.int64, "decode_failures": np.int64}
"""The arrays of `frame_features`; `pts` holds the time of every frame, and last the end of the last frame."""


def build_feature_arrays(sampled: SampledFrames, timeline: Timeline, decode_failures: int) -> ArrayOutput:
    """Build the NPZ that holds all that `restore_features` needs."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "features": sampled.features,
        "starts": np.array(sampled.starts, np.int64),
        "pts": np.array([timeline.moment_at(frame).pts for frame in range(len(timeline) + 1)], np.int64),
        "decode_failures": np.array(decode_failures, np.int64),
    }
    return ArrayOutput("frame_features", "frame_features.npz", arrays)


def restore_features(files: Mapping[str, Path], video: VideoFacts) -> CachedFeatures[Floats]:
    """Load the features that a finished run stored.

    Args:
        files: of that run, by kind.
        video: facts of the video.

    Raises:
        Internal: the file is not one of `build_feature_arrays`.
    """
    arrays = _load_arrays(files["frame_features"])
    *pts, end_pts = arrays["pts"].tolist()
    sampled = SampledFrames(arrays["features"], tuple(arrays["starts"].tolist()), len(pts))
    timeline = Timeline(video.clock, array("q", pts), end_pts)
    return CachedFeatures(sampled.window_outputs, timeline, int(arrays["decode_failures"]))


def render_summary(
    results: Sequence[Result], context: RenderContext, params: ClipItParams, report_progress: ProgressCallback
) -> tuple[OutputFile, ...]:
    """Render the highlights as a video with sound, and the best sampled frame as a poster.

    Nothing is rendered where the parameters do not ask for it, or for a video without frames.

    Args:
        results: rows of kind `highlight` and `frame_score`.
        context: the video, and the folder for the files.
        params: whether to render at all.
        report_progress: called with frames of the summary video.

    Raises:
        MediaCorrupt, StorageFull, Internal: as `worker.video.render.videos`.
    """
    spans = [row.range for row in results if row.kind == "highlight" and row.range]
    if not (params.summary_video and spans):
        return ()
    path, poster, video = context.scratch / "summary.mp4", context.scratch / "poster.jpg", context.run.video
    with VideoReader(context.path, video=video) as reader:
        concatenate_ranges(reader, spans, path, on_progress=report_progress)
        best_frame = read_frame_at(reader, find_best_moment(results))
        poster_frame = apply_view(View.short_side(POSTER_SHORT_SIDE), best_frame, video)
    poster.write_bytes(encode_jpeg(poster_frame))
    return (
        OutputFile("summary_video", path.name, "video/mp4", path),
        OutputFile("poster", poster.name, "image/jpeg", poster),
    )


def find_best_moment(results: Sequence[Result]) -> Moment:
    """Find the time of the sampled frame with the highest score, the first of equals."""
    rows = [row for row in results if row.kind == "frame_score"]
    best = max(rows, key=lambda row: row.score or 0.0)  # max keeps the first of equals, as argmax does
    if best.range is None:
        raise Internal("A frame score has no range.")
    return best.range.start


def read_frame_at(reader: VideoReader, moment: Moment) -> Frame:
    """Read the frame that is shown at a moment of a video that was read before.

    The reader seeks to the packet with that time. Where there is none, or another frame is decoded there (damage, times
    that jump), the video is read again from its start, as it was for the features.

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
    """Seek to that time; yields nothing where seeking is not exact."""
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
        raise Internal("The stored features of a video cannot be read.") from error
    types_match = all(arrays[name].dtype == dtype for name, dtype in ARRAY_DTYPES.items()) and arrays["pts"].size
    if not types_match or arrays["features"].shape != (len(arrays["starts"]), ARCHITECTURE.width):
        raise Internal("The stored features of a video do not belong together.")
    return arrays

"""Render the files of a run: the lines of its tracks, the overlay video, the masks as PNG images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from shared.catalog import MttrParams
from shared.values import OutputFile, Result
from shared.values.tracks import JSON_LINES_MEDIA_TYPE
from worker.models.contract import ProgressCallback, RenderContext
from worker.models.mttr.tracks.masks_zip import write_masks_zip
from worker.models.mttr.tracks.overlay import overlay_frames
from worker.models.mttr.tracks.writer import read_track_frames, write_timed_tracks
from worker.video.prefetch import make_view_fn, view_frames
from worker.video.reader import VideoReader
from worker.video.render import write_video
from worker.video.transform import ImageArray, View

T = TypeVar("T")

PROGRESS_INTERVAL = 16
"""Frames between two reports of progress."""


def render_tracks(
    _results: Sequence[Result], context: RenderContext, params: MttrParams, report_progress: ProgressCallback
) -> tuple[OutputFile, ...]:
    """Write the tracks always, the overlay video and the masks where requested; nothing for a video without frames.

    Args:
        context: with the lines of the writer in its scratch folder.
        params: for the queries and the requested files.
        report_progress: called with frames, counted once for the overlay and once for the masks.
    """
    frames = context.run.stop_frame - context.run.first_frame
    if not frames:
        return ()
    lines = write_timed_tracks(context.scratch, context.run.timeline, context.scratch / "tracks.jsonl")
    output_files = [OutputFile("tracks", lines.name, JSON_LINES_MEDIA_TYPE, lines)]
    total = frames * (params.overlay + params.masks)
    if params.overlay:
        overlay = context.scratch / "overlay.mp4"
        render_overlay(context, params, lines, overlay, lambda done: report_progress(done, total))
        output_files.append(OutputFile("overlay_video", overlay.name, "video/mp4", overlay))
    if params.masks:
        offset = total - frames
        track_frames = with_progress(
            read_track_frames(lines), lambda done: report_progress(offset + done, total), len(params.queries)
        )
        masks_zip = write_masks_zip(track_frames, context.scratch / "masks.zip")
        output_files.append(OutputFile("masks", masks_zip.name, "application/zip", masks_zip))
    return tuple(output_files)


def render_overlay(
    context: RenderContext, params: MttrParams, lines: Path, target: Path, report_frames: Callable[[int], None]
) -> Path:
    """Decode the frames once more and draw the masks over them; sound and times are those of the video.

    Args:
        context: the video, and which part of it was read.
        params: for the queries.
        lines: the file of the tracks.
        target: the file to write.
        report_frames: called with the number of frames done.
    """
    run = context.run

    def iter_frames(reader: VideoReader) -> Iterator[ImageArray]:
        # No end for a whole video: damaged frames have no number there, and counting them would cut the last ones off.
        frames = reader.read_frames(run.first_frame, None if run.is_whole_video else run.stop_frame)
        # The same view as for the network, so that gaps are filled alike and every mask meets its own frame.
        pixels = view_frames(frames, run.video, make_view_fn(View.full_size(), None), first_frame=run.first_frame)
        shown = (image for image in islice(pixels, run.stop_frame - run.first_frame) if image is not None)
        return with_progress(shown, report_frames)

    with VideoReader(context.path, video=run.video) as reader:
        return write_video(
            overlay_frames(iter_frames(reader), read_track_frames(lines), params.queries),
            target,
            run.video.clock.fps,
            times=run.timeline,
            first_frame=run.first_frame,
            audio=(reader, run.timeline.time_range(run.first_frame, run.stop_frame)),
        )


def with_progress(items: Iterable[T], report_frames: Callable[[int], None], items_per_frame: int = 1) -> Iterator[T]:
    """Yield the items unchanged, and report every `PROGRESS_INTERVAL` frames how many frames are done."""
    for number, item in enumerate(items):
        if number % (PROGRESS_INTERVAL * items_per_frame) == 0:
            report_frames(number // items_per_frame)
        yield item

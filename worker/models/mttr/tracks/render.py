"""The files of a run: the lines of its tracks, the overlay film, the masks as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from shared.catalog import MttrParams
from shared.values import OutputFile
from shared.values.tracks import JSON_LINES_MEDIA_TYPE
from worker.models.contract import RunContext
from worker.models.mttr.tracks.masks_zip import write_masks_zip
from worker.models.mttr.tracks.overlay import overlay_frames
from worker.models.mttr.tracks.writer import read_track_frames, write_timed_tracks
from worker.video.prefetch import make_view_fn, view_frames
from worker.video.reader import VideoReader
from worker.video.render import write_video as make_film
from worker.video.transform import ImageArray, View

T = TypeVar("T")

PROGRESS_INTERVAL = 16
"""Frames after which it is told how far the work is."""


def render_tracks(context: RunContext, params: MttrParams) -> tuple[OutputFile, ...]:
    """What a run leaves: the lines always, the film and the pictures where they were asked for.

    Args:
        context: of which at least one frame was read, with what the writer wrote in its scratch folder.
        params: of the run.
    """
    lines = write_timed_tracks(context.scratch, context.timeline, context.scratch / "tracks.jsonl")
    output_files = [OutputFile("tracks", lines.name, JSON_LINES_MEDIA_TYPE, lines)]
    frames, total = (
        context.stop_frame - context.first_frame,
        (context.stop_frame - context.first_frame) * (params.overlay + params.masks),
    )
    if params.overlay:
        overlay = context.scratch / "overlay.mp4"
        render_overlay(context, params, lines, overlay, lambda done: context.report_progress(done, total))
        output_files.append(OutputFile("overlay_video", overlay.name, "video/mp4", overlay))
    if params.masks:
        offset = total - frames
        track_frames = with_progress(
            read_track_frames(lines), lambda done: context.report_progress(offset + done, total), len(params.queries)
        )
        masks_zip = write_masks_zip(track_frames, context.scratch / "masks.zip")
        output_files.append(OutputFile("masks", masks_zip.name, "application/zip", masks_zip))
    return tuple(output_files)


def render_overlay(
    context: RunContext, params: MttrParams, lines: Path, target: Path, report_frames: Callable[[int], None]
) -> Path:
    """The frames that were read, once more, with the masks of their lines; the sound and the times of the film.

    Args:
        context: the film and which part of it.
        params: for the queries.
        lines: the file of the tracks.
        target: the file to write.
        report_frames: takes how many frames are done.
    """

    def iter_frames(reader: VideoReader) -> Iterator[ImageArray]:
        frames = reader.read_frames(context.first_frame, None if context.is_whole_video else context.stop_frame)
        # As they were looked at: gaps are filled alike.
        pixels = view_frames(
            frames, context.video, make_view_fn(View.full_size(), None), first_frame=context.first_frame
        )
        return with_progress(
            (
                frame_pixels
                for frame_pixels in islice(pixels, context.stop_frame - context.first_frame)
                if frame_pixels is not None
            ),
            report_frames,
        )

    with VideoReader(context.path, video=context.video) as reader:
        return make_film(
            overlay_frames(iter_frames(reader), read_track_frames(lines), params.queries),
            target,
            context.video.clock.fps,
            times=context.timeline,
            first_frame=context.first_frame,
            audio=(reader, context.timeline.time_range(context.first_frame, context.stop_frame)),
        )


def with_progress(items: Iterable[T], report_frames: Callable[[int], None], items_per_frame: int = 1) -> Iterator[T]:
    """The same items, of which there are so many a frame; every so often it is told how many frames are through."""
    for number, item in enumerate(items):
        if number % (PROGRESS_INTERVAL * items_per_frame) == 0:
            report_frames(number // items_per_frame)
        yield item

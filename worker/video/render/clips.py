"""Cut clips with ffmpeg, through ffmpeg-python and the binary that comes with imageio-ffmpeg."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from shared.errors import Internal, MediaCorrupt, StorageFull
from shared.values import TimeRange
from worker.video.reader import VideoReader

EARLY_CUT_S = Fraction(1, 10_000)
"""Seconds by which a cut lies before its frame: ffmpeg reads microseconds, and rounding must not lose a frame."""

SEEK_MARGIN_S = Fraction(1, 2)
"""Seconds before a key packet to seek to: ffmpeg seeks transport streams by bisection, which may end at any packet."""

WEB_OPTIONS = {"vcodec": "libx264", "pix_fmt": "yuv420p", "preset": "veryfast", "crf": 20, "movflags": "+faststart"}
"""Options for MP4 files that play everywhere: H.264 4:2:0, index at the front."""

CLIP_OPTIONS = {**WEB_OPTIONS, "acodec": "aac", "map_metadata": -1, "map_chapters": -1, "enc_time_base": "demux"}
"""Options for clips: with sound, and in the time base of the source, so that irregular times stay exact."""

ANY_PATH = re.compile(r"(?:file:)?/[^\s:'\"]+")
"""Matches anything in a message that looks like a path."""


def cut_clip(reader: VideoReader, span: TimeRange, out: Path) -> Path:
    """Cut frames `span.start` (inclusive) to `span.end` (exclusive) out of a video, with its sound, into an MP4.

    The frames are encoded anew from the key packet before the range on, so the cut is exact at any frame.

    Raises:
        ValueError: an empty range. MediaCorrupt: the video cannot be read. StorageFull: no space for the file.
        Internal: ffmpeg failed otherwise.
    """
    if not span.frames:
        raise ValueError("a clip needs at least one frame")
    output_stream = (
        _cut_by_time(reader, span, out) if reader.packets.has_exact_pts else _cut_by_frame_number(reader, span, out)
    )
    _run_ffmpeg(output_stream, reader.path, out)  # a process of its own: a crash of ffmpeg must not end the worker
    return out


def _ffmpeg_input(reader: VideoReader, **options: str) -> Any:
    """Build ffmpeg's input: only as the container that was probed, and without access to other files."""
    return ffmpeg.input(f"file:{reader.path}", format=reader.video.container, protocol_whitelist="file", **options)


def _cut_by_time(reader: VideoReader, span: TimeRange, out: Path) -> Any:
    """Seek to before the key packet that the range needs, decode, and drop the frames before the range."""
    offset = reader.video.start_time - reader.video.container_start_time
    start = offset + span.start.seconds
    key = reader.packets.key_pts_before(span.start.pts)
    key_seconds = Fraction(0) if key is None else (key - reader.clock.start_pts) * reader.clock.time_base
    seek_seconds = max(Fraction(0), key_seconds + offset - SEEK_MARGIN_S)
    source_stream = _ffmpeg_input(reader, ss=_format_seconds(seek_seconds))
    cut_options = {
        "ss": _format_seconds(max(Fraction(0), start - seek_seconds - EARLY_CUT_S)),
        "t": _format_seconds(span.seconds),
    }
    return ffmpeg.output(source_stream["V:0"], source_stream["a:0?"], str(out), **CLIP_OPTIONS, **cut_options)


def _cut_by_frame_number(reader: VideoReader, span: TimeRange, out: Path) -> Any:
    """Read from the start and count frames: for streams without times, or with times that jump."""
    source_stream = _ffmpeg_input(reader)
    video_stream = source_stream["V:0"].filter("trim", start_frame=span.start.frame, end_frame=span.end.frame)
    streams = [video_stream.filter("setpts", "PTS-STARTPTS")]
    if reader.video.audio:
        start, end = _format_seconds(span.start.seconds), _format_seconds(span.end.seconds)
        streams.append(source_stream["a:0"].filter("atrim", start=start, end=end).filter("asetpts", "PTS-STARTPTS"))
    return ffmpeg.output(*streams, str(out), **CLIP_OPTIONS)


def _build_command(output_stream: Any) -> Any:
    return output_stream.global_args("-hide_banner", "-loglevel", "error").overwrite_output()


def _run_ffmpeg(output_stream: Any, source: Path, out: Path) -> None:
    try:
        _build_command(output_stream).run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        out.unlink(missing_ok=True)
        raise _translate_failure(error.stderr, source, out) from error


def _translate_failure(stderr: bytes, *paths: Path) -> Internal | StorageFull | MediaCorrupt:
    """Translate ffmpeg's error output to one of our errors, without the paths in it."""
    lines = stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    if any("No space left" in line for line in lines):
        return StorageFull("no space left for the video")
    if any("Invalid data found when processing input" in line for line in lines):
        return MediaCorrupt("the video cannot be read")
    last = lines[-1]  # ffmpeg prints consequences last, and the last one names the step that failed
    for path in paths:
        last = last.replace(str(path), path.suffix or "file")
    return Internal(f"ffmpeg: {ANY_PATH.sub('file', last)}")


def _format_seconds(time: Fraction) -> str:
    """Format seconds for ffmpeg, to the microsecond."""
    return f"{float(time):.6f}"

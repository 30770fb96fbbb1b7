"""Clips cut with ffmpeg, through ffmpeg-python and the binary that imageio-ffmpeg carries."""

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
"""Seconds before a key packet to which ffmpeg is sent: transport streams are sought by bisection, to any packet."""

WEB_OPTIONS = {"vcodec": "libx264", "pix_fmt": "yuv420p", "preset": "veryfast", "crf": 20, "movflags": "+faststart"}
"""Plays everywhere: H.264 4:2:0, its index in front."""

CLIP_OPTIONS = {**WEB_OPTIONS, "acodec": "aac", "map_metadata": -1, "map_chapters": -1, "enc_time_base": "demux"}
"""The same with sound, in the time base of the source, so that uneven times stay exact."""

ANY_PATH = re.compile(r"(?:file:)?/[^\s:'\"]+")
"""What looks like a path in a message."""


def cut_clip(reader: VideoReader, span: TimeRange, out: Path) -> Path:
    """Cut frames `span.start` (inclusive) to `span.end` (exclusive) out of a film, with its sound, into an MP4.

    The pictures are encoded anew from the key packet before the range on, so the cut is exact wherever it lies.

    Raises:
        ValueError: an empty range. MediaCorrupt: the film cannot be read. StorageFull: no room for the file.
        Internal: ffmpeg failed otherwise.
    """
    if not span.frames:
        raise ValueError("a clip needs at least one frame")
    output_stream = (
        _cut_by_time(reader, span, out) if reader.packets.has_exact_pts else _cut_by_frame_number(reader, span, out)
    )
    _run_ffmpeg(output_stream, reader.path, out)
    return out


def _ffmpeg_input(reader: VideoReader, **options: str) -> Any:
    """The film as ffmpeg's input: as the container that it is known to be, and nothing that it may point to."""
    return ffmpeg.input(f"file:{reader.path}", format=reader.video.container, protocol_whitelist="file", **options)


def _cut_by_time(reader: VideoReader, span: TimeRange, out: Path) -> Any:
    """Go to before the key packet that the range needs, decode, drop what comes before the range."""
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
    """Read from the start and count: for streams without times, or whose times jump."""
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
    """The last line that ffmpeg said, as an error of ours, without the paths in it."""
    lines = stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    if any("No space left" in line for line in lines):
        return StorageFull("no room left for the film")
    if any("Invalid data found when processing input" in line for line in lines):
        return MediaCorrupt("the film cannot be read")
    last = lines[-1]
    for path in paths:
        last = last.replace(str(path), path.suffix or "file")
    return Internal(f"ffmpeg: {ANY_PATH.sub('file', last)}")


def _format_seconds(time: Fraction) -> str:
    """Seconds as ffmpeg reads them, to the microsecond."""
    return f"{float(time):.6f}"

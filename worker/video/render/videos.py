"""Write videos: ranges of a video one after the other, and videos of computed images."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from av.video.frame import VideoFrame

from shared.errors import MediaCorrupt
from shared.values import Clock, Timeline, TimeRange, VideoFacts
from worker.video.reader import Frame, VideoReader
from worker.video.render.audio import AudioTrack
from worker.video.render.mp4 import Mp4Writer, OutputFormat, Samples
from worker.video.transform import ImageArray

ROTATION_FILTERS = {0: "", 90: "transpose=cclock,", 180: "hflip,vflip,", 270: "transpose=clock,"}
"""FFmpeg filters that rotate a frame counter-clockwise, by degrees."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A frame, when it is shown and for how long, in ticks; whether players must be able to start there."""

    av_frame: VideoFrame
    start_ticks: int
    duration_ticks: int
    is_keyframe: bool


def concatenate_ranges(
    reader: VideoReader, spans: Sequence[TimeRange], out: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the given ranges of a video one after the other, with their sound, as an MP4.

    Exact to the frame, with the frame times of the source. The sound is cut at the same times, to the sample, each
    range by itself, so that nothing drifts. Only what the ranges need is decoded; memory does not grow with their
    number.

    Args:
        reader: the video.
        spans: in order, none empty, none overlapping.
        out: the file.
        on_progress: called after each frame with (frames done, frames in all). It may raise, to cancel.

    Raises:
        ValueError: no range, or an empty, overlapping or unordered one.
        MediaCorrupt: a frame of the ranges cannot be decoded. StorageFull: no space. Internal: FFmpeg failed otherwise.
    """
    if not spans or any(not span.frames for span in spans):
        raise ValueError("a video needs at least one range, and each range a frame")
    if any(after.start.frame < before.end.frame for before, after in pairwise(spans)):
        raise ValueError("the ranges of a video must follow each other without overlapping")
    video = reader.video.with_decode_failures(max(reader.decode_failures, reader.video.decode_failures))
    with VideoReader(reader.path, video=video) as source:  # a second reader: a pass would reset `reader.timeline`
        audio = _open_audio(source)
        with Mp4Writer(out, _copy_format(video, audio)) as writer:
            timed_frames = (
                _time_frames(source, spans)
                if on_progress is None
                else _with_progress(_time_frames(source, spans), spans, on_progress)
            )
            _write_streams(writer, timed_frames, chain.from_iterable(_read_audio_spans(audio, spans)))
    return out


def write_video(
    images: Iterable[ImageArray],
    out: Path,
    fps: Fraction,
    *,
    times: Timeline | None = None,
    first_frame: int = 0,
    audio: tuple[VideoReader, TimeRange] | None = None,
) -> Path:
    """Write an MP4 of RGB images (H x W x 3, uint8, all of one size) at `fps` frames per second.

    For odd sizes the last row or column is repeated, because 4:2:0 needs even sizes. Memory holds one image.

    Args:
        images: in order.
        out: the file.
        fps: frames per second; with `times` the nominal rate only.
        times: frame times of the video that the images belong to: image k is shown when frame `first_frame` + k is.
        first_frame: number of the frame that the first image belongs to.
        audio: a video and the range of it whose sound is added, if it has any.

    Raises:
        ValueError: no image, images of several sizes, or more than `times` has frames. Otherwise as `Mp4Writer`.
    """
    image_stream = iter(images)
    first_image = next(image_stream, None)
    if first_image is None:
        raise ValueError("a video needs at least one image")
    height, width = first_image.shape[:2]
    matrix = "scale=out_color_matrix=bt709:out_range=tv,"
    tags = ",setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    audio_track = _open_audio(audio[0]) if audio else None
    time_base = _choose_time_base(times.clock) if times else 1 / fps
    form = OutputFormat(time_base, fps, matrix + _even_size_filter(width, height) + tags, *_audio_format(audio_track))
    with Mp4Writer(out, form) as writer:
        timed_frames = _time_images(chain([first_image], image_stream), first_image.shape, times, first_frame)
        _write_streams(
            writer, timed_frames, chain.from_iterable(_read_audio_spans(audio_track, [audio[1]] if audio else []))
        )
    return out


def _copy_format(video: VideoFacts, audio: AudioTrack | None) -> OutputFormat:
    """Output format for ranges of a video: rotated upright, with the pixel aspect ratio of the source."""
    sideways = video.rotation % 180 == 90
    width, height = (video.coded_width, video.coded_height)[:: -1 if sideways else 1]
    ratio = 1 / video.sample_aspect_ratio if sideways else video.sample_aspect_ratio
    filters = ROTATION_FILTERS[video.rotation] + "scale=out_range=tv," + _even_size_filter(width, height)
    return OutputFormat(
        _choose_time_base(video.clock), video.clock.fps, filters, *_audio_format(audio), pixel_ratio=ratio
    )


def _choose_time_base(clock: Clock) -> Fraction:
    """Seconds per tick: as in the source, unless its evenly spaced frames are rounded to ticks; then one frame.

    Matroska counts milliseconds: at 24 frames per second its frames are 41 or 42 apart. Joined from many ranges such
    frames would look like a variable rate.
    """
    rounded = clock.fps and not clock.vfr and (1 / (clock.fps * clock.time_base)).denominator > 1
    return 1 / clock.fps if rounded else clock.time_base


def _to_ticks(clock: Clock, start: int, end: int) -> int:
    """Time from one pts to another, in ticks of the output."""
    return round((end - start) * clock.time_base / _choose_time_base(clock))


def _span_pts(span: TimeRange) -> tuple[Clock, int, int]:
    return span.start.clock, span.start.pts, span.end.pts


def _even_size_filter(width: int, height: int) -> str:
    """Filter to 4:2:0 that repeats the last column or row where a size is odd."""
    if not (width % 2 or height % 2):
        return "format=yuv420p"
    edge = f"pad=ceil(iw/2)*2:ceil(ih/2)*2,fillborders=right={width % 2}:bottom={height % 2}"
    return f"format=yuv444p,{edge},scale,format=yuv420p"


def _open_audio(reader: VideoReader) -> AudioTrack | None:
    """Open the sound of a video, if it has any."""
    return (
        AudioTrack(reader.path, reader.video, has_exact_pts=reader.packets.has_exact_pts)
        if reader.video.audio
        else None
    )


def _audio_format(audio: AudioTrack | None) -> tuple[int, str]:
    """Rate and layout of the sound; (0, ...) for none."""
    return (audio.rate, audio.layout) if audio else (0, "stereo")


def _write_streams(writer: Mp4Writer, timed_frames: Iterable[TimedFrame], audio_samples: Iterator[Samples]) -> None:
    """Write frames and sound alternately, so that the muxer buffers little.

    The last frame is forced to be a keyframe: so it is the last packet in the file too, and its duration is kept.
    """
    for timed_frame, following in _with_next(timed_frames):
        writer.write_frame(
            timed_frame.av_frame,
            timed_frame.start_ticks,
            timed_frame.duration_ticks,
            is_keyframe=timed_frame.is_keyframe or following is None,
        )
        while writer.audio_seconds < writer.video_seconds and (samples := next(audio_samples, None)) is not None:
            writer.write_audio(samples)
    for samples in audio_samples:
        writer.write_audio(samples)


def _with_progress(
    timed_frames: Iterator[TimedFrame], spans: Sequence[TimeRange], on_progress: Callable[[int, int], None]
) -> Iterator[TimedFrame]:
    """Yield the frames unchanged and report progress after each."""
    frames = sum(span.frames for span in spans)
    for done, timed_frame in enumerate(timed_frames, 1):
        yield timed_frame
        on_progress(done, frames)


def _with_next(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Yield each item with the one after it; the last with None."""
    ended: Iterable[T | None] = chain(items, [None])
    return ((cast(T, item), following) for item, following in pairwise(ended))


def _read_audio_spans(audio: AudioTrack | None, spans: Sequence[TimeRange]) -> Iterator[Iterator[Samples]]:
    """Yield the sound of each range. Each start is rounded to a sample by itself, so that errors do not add up."""
    if audio is None:
        return
    ends = [
        round(end * audio.rate)
        for end in accumulate(_to_ticks(*_span_pts(span)) * _choose_time_base(span.start.clock) for span in spans)
    ]
    for span, (start, end) in zip(spans, pairwise([0, *ends]), strict=True):
        yield audio.read_samples(span.start.seconds, end - start)


def _time_images(
    images: Iterator[ImageArray], shape: tuple[int, ...], times: Timeline | None, first_frame: int
) -> Iterator[TimedFrame]:
    """Yield images as frames with their times."""
    for number, image in enumerate(images):
        if image.shape != shape or image.dtype != np.uint8:
            raise ValueError(f"image of {image.shape} {image.dtype} in a video of {shape} uint8")
        start_ticks, duration_ticks = number, 1
        if times is not None:
            if first_frame + number >= len(times):
                raise ValueError(f"more images than the {len(times) - first_frame} frames whose times they take")
            first_pts, start_pts, end_pts = (
                times.moment_at(frame).pts for frame in (first_frame, first_frame + number, first_frame + number + 1)
            )
            start_ticks = _to_ticks(times.clock, first_pts, start_pts)
            duration_ticks = _to_ticks(times.clock, first_pts, end_pts) - start_ticks
        yield TimedFrame(
            VideoFrame.from_ndarray(np.ascontiguousarray(image)), start_ticks, duration_ticks, is_keyframe=False
        )


def _time_frames(source: VideoReader, spans: Sequence[TimeRange]) -> Iterator[TimedFrame]:
    """Yield the frames of the ranges, each range starting where the one before ends. MediaCorrupt if one is missing."""
    start_ticks = [0, *accumulate(_to_ticks(*_span_pts(span)) for span in spans)]
    frame_counts = [0] * len(spans)
    seekable = _is_seekable(source, spans)
    groups = _group_spans(source, spans) if seekable else [range(len(spans))]
    span_frames = chain.from_iterable(_read_spans(source, spans, group, seekable=seekable) for group in groups)
    for (number, frame), following in _with_next(span_frames):
        clock, start, end = _span_pts(spans[number])
        offset = _to_ticks(clock, start, frame.pts)
        until = _to_ticks(clock, start, following[1].pts if following and following[0] == number else end)
        yield TimedFrame(
            frame.av_frame, start_ticks[number] + offset, until - offset, is_keyframe=not frame_counts[number]
        )
        frame_counts[number] += 1
    if frame_counts != [span.frames for span in spans]:
        raise MediaCorrupt(f"{sum(frame_counts)} of the {sum(span.frames for span in spans)} frames can be decoded")


def _group_spans(source: VideoReader, spans: Sequence[TimeRange]) -> list[range]:
    """Group the ranges that are read in one pass: those without a key packet between them."""
    # Seeking to the second of two such ranges would land before the first one and decode its frames again.
    begins = [0]
    for number, (before, after) in enumerate(pairwise(spans), start=1):
        key = source.packets.key_pts_before(after.start.pts)
        if key is not None and key > before.end.pts:
            begins.append(number)
    return [range(*pair) for pair in pairwise([*begins, len(spans)])]


def _is_seekable(source: VideoReader, spans: Sequence[TimeRange]) -> bool:
    """Whether the frames can be reached by seeking: the packets have them all, with the same numbers and times.

    Otherwise (damage, times that jump, H.264 in AVI) the video is read from its start: only then is the result the
    same each time.
    """
    packets, video = source.packets, source.video
    if not packets.has_exact_pts or video.decode_failures or video.truncated:
        return False
    ends = [(moment.frame, moment.pts) for span in spans for moment in (span.start, span.end)]
    return all(at == len(packets.pts) or packets.pts[at : at + 1] == array("q", [pts]) for at, pts in ends)


def _read_spans(
    source: VideoReader, spans: Sequence[TimeRange], group: range, *, seekable: bool
) -> Iterator[tuple[int, Frame]]:
    """Yield (number of its range, frame) for the frames of these ranges."""
    times, span_number = source.packets.pts, group.start
    first, stop = (bisect_left(times, moment.pts) for moment in (spans[span_number].start, spans[group[-1]].end))
    for frame in source.read_frames(first, stop) if seekable else source.read_frames():
        while frame.pts >= spans[span_number].end.pts:
            span_number += 1
            if span_number == group.stop:
                return
        if frame.pts >= spans[span_number].start.pts:
            yield span_number, frame

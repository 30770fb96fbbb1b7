"""Films made anew: stretches of a film one after the other, and films of our own pictures."""

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
"""How a picture is turned counter-clockwise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A picture, when it is shown and for how long, in ticks; whether a player is to be able to begin there."""

    av_frame: VideoFrame
    start_ticks: int
    duration_ticks: int
    is_keyframe: bool


def concatenate_ranges(
    reader: VideoReader, spans: Sequence[TimeRange], out: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """The given ranges of a film one after the other, with their sound, as an MP4.

    Exact to the frame, each at its time in the source. The sound is cut at the same times, to the sample, each range
    by itself, so that nothing drifts. Only what the ranges need is decoded; memory is flat in their number.

    Args:
        reader: the film.
        spans: in order, none empty, none overlapping.
        out: the file.
        on_progress: called after each frame with how many of how many are done. It may raise, to give up.

    Raises:
        ValueError: no range, or an empty, overlapping or unordered one.
        MediaCorrupt: a frame of the ranges cannot be decoded. StorageFull: no room. Internal: FFmpeg failed otherwise.
    """
    if not spans or any(not span.frames for span in spans):
        raise ValueError("a film needs at least one range, and each range a frame")
    if any(after.start.frame < before.end.frame for before, after in pairwise(spans)):
        raise ValueError("the ranges of a film must follow each other without overlapping")
    video = reader.video.with_decode_failures(max(reader.decode_failures, reader.video.decode_failures))
    with VideoReader(reader.path, video=video) as source:  # one of its own: `reader.timeline` stays as it is
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
    """Make an MP4 of RGB pictures (H x W x 3, uint8, all of one size) at `fps` frames per second.

    Odd sizes get one more row or column of the edge, as 4:2:0 needs even ones. Memory holds one picture.

    Args:
        images: in order.
        out: the file.
        fps: frames per second; with `times` the nominal rate only.
        times: of a film whose frames the pictures stand for: picture k is shown when frame `first_frame` + k is.
        first_frame: number of the frame that the first picture stands for.
        audio: a film and the range whose sound is heard; none where that film has none.

    Raises:
        ValueError: no picture, one of another size, or more pictures than `times` has.
        StorageFull: no room. Internal: FFmpeg failed otherwise.
    """
    image_stream = iter(images)
    first_image = next(image_stream, None)
    if first_image is None:
        raise ValueError("a film needs at least one picture")
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
    """What stretches of a film are written as: turned upright, their pixels as wide as they were."""
    sideways = video.rotation % 180 == 90
    width, height = (video.coded_width, video.coded_height)[:: -1 if sideways else 1]
    ratio = 1 / video.sample_aspect_ratio if sideways else video.sample_aspect_ratio
    filters = ROTATION_FILTERS[video.rotation] + "scale=out_range=tv," + _even_size_filter(width, height)
    return OutputFormat(
        _choose_time_base(video.clock), video.clock.fps, filters, *_audio_format(audio), pixel_ratio=ratio
    )


def _choose_time_base(clock: Clock) -> Fraction:
    """Seconds per tick: those of the source, but where evenly spaced frames had to be rounded to them.

    Matroska counts milliseconds: at 24 frames per second its frames are 41 or 42 apart. A film of frames from many
    places would seem to be of uneven rate; so it counts frames.
    """
    rounded = clock.fps and not clock.vfr and (1 / (clock.fps * clock.time_base)).denominator > 1
    return 1 / clock.fps if rounded else clock.time_base


def _to_ticks(clock: Clock, start: int, end: int) -> int:
    """How long it is from one pts to another, in ticks of the film that is made."""
    return round((end - start) * clock.time_base / _choose_time_base(clock))


def _span_pts(span: TimeRange) -> tuple[Clock, int, int]:
    return span.start.clock, span.start.pts, span.end.pts


def _even_size_filter(width: int, height: int) -> str:
    """To 4:2:0, with one more column or row of the edge where a size is odd."""
    if not (width % 2 or height % 2):
        return "format=yuv420p"
    edge = f"pad=ceil(iw/2)*2:ceil(ih/2)*2,fillborders=right={width % 2}:bottom={height % 2}"
    return f"format=yuv444p,{edge},scale,format=yuv420p"


def _open_audio(reader: VideoReader) -> AudioTrack | None:
    """The sound of a film, where it has any."""
    return (
        AudioTrack(reader.path, reader.video, has_exact_pts=reader.packets.has_exact_pts)
        if reader.video.audio
        else None
    )


def _audio_format(audio: AudioTrack | None) -> tuple[int, str]:
    """Rate and layout of the sound; (0, ...) for none."""
    return (audio.rate, audio.layout) if audio else (0, "stereo")


def _write_streams(writer: Mp4Writer, timed_frames: Iterable[TimedFrame], audio_samples: Iterator[Samples]) -> None:
    """Pictures and sound side by side, so that little has to wait for the other.

    The last picture is a key picture: so it is the last in the file too, where its length is kept.
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
    """The same, and how far it is."""
    frames = sum(span.frames for span in spans)
    for done, timed_frame in enumerate(timed_frames, 1):
        yield timed_frame
        on_progress(done, frames)


def _with_next(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each with the one after it; the last with None."""
    ended: Iterable[T | None] = chain(items, [None])
    return ((cast(T, item), following) for item, following in pairwise(ended))


def _read_audio_spans(audio: AudioTrack | None, spans: Sequence[TimeRange]) -> Iterator[Iterator[Samples]]:
    """The sound of each range. Where each begins is rounded to a sample by itself: no error adds up."""
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
    """Pictures of our own, with their times."""
    for number, image in enumerate(images):
        if image.shape != shape or image.dtype != np.uint8:
            raise ValueError(f"picture of {image.shape} {image.dtype} in a film of {shape} uint8")
        start_ticks, duration_ticks = number, 1
        if times is not None:
            if first_frame + number >= len(times):
                raise ValueError(f"more pictures than the {len(times) - first_frame} frames whose times they take")
            first_pts, start_pts, end_pts = (
                times.moment_at(frame).pts for frame in (first_frame, first_frame + number, first_frame + number + 1)
            )
            start_ticks = _to_ticks(times.clock, first_pts, start_pts)
            duration_ticks = _to_ticks(times.clock, first_pts, end_pts) - start_ticks
        yield TimedFrame(
            VideoFrame.from_ndarray(np.ascontiguousarray(image)), start_ticks, duration_ticks, is_keyframe=False
        )


def _time_frames(source: VideoReader, spans: Sequence[TimeRange]) -> Iterator[TimedFrame]:
    """The frames of the ranges, each range beginning where the one before ends. MediaCorrupt where one is missing."""
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
    """Which ranges are read in one pass: those between which there is no point to go to."""
    begins = [0]
    for number, (before, after) in enumerate(pairwise(spans), start=1):
        key = source.packets.key_pts_before(after.start.pts)
        if key is not None and key > before.end.pts:
            begins.append(number)
    return [range(*pair) for pair in pairwise([*begins, len(spans)])]


def _is_seekable(source: VideoReader, spans: Sequence[TimeRange]) -> bool:
    """Whether the frames can be gone to: the packets have them all, under the same numbers and times.

    Where not (damage, times that jump, H.264 in AVI) the film is read from its start: only so is it the same each time.
    """
    packets, video = source.packets, source.video
    if not packets.has_exact_pts or video.decode_failures or video.truncated:
        return False
    ends = [(moment.frame, moment.pts) for span in spans for moment in (span.start, span.end)]
    return all(at == len(packets.pts) or packets.pts[at : at + 1] == array("q", [pts]) for at, pts in ends)


def _read_spans(
    source: VideoReader, spans: Sequence[TimeRange], group: range, *, seekable: bool
) -> Iterator[tuple[int, Frame]]:
    """(number of its range, frame) for the frames of these ranges."""
    times, span_number = source.packets.pts, group.start
    first, stop = (bisect_left(times, moment.pts) for moment in (spans[span_number].start, spans[group[-1]].end))
    for frame in source.read_frames(first, stop) if seekable else source.read_frames():
        while frame.pts >= spans[span_number].end.pts:
            span_number += 1
            if span_number == group.stop:
                return
        if frame.pts >= spans[span_number].start.pts:
            yield span_number, frame

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
from shared.values import Clock, Timeline, TimeRange, Video
from worker.video.reader import Frame, Reader
from worker.video.render.mp4 import Form, Mp4, Samples
from worker.video.render.sound import Sound
from worker.video.transform import Picture

TURNS = {0: "", 90: "transpose=cclock,", 180: "hflip,vflip,", 270: "transpose=clock,"}
"""How a picture is turned counter-clockwise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture, when it is shown and for how long, in ticks; whether a player is to be able to begin there."""

    picture: VideoFrame
    at: int
    lasting: int
    key: bool


def cuts(
    reader: Reader, spans: Sequence[TimeRange], out: Path, *, told: Callable[[int, int], None] | None = None
) -> Path:
    """The given ranges of a film one after the other, with their sound, as an MP4.

    Exact to the frame, each at its time in the source. The sound is cut at the same times, to the sample, each range
    by itself, so that nothing drifts. Only what the ranges need is decoded; memory is flat in their number.

    Args:
        reader: the film.
        spans: in order, none empty, none overlapping.
        out: the file.
        told: called after each frame with how many of how many are done. It may raise, to give up.

    Raises:
        ValueError: no range, or an empty, overlapping or unordered one.
        MediaCorrupt: a frame of the ranges cannot be decoded. StorageFull: no room. Internal: FFmpeg failed otherwise.
    """
    if not spans or any(not span.frames for span in spans):
        raise ValueError("a film needs at least one range, and each range a frame")
    if any(after.start.frame < before.end.frame for before, after in pairwise(spans)):
        raise ValueError("the ranges of a film must follow each other without overlapping")
    video = reader.video.with_failures(max(reader.decode_failures, reader.video.decode_failures))
    with Reader(reader.path, video=video) as source:  # one of its own: `reader.timeline` stays as it is
        sound = _sound(source)
        with Mp4(out, _copied(video, sound)) as made:
            shown = _shown(source, spans) if told is None else _telling(_shown(source, spans), spans, told)
            _write(made, shown, chain.from_iterable(_heard(sound, spans)))
    return out


def film(
    pictures: Iterable[Picture],
    out: Path,
    fps: Fraction,
    *,
    times: Timeline | None = None,
    first: int = 0,
    sound: tuple[Reader, TimeRange] | None = None,
) -> Path:
    """Make an MP4 of RGB pictures (H x W x 3, uint8, all of one size) at `fps` frames per second.

    Odd sizes get one more row or column of the edge, as 4:2:0 needs even ones. Memory holds one picture.

    Args:
        pictures: in order.
        out: the file.
        fps: frames per second; with `times` the nominal rate only.
        times: of a film whose frames the pictures stand for: picture k is shown when frame `first` + k is.
        first: number of the frame that the first picture stands for.
        sound: a film and the range whose sound is heard; none where that film has none.

    Raises:
        ValueError: no picture, one of another size, or more pictures than `times` has.
        StorageFull: no room. Internal: FFmpeg failed otherwise.
    """
    coming = iter(pictures)
    begin = next(coming, None)
    if begin is None:
        raise ValueError("a film needs at least one picture")
    high, wide = begin.shape[:2]
    matrix = "scale=out_color_matrix=bt709:out_range=tv,"
    tags = ",setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    heard = _sound(sound[0]) if sound else None
    base = _base(times.clock) if times else 1 / fps
    form = Form(base, fps, matrix + _even(wide, high) + tags, *_of(heard))
    with Mp4(out, form) as made:
        shown = _drawn(chain([begin], coming), begin.shape, times, first)
        _write(made, shown, chain.from_iterable(_heard(heard, [sound[1]] if sound else [])))
    return out


def _copied(video: Video, sound: Sound | None) -> Form:
    """What stretches of a film are written as: turned upright, their pixels as wide as they were."""
    sideways = video.rotation % 180 == 90
    wide, high = (video.coded_width, video.coded_height)[:: -1 if sideways else 1]
    ratio = 1 / video.sample_aspect_ratio if sideways else video.sample_aspect_ratio
    filters = TURNS[video.rotation] + "scale=out_range=tv," + _even(wide, high)
    return Form(_base(video.clock), video.clock.fps, filters, *_of(sound), pixel_ratio=ratio)


def _base(clock: Clock) -> Fraction:
    """Seconds per tick: those of the source, but where evenly spaced frames had to be rounded to them.

    Matroska counts milliseconds: at 24 frames per second its frames are 41 or 42 apart. A film of frames from many
    places would seem to be of uneven rate; so it counts frames.
    """
    rounded = clock.fps and not clock.vfr and (1 / (clock.fps * clock.time_base)).denominator > 1
    return 1 / clock.fps if rounded else clock.time_base


def _ticks(clock: Clock, start: int, end: int) -> int:
    """How long it is from one pts to another, in ticks of the film that is made."""
    return round((end - start) * clock.time_base / _base(clock))


def _ends(span: TimeRange) -> tuple[Clock, int, int]:
    return span.start.clock, span.start.pts, span.end.pts


def _even(wide: int, high: int) -> str:
    """To 4:2:0, with one more column or row of the edge where a size is odd."""
    if not (wide % 2 or high % 2):
        return "format=yuv420p"
    edge = f"pad=ceil(iw/2)*2:ceil(ih/2)*2,fillborders=right={wide % 2}:bottom={high % 2}"
    return f"format=yuv444p,{edge},scale,format=yuv420p"


def _sound(reader: Reader) -> Sound | None:
    """The sound of a film, where it has any."""
    return Sound(reader.path, reader.video, regular=reader.packets.regular) if reader.video.audio else None


def _of(sound: Sound | None) -> tuple[int, str]:
    """Rate and layout of the sound; (0, ...) for none."""
    return (sound.rate, sound.layout) if sound else (0, "stereo")


def _write(made: Mp4, shown: Iterable[Shown], heard: Iterator[Samples]) -> None:
    """Pictures and sound side by side, so that little has to wait for the other.

    The last picture is a key picture: so it is the last in the file too, where its length is kept.
    """
    for one, following in _followed(shown):
        made.show(one.picture, one.at, one.lasting, key=one.key or following is None)
        while made.seconds_heard < made.seconds_shown and (samples := next(heard, None)) is not None:
            made.hear(samples)
    for samples in heard:
        made.hear(samples)


def _telling(shown: Iterator[Shown], spans: Sequence[TimeRange], told: Callable[[int, int], None]) -> Iterator[Shown]:
    """The same, and how far it is."""
    frames = sum(span.frames for span in spans)
    for done, one in enumerate(shown, 1):
        yield one
        told(done, frames)


def _followed(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each with the one after it; the last with None."""
    ended: Iterable[T | None] = chain(items, [None])
    return ((cast(T, item), following) for item, following in pairwise(ended))


def _heard(sound: Sound | None, spans: Sequence[TimeRange]) -> Iterator[Iterator[Samples]]:
    """The sound of each range. Where each begins is rounded to a sample by itself: no error adds up."""
    if sound is None:
        return
    ends = [
        round(end * sound.rate) for end in accumulate(_ticks(*_ends(span)) * _base(span.start.clock) for span in spans)
    ]
    for span, (begun, end) in zip(spans, pairwise([0, *ends]), strict=True):
        yield sound.between(span.start.seconds, end - begun)


def _drawn(pictures: Iterator[Picture], shape: tuple[int, ...], times: Timeline | None, first: int) -> Iterator[Shown]:
    """Pictures of our own, with their times."""
    for number, picture in enumerate(pictures):
        if picture.shape != shape or picture.dtype != np.uint8:
            raise ValueError(f"picture of {picture.shape} {picture.dtype} in a film of {shape} uint8")
        at, lasting = number, 1
        if times is not None:
            if first + number >= len(times):
                raise ValueError(f"more pictures than the {len(times) - first} frames whose times they take")
            begun, shown, ends = (times.at(frame).pts for frame in (first, first + number, first + number + 1))
            at = _ticks(times.clock, begun, shown)
            lasting = _ticks(times.clock, begun, ends) - at
        yield Shown(VideoFrame.from_ndarray(np.ascontiguousarray(picture)), at, lasting, key=False)


def _shown(source: Reader, spans: Sequence[TimeRange]) -> Iterator[Shown]:
    """The frames of the ranges, each range beginning where the one before ends. MediaCorrupt where one is missing."""
    begun = [0, *accumulate(_ticks(*_ends(span)) for span in spans)]
    count = [0] * len(spans)
    sought = _seekable(source, spans)
    groups = _together(source, spans) if sought else [range(len(spans))]
    chosen = chain.from_iterable(_inside(source, spans, group, sought=sought) for group in groups)
    for (number, frame), following in _followed(chosen):
        clock, start, end = _ends(spans[number])
        at = _ticks(clock, start, frame.pts)
        until = _ticks(clock, start, following[1].pts if following and following[0] == number else end)
        yield Shown(frame.picture, begun[number] + at, until - at, key=not count[number])
        count[number] += 1
    if count != [span.frames for span in spans]:
        raise MediaCorrupt(f"{sum(count)} of the {sum(span.frames for span in spans)} frames can be decoded")


def _together(source: Reader, spans: Sequence[TimeRange]) -> list[range]:
    """Which ranges are read in one pass: those between which there is no point to go to."""
    begins = [0]
    for number, (before, after) in enumerate(pairwise(spans), start=1):
        key = source.packets.key_before(after.start.pts)
        if key is not None and key > before.end.pts:
            begins.append(number)
    return [range(*pair) for pair in pairwise([*begins, len(spans)])]


def _seekable(source: Reader, spans: Sequence[TimeRange]) -> bool:
    """Whether the frames can be gone to: the packets have them all, under the same numbers and times.

    Where not (damage, times that jump, H.264 in AVI) the film is read from its start: only so is it the same each time.
    """
    packets, video = source.packets, source.video
    if not packets.regular or video.decode_failures or video.truncated:
        return False
    ends = [(moment.frame, moment.pts) for span in spans for moment in (span.start, span.end)]
    return all(at == len(packets.pts) or packets.pts[at : at + 1] == array("q", [pts]) for at, pts in ends)


def _inside(source: Reader, spans: Sequence[TimeRange], group: range, *, sought: bool) -> Iterator[tuple[int, Frame]]:
    """(number of its range, frame) for the frames of these ranges."""
    times, at = source.packets.pts, group.start
    first, stop = (bisect_left(times, moment.pts) for moment in (spans[at].start, spans[group[-1]].end))
    for frame in source.frames(first, stop) if sought else source.frames():
        while frame.pts >= spans[at].end.pts:
            at += 1
            if at == group.stop:
                return
        if frame.pts >= spans[at].start.pts:
            yield at, frame

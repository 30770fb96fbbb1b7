"""Facts of a video file, found by reading all of its packets and decoding its first picture.

`python -m worker.video.probe FILE [--allow-damaged]` prints one JSON line: `{"video": {...}}` and exit status 0, or
`{"problem": {...}}` and 1. Whoever takes files from strangers runs it as a process of its own.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left
from fractions import Fraction
from pathlib import Path

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream as SoundStream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from shared.errors import MediaCorrupt, SceneworksError
from shared.values import AudioStream, Clock, Video
from worker.video.stream.packets import PacketIndex, decoded, frame_rate, read_packets, scan
from worker.video.stream.source import main_stream, open_media

TRANSFERS = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316",
    11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
    17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
"""Names of transfer characteristics by their code point (ITU-T H.273, table 3), as FFmpeg spells them."""

WIDEST = Fraction(8)
"""Widest pixel believed (anamorphic film has 2)."""

INTERLACED = {2, 3, 4, 5}
"""FFmpeg's field orders (`AVFieldOrder`) with two fields a frame."""


def probe(path: Path, *, allow_damaged: bool = False) -> Video:
    """The facts of a file.

    Args:
        path: the file; its name plays no part.
        allow_damaged: take a file whose index speaks of more than is there, as far as it goes (`truncated` is set).

    Raises:
        UnsupportedMedia: empty, not a film, a playlist, or a codec without a decoder.
        NoVideoStream: sound or cover art only.
        MediaCorrupt: no picture can be decoded, or the file is cut off and `allow_damaged` is not set.
    """
    with open_media(path) as container:
        stream = main_stream(container)
        truncated = _cut_off(stream, path.stat().st_size)
        if truncated and not allow_damaged:
            raise MediaCorrupt("the file is cut off: its index speaks of data beyond its end")
        picture = _first_picture(container, stream)
    with open_media(path) as container:
        stream = main_stream(container)
        index = scan(container, stream)
        return _facts(container, stream, picture, index, truncated)


def _cut_off(stream: VideoStream, size: int) -> bool:
    """Whether the sample table of an MP4 points beyond the end of the file."""
    if not stream.container.format.name.startswith("mov"):
        return False
    return any(entry.pos + entry.size > size for entry in stream.index_entries)


def _first_picture(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """The first picture that can be decoded. MediaCorrupt when there is none."""
    for packet in read_packets(container, stream, []):
        pictures = decoded(stream, packet, [])
        if pictures:
            return pictures[0]
    last = decoded(stream, None, [])
    if not last:
        raise MediaCorrupt("no picture of the video can be decoded")
    return last[0]


def _facts(
    container: InputContainer, stream: VideoStream, picture: VideoFrame, index: PacketIndex, truncated: bool
) -> Video:
    """All facts in one value."""
    clock, undecodable = _clock(stream, index, picture)
    ratio = _pixel_shape(stream.sample_aspect_ratio)
    rotation = round(picture.rotation / 90) * 90 % 360
    width, height = shown_size(picture.width, picture.height, ratio, rotation)
    start = clock.start_pts * clock.time_base
    opened: int | None = container.start_time  # None in raw streams, whatever the types say
    return Video(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=picture.format.name,
        bit_depth=max(part.bits for part in picture.format.components),
        coded_width=picture.width,
        coded_height=picture.height,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect_ratio=ratio,
        clock=clock,
        start_time=start,
        container_start_time=start if opened is None else Fraction(opened, av.time_base),
        duration=(index.end_pts - clock.start_pts) * clock.time_base,
        frames=len(index.pts) - undecodable,
        transfer=TRANSFERS.get(int(picture.color_trc)),
        interlaced=bool(picture.interlaced_frame) or stream.codec_context.field_order in INTERLACED,
        audio=tuple(sound for track in container.streams.audio if (sound := _sound(track))),
        truncated=truncated,
    )


def _clock(stream: VideoStream, index: PacketIndex, picture: VideoFrame) -> tuple[Clock, int]:
    """The time axis, from the first picture that can be decoded, and how many frames before it cannot.

    A recording that starts in the middle of a group of pictures has such frames: frame 0 is the first that is seen.
    """
    if not index.pts or stream.time_base is None:
        raise MediaCorrupt("no frame of the video has a place in time")
    claims = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    fps, varies = frame_rate(index.pts, stream.time_base, claims)
    seen = -1 if picture.pts is None else bisect_left(index.pts, picture.pts)
    first = seen if 0 <= seen < len(index.pts) and index.pts[seen] == picture.pts else 0
    return Clock(time_base=stream.time_base, fps=fps, start_pts=index.pts[first], vfr=varies), first


def _pixel_shape(ratio: Fraction | None) -> Fraction:
    """Width of a stored pixel over its height; what cannot be meant counts as square: pictures need a bound."""
    return ratio if ratio and 1 / WIDEST <= ratio <= WIDEST else Fraction(1)


def shown_size(width: int, height: int, ratio: Fraction, rotation: int) -> tuple[int, int]:
    """(width, height) as a player shows it: pixels made square by enlarging, never shrinking, then turned."""
    wide = max(1, round(width * ratio)) if ratio > 1 else width
    high = max(1, round(height / ratio)) if ratio < 1 else height
    return (high, wide) if rotation % 180 else (wide, high)


def _sound(track: SoundStream) -> AudioStream | None:
    """Facts of a sound track; None without a decoder for it."""
    context: AudioCodecContext | None = track.codec_context
    if context is None:
        return None
    return AudioStream(context.codec.canonical_name, context.channels, context.sample_rate, track.language)


def main(arguments: list[str]) -> int:
    """The command: exit status 0 with the facts, 1 with the problem."""
    damaged = "--allow-damaged" in arguments
    (path,) = [Path(argument) for argument in arguments if argument != "--allow-damaged"]
    try:
        print(json.dumps({"video": probe(path, allow_damaged=damaged).record()}))
        return 0
    except SceneworksError as error:
        print(json.dumps({"problem": error.problem()}))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Determine the facts of a video file by reading all of its packets and decoding its first frame.

`python -m worker.video.probe FILE [--allow-damaged]` prints one JSON line: `{"video": {...}}` with exit status 0, or
`{"problem": {...}}` with 1. Untrusted files are probed this way, in a process of its own.
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
from shared.values import AudioStream, Clock, VideoFacts
from worker.video.stream.container import open_container, select_video_stream
from worker.video.stream.packets import PacketIndex, decode_packet, estimate_frame_rate, index_packets, read_packets

TRANSFER_NAMES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316",
    11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
    17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
"""Names of transfer characteristics by their code point (ITU-T H.273, table 3), as FFmpeg spells them."""

MAX_PIXEL_ASPECT = Fraction(8)
"""Largest believable pixel aspect ratio (anamorphic video has 2)."""

INTERLACED_FIELD_ORDERS = {2, 3, 4, 5}
"""FFmpeg's field orders (`AVFieldOrder`) with two fields a frame."""


def probe_video(path: Path, *, allow_damaged: bool = False) -> VideoFacts:
    """Determine the facts of a file.

    Args:
        path: the file; its name is not used.
        allow_damaged: accept a file whose index lists more data than is there (`truncated` is set).

    Raises:
        UnsupportedMedia: empty, not a video, a playlist, or a codec without a decoder.
        NoVideoStream: sound or cover art only.
        MediaCorrupt: no frame can be decoded, or the file is cut off and `allow_damaged` is not set.
    """
    # The container is opened twice: a first decoded frame leaves the demuxer in the middle of the file, and not every
    # container can seek back to its start.
    with open_container(path) as container:
        stream = select_video_stream(container)
        truncated = _is_truncated(stream, path.stat().st_size)
        if truncated and not allow_damaged:
            raise MediaCorrupt("the file is cut off: its index speaks of data beyond its end")
        first_frame = _decode_first_frame(container, stream)
    with open_container(path) as container:
        stream = select_video_stream(container)
        index = index_packets(container, stream)
        return _build_video(container, stream, first_frame, index, truncated)


def _is_truncated(stream: VideoStream, size: int) -> bool:
    """Whether the sample table of an MP4 points beyond the end of the file."""
    if not stream.container.format.name.startswith("mov"):
        return False
    return any(entry.pos + entry.size > size for entry in stream.index_entries)


def _decode_first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Decode the first frame that can be decoded. MediaCorrupt when there is none."""
    for packet in read_packets(container, stream, []):
        frames = decode_packet(stream, packet, [])
        if frames:
            return frames[0]
    flushed = decode_packet(stream, None, [])
    if not flushed:
        raise MediaCorrupt("no frame of the video can be decoded")
    return flushed[0]


def _build_video(
    container: InputContainer, stream: VideoStream, first_frame: VideoFrame, index: PacketIndex, truncated: bool
) -> VideoFacts:
    """Collect all facts in one value."""
    clock, undecodable = _build_clock(stream, index, first_frame)
    ratio = _plausible_pixel_aspect(stream.sample_aspect_ratio)
    rotation = round(first_frame.rotation / 90) * 90 % 360
    width, height = display_size(first_frame.width, first_frame.height, ratio, rotation)
    start = clock.start_pts * clock.time_base
    container_start: int | None = container.start_time  # None in raw streams, whatever the types say
    return VideoFacts(
        container=container.format.name.split(",")[0],
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first_frame.format.name,
        bit_depth=max(component.bits for component in first_frame.format.components),
        coded_width=first_frame.width,
        coded_height=first_frame.height,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect_ratio=ratio,
        clock=clock,
        start_time=start,
        container_start_time=start if container_start is None else Fraction(container_start, av.time_base),
        duration=(index.end_pts - clock.start_pts) * clock.time_base,
        frames=len(index.pts) - undecodable,
        transfer=TRANSFER_NAMES.get(int(first_frame.color_trc)),
        interlaced=bool(first_frame.interlaced_frame) or stream.codec_context.field_order in INTERLACED_FIELD_ORDERS,
        audio=tuple(audio_stream for track in container.streams.audio if (audio_stream := _build_audio_stream(track))),
        truncated=truncated,
    )


def _build_clock(stream: VideoStream, index: PacketIndex, first_frame: VideoFrame) -> tuple[Clock, int]:
    """Return the time axis from the first decodable frame on, and the number of frames before it.

    A recording that starts in the middle of a group of pictures begins with frames that cannot be decoded: frame 0 is
    the first that is shown.
    """
    if not index.pts or stream.time_base is None:
        raise MediaCorrupt("no frame of the video has a place in time")
    claims = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    fps, varies = estimate_frame_rate(index.pts, stream.time_base, claims)
    position = -1 if first_frame.pts is None else bisect_left(index.pts, first_frame.pts)
    first = position if 0 <= position < len(index.pts) and index.pts[position] == first_frame.pts else 0
    return Clock(time_base=stream.time_base, fps=fps, start_pts=index.pts[first], vfr=varies), first


def _plausible_pixel_aspect(ratio: Fraction | None) -> Fraction:
    """Width of a stored pixel over its height; an absurd ratio counts as square, so that frame sizes stay bounded."""
    return ratio if ratio and 1 / MAX_PIXEL_ASPECT <= ratio <= MAX_PIXEL_ASPECT else Fraction(1)


def display_size(width: int, height: int, ratio: Fraction, rotation: int) -> tuple[int, int]:
    """(width, height) as a player shows it: pixels made square by enlarging, never by shrinking, then rotated."""
    display_width = max(1, round(width * ratio)) if ratio > 1 else width
    display_height = max(1, round(height / ratio)) if ratio < 1 else height
    return (display_height, display_width) if rotation % 180 else (display_width, display_height)


def _build_audio_stream(track: SoundStream) -> AudioStream | None:
    """Return the facts of a sound track; None without a decoder for it."""
    context: AudioCodecContext | None = track.codec_context
    if context is None:
        return None
    return AudioStream(context.codec.canonical_name, context.channels, context.sample_rate, track.language)


def main(arguments: list[str]) -> int:
    """Run the command: exit status 0 with the facts, 1 with the problem."""
    allow_damaged = "--allow-damaged" in arguments
    (path,) = [Path(argument) for argument in arguments if argument != "--allow-damaged"]
    try:
        print(json.dumps({"video": probe_video(path, allow_damaged=allow_damaged).to_dict()}))
        return 0
    except SceneworksError as error:
        print(json.dumps({"problem": error.to_problem()}))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

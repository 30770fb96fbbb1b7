"""Render one small frame of a video as a JPEG, without numpy: the API image has PyAV only.

`python -m worker.video.thumbnail FILE` reads one JSON line `{"video": {...}, "pts": 0, "width": 320}` and
writes the JPEG to standard output with exit status 0, or `{"problem": {...}}` with 1. Thumbnails of untrusted videos
are rendered this way, in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from shared.errors import MediaCorrupt, SceneworksError
from shared.values import Clock, VideoFacts
from worker.video.stream.container import open_container, select_video_stream
from worker.video.stream.packets import JUMP_SECONDS, RAW_FORMATS, decode_packet, read_packets

SEEK_BACK_STEPS_S = (0, JUMP_SECONDS)
"""How many seconds before the wanted time to seek to; after these attempts the video is read from its start."""
JPEG_QUALITY = 4
"""Quality of the JPEG on FFmpeg's scale from 2 (best) to 31."""
QUALITY_TO_LAMBDA = 118
"""FF_QP2LAMBDA: what FFmpeg multiplies a quality by."""
TRANSPOSE_DIRECTIONS = {90: ["cclock"], 180: ["clock", "clock"], 270: ["clock"]}
"""Degrees counter-clockwise -> directions of the filter `transpose`, ffmpeg-filters(1)."""
HDR_TRANSFERS = {int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)}
"""Transfer characteristics of high dynamic range: PQ (SMPTE ST 2084) and HLG (ARIB STD-B67)."""


def render_thumbnail(path: Path, video: VideoFacts, pts: int, width: int) -> bytes:
    """Render the frame that a player shows at a time: rotated, with square pixels.

    Args:
        path: the video.
        video: its facts.
        pts: the time, in ticks of the clock; times outside the video give its first or last frame.
        width: of the JPEG in pixels; a narrower video is not enlarged.

    Returns:
        A JPEG (4:2:0).

    Raises:
        MediaCorrupt: nothing can be decoded there. UnsupportedMedia, NoVideoStream: as for any video.
    """
    return _encode_jpeg(_rotate_frame(_scale_frame(_find_frame(path, video, pts), video, width), video.rotation))


def _find_frame(path: Path, video: VideoFacts, pts: int) -> VideoFrame:
    tick = video.clock.time_base
    seek_points = [] if video.container in RAW_FORMATS else [pts - int(back / tick) for back in SEEK_BACK_STEPS_S]
    timed_frame = None
    for seek_point in [*seek_points, None]:
        timed_frame = _decode_frame_at(path, video.clock, seek_point, pts)
        if timed_frame is not None and timed_frame[0] <= pts:
            break
    if timed_frame is None:
        raise MediaCorrupt("no frame can be decoded there")
    return timed_frame[1]  # the first frame of the video, if even that is later than `pts`


def _decode_frame_at(path: Path, clock: Clock, seek_point: int | None, pts: int) -> tuple[int, VideoFrame] | None:
    """Decode from a position: the last frame at or before `pts`, or the first one if all are later."""
    with open_container(path) as container:
        stream = select_video_stream(container)
        stream.codec_context.thread_type = "AUTO"
        if seek_point is not None:
            try:
                container.seek(seek_point, stream=stream)
            except av.error.FFmpegError:
                return None  # no index to seek by
        last = None
        for timed_frame in _iter_timed_frames(container, stream, clock):
            if last is not None and timed_frame[0] > pts:
                break
            last = timed_frame
            if timed_frame[0] >= pts:
                break
        return last


def _iter_timed_frames(
    container: InputContainer, stream: VideoStream, clock: Clock
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (pts, frame). Streams without a container have no times: they are counted, as `VideoDecoder` does."""
    step = round(1 / (clock.fps * clock.time_base)) if clock.fps else 1
    counted = container.format.name in RAW_FORMATS
    following = clock.start_pts
    for frame in _iter_frames(container, stream):
        pts = following if counted or frame.pts is None else frame.pts
        yield pts, frame
        following = pts + (frame.duration or step)


def _iter_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in read_packets(container, stream, []):
        yield from decode_packet(stream, packet, [])
    yield from decode_packet(stream, None, [])


def _scale_frame(frame: VideoFrame, video: VideoFacts, width: int) -> VideoFrame:
    """Scale to that width, before rotation; high dynamic range is tone mapped to BT.709 by libswscale."""
    scale = min(1.0, width / video.width)
    size = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    wide, high = size[::-1] if video.rotation % 180 else size
    if int(frame.color_trc) not in HDR_TRANSFERS:
        return VideoReformatter().reformat(
            frame, wide, high, "yuv420p", dst_color_range=ColorRange.JPEG, interpolation=Interpolation.AREA
        )
    deep = VideoReformatter().reformat(frame, wide, high, "yuv444p16le", interpolation=Interpolation.AREA)
    mapped = VideoReformatter().reformat(
        deep, format="rgb24", dst_colorspace=Colorspace.ITU709, dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
    )  # fmt: skip
    return VideoReformatter().reformat(mapped, format="yuv420p", dst_color_range=ColorRange.JPEG)


def _rotate_frame(frame: VideoFrame, rotation: int) -> VideoFrame:
    """Rotate counter-clockwise by a multiple of 90 degrees."""
    if rotation not in TRANSPOSE_DIRECTIONS:
        return frame
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    for direction in TRANSPOSE_DIRECTIONS[rotation]:
        turn = graph.add("transpose", direction)
        last.link_to(turn)
        last = turn
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    turned = graph.pull()
    if not isinstance(turned, VideoFrame):
        raise TypeError(f"a rotated frame is a {type(turned).__name__}")
    return turned


def _encode_jpeg(frame: VideoFrame) -> bytes:
    encoder = CodecContext.create("mjpeg", "w")
    if not isinstance(encoder, VideoCodecContext):
        raise TypeError(f"the JPEG encoder is a {type(encoder).__name__}")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
    encoder.color_range = ColorRange.JPEG
    encoder.options = {"flags": "+qscale", "global_quality": str(JPEG_QUALITY * QUALITY_TO_LAMBDA)}
    encoder.time_base, frame.pts = Fraction(1, 25), 0  # the encoder requires a time, but a JPEG has none
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def main(arguments: list[str]) -> int:
    """Run the command: exit status 0 with the JPEG, 1 with the problem."""
    request = json.loads(sys.stdin.readline())
    try:
        jpeg = render_thumbnail(
            Path(arguments[0]), VideoFacts.from_dict(request["video"]), request["pts"], request["width"]
        )
    except SceneworksError as error:
        sys.stdout.write(json.dumps({"problem": error.to_problem()}))
        return 1
    sys.stdout.buffer.write(jpeg)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

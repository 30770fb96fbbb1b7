"""Decode a video: `VideoDecoder` yields every frame with its time; damage is skipped and counted.

decord is used where it is exact and fast: frames by number from short clips (as the published R(2+1)D does).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from av.codec.context import Flags2
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from shared.values import VideoFacts
from worker.video.stream.container import open_container, select_video_stream
from worker.video.stream.packets import JUMP_SECONDS, RAW_FORMATS, PacketIndex, decode_packet, read_packets

TAIL_PACKETS = 64
"""Number of last packets whose times are remembered, to check that the end of the video is complete: more than any
decoder holds back."""

DECORD_MAX_FRAMES = 1500
"""Longest clip in frames: decord keeps what it has decoded (8 GB for one video read in sequence)."""

DECORD_MAX_BYTES = 2**29
"""Largest clip as RGB in bytes, for the same reason."""

DECORD_MAX_OFFSET_S = 1e-3
"""Tolerance for the time of decord's first frame, in seconds."""

DECORD_BATCH = 16
"""Frames that are fetched at a time."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """Size and format of all frames of a video: streams that change them on the way are converted.

    Args:
        width, height: pixels, as at the start of the video.
        pixel_format: FFmpeg's name.
        step: ticks from one frame to the next if the stream does not say.
        start_pts: time of the first frame if the stream has no times.
    """

    width: int
    height: int
    pixel_format: str
    step: int
    start_pts: int


class VideoDecoder:
    """Opens a video and decodes it; a context manager.

    Args:
        path: the video.
        frame_format: size and format of all frames.
        threads: threads of the decoder; 0 for one a core.
        motion: export motion vectors as side data of the frames, if the codec has any.

    Attributes:
        failed_pts: pts of each packet that could not be decoded (with several threads, of the packet sent then).
        has_exact_pts: whether all times are those in the file (False once one was computed or moved).
    """

    def __init__(self, path: Path, frame_format: FrameFormat, threads: int = 0, *, motion: bool = False) -> None:
        self._path, self._frame_format, self._motion = path, frame_format, motion
        self._stack = ExitStack()
        self._container = self._stack.enter_context(open_container(path))
        self._stream = select_video_stream(self._container)
        # With frame threads FFmpeg exports the vectors of a frame that another thread has not finished.
        self._stream.codec_context.thread_type = "SLICE" if motion else "AUTO"
        self._stream.codec_context.thread_count = threads
        if motion:
            self._stream.codec_context.flags2 |= Flags2.export_mvs
        self._reformatter = VideoReformatter()
        self._jump_ticks = int(JUMP_SECONDS / self._stream.time_base) if self._stream.time_base else 0
        self._last_pts: int | None = None
        self._last_raw_pts: int | None = None
        self._pts_shift = 0
        self.failed_pts: list[int | None] = []
        self.has_exact_pts = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def seek(self, pts: int) -> None:
        """Seek to the last point at or before `pts` where decoding can start. It may be missed: check the times."""
        self._container.seek(pts, stream=self._stream)

    def decode_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (pts, frame) from here to the end, the pts strictly increasing."""
        sent_pts: deque[int] = deque(maxlen=TAIL_PACKETS)
        for av_frame in self._decode_raw(sent_pts):
            yield self._assign_pts(av_frame)
        # A packet later than the last frame means that frames are missing at the end: see `_decode_tail`.
        if (
            self.has_exact_pts
            and self._last_raw_pts is not None
            and max(sent_pts, default=self._last_raw_pts) > self._last_raw_pts
        ):
            for av_frame in self._decode_tail(self._last_raw_pts):
                yield self._assign_pts(av_frame)

    def _decode_raw(self, sent_pts: deque[int]) -> Iterator[VideoFrame]:
        for packet in read_packets(self._container, self._stream, self.failed_pts):
            if packet.pts is not None and not packet.is_discard:
                sent_pts.append(packet.pts)
            yield from decode_packet(self._stream, packet, self.failed_pts)
        yield from decode_packet(self._stream, None, self.failed_pts)

    def _decode_tail(self, last_pts: int) -> list[VideoFrame]:
        """Decode the frames after `last_pts` once more, with one thread.

        A decoder with several threads that meets damage while it is flushed loses all frames that it still held; with
        one thread each frame is returned by itself.
        """
        with VideoDecoder(self._path, self._frame_format, threads=1, motion=self._motion) as tail_decoder:
            tail_decoder.seek(last_pts)
            tail_frames = [
                av_frame for av_frame in tail_decoder._decode_raw(deque(maxlen=1)) if _is_after(av_frame.pts, last_pts)
            ]
            self.failed_pts += [pts for pts in tail_decoder.failed_pts if _is_after(pts, last_pts)]
        return tail_frames

    def _assign_pts(self, av_frame: VideoFrame) -> tuple[int, VideoFrame]:
        """Return the frame with a strictly increasing time: where a spliced stream jumps back, times continue."""
        raw_pts, last_pts = None if self._container.format.name in RAW_FORMATS else av_frame.pts, self._last_pts
        step = av_frame.duration or self._frame_format.step
        # Counted where the stream has no times. Where a time is not later than the one before: a large step back is a
        # splice and shifts all that follows, a small one is a fault of the muxer and moves this frame by one tick.
        if raw_pts is None:
            pts, self.has_exact_pts = (self._frame_format.start_pts if last_pts is None else last_pts + step), False
        else:
            self._last_raw_pts, pts = raw_pts, raw_pts + self._pts_shift
            if last_pts is not None and pts <= last_pts:
                self.has_exact_pts = False
                if pts + self._jump_ticks < last_pts:
                    self._pts_shift = last_pts + step - raw_pts
                pts = max(last_pts + 1, raw_pts + self._pts_shift)
        self._last_pts = pts
        return pts, self._normalize_format(av_frame)

    def _normalize_format(self, av_frame: VideoFrame) -> VideoFrame:
        """Return the frame in the size and format that the video began with."""
        frame_format = self._frame_format
        if (av_frame.width, av_frame.height, av_frame.format.name) == (
            frame_format.width,
            frame_format.height,
            frame_format.pixel_format,
        ):
            return av_frame
        return self._reformatter.reformat(
            av_frame,
            frame_format.width,
            frame_format.height,
            frame_format.pixel_format,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )


def _is_after(pts: int | None, last: int) -> bool:
    return pts is not None and pts > last


def read_with_decord(
    path: Path, video: VideoFacts, index: PacketIndex, indices: Sequence[int], threads: int
) -> Iterator[tuple[int, VideoFrame]] | str:
    """Yield (index, RGB frame) for each of `indices`, or return the reason why decord is not exact for this file.

    decord is wrong about edit lists, transport streams, start times and open GOPs, and rotates frames by itself. So it
    is used only for files without these whose frame count and frame times agree with the packets (to half a frame, as
    decord counts in float).
    """
    refusal, packet_pts = _decord_refusal(video, index), index.pts
    if refusal:
        return refusal
    import decord

    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=threads)
        decord_times = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except decord.DECORDError:
        return "decord cannot open it"
    if len(decord_times) != len(packet_pts):
        return f"decord counts {len(decord_times)} frames, the packets {len(packet_pts)}"
    packet_times = np.array([float((pts - packet_pts[0]) * video.clock.time_base) for pts in packet_pts])
    offset_s = abs(decord_times[0] - float(video.start_time))
    if offset_s > DECORD_MAX_OFFSET_S or np.abs(decord_times - decord_times[0] - packet_times).max(
        initial=0
    ) > _half_frame_s(video):
        return "decord gives the frames other times than the packets"
    frames = _fetch_frames(reader, indices)
    try:
        first_frames = list(islice(frames, 1))
    except decord.DECORDError:
        return "decord cannot return frames of this size"  # 8, 16, 24 or 72 wide: their rows are padded
    return chain(first_frames, frames)


def _decord_refusal(video: VideoFacts, index: PacketIndex) -> str | None:
    """Return why decord is not even tried on a file; None if it is."""
    if video.container not in {"mov", "matroska"}:
        return f"decord is not exact in {video.container} files"
    if not (index.has_exact_pts and index.has_closed_gops):
        return "decord is not exact with open GOPs and made-up times"
    if video.rotation or video.bit_depth != 8 or video.truncated:
        return "decord is not exact with rotated, deep or cut-off frames"
    size = video.coded_width * video.coded_height * 3 * video.frames
    return "too long for decord's memory" if video.frames > DECORD_MAX_FRAMES or size > DECORD_MAX_BYTES else None


def _half_frame_s(video: VideoFacts) -> float:
    return float(1 / (2 * video.clock.fps)) if video.clock.fps else float(Fraction(1, 100))


def _fetch_frames(reader: Any, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    for at in range(0, len(indices), DECORD_BATCH):
        batch_indices = list(indices[at : at + DECORD_BATCH])
        batch = reader.get_batch(batch_indices).asnumpy()
        for index, image in zip(batch_indices, batch, strict=True):
            yield index, VideoFrame.from_ndarray(image, format="rgb24")

"""What decodes: one opened decoder, which gives every picture of a film with its time, damage skipped and counted.

And decord for what it is exact and fast at: frames by number out of short clips (the published R(2+1)D uses it so).
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
"""Packets remembered to tell whether the end of the film is complete: more than any decoder holds back."""

DECORD_MAX_FRAMES = 1500
"""Longest clip: decord keeps what it has decoded (8 GB for one film read in sequence)."""

DECORD_MAX_BYTES = 2**29
"""Largest clip as RGB, for the same reason."""

DECORD_MAX_OFFSET_S = 1e-3
"""Seconds that its first frame may be off."""

DECORD_BATCH = 16
"""Pictures asked for at a time."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What every picture of a film comes as, whatever its stream changes to on the way.

    Args:
        width, height: pixels, as the film begins.
        pixel_format: FFmpeg's name.
        step: ticks from one frame to the next where nothing else is known.
        start_pts: time of the first frame where the stream has no times.
    """

    width: int
    height: int
    pixel_format: str
    step: int
    start_pts: int


class VideoDecoder:
    """A decoder on a file of its own; a context manager.

    Args:
        path: the film.
        frame_format: what the pictures come as.
        threads: threads of the decoder; 0 for one a core.
        motion: let the pictures carry their motion vectors (side data), where the codec has any.

    Attributes:
        failed_pts: pts of each packet that could not be decoded (with several threads, of the packet at hand).
        has_exact_pts: whether the times are those in the file (False once one had to be made up or moved).
    """

    def __init__(self, path: Path, frame_format: FrameFormat, threads: int = 0, *, motion: bool = False) -> None:
        self._path, self._frame_format, self._motion = path, frame_format, motion
        self._stack = ExitStack()
        self._container = self._stack.enter_context(open_container(path))
        self._stream = select_video_stream(self._container)
        # With a thread a frame, FFmpeg hands out the vectors of a picture that another thread has not finished.
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
        """Go to the last point at or before `pts` where decoding can start. Containers may miss it: check the times."""
        self._container.seek(pts, stream=self._stream)

    def decode_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """(pts, picture) from here to the end, the pts strictly increasing."""
        sent_pts: deque[int] = deque(maxlen=TAIL_PACKETS)
        for av_frame in self._decode_raw(sent_pts):
            yield self._assign_pts(av_frame)
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
        """Pictures after `last_pts`, decoded once more with one thread.

        A decoder with several threads that meets damage while it empties itself loses what it still held; one thread
        hands out each picture by itself.
        """
        with VideoDecoder(self._path, self._frame_format, threads=1, motion=self._motion) as tail_decoder:
            tail_decoder.seek(last_pts)
            tail_frames = [
                av_frame for av_frame in tail_decoder._decode_raw(deque(maxlen=1)) if _is_after(av_frame.pts, last_pts)
            ]
            self.failed_pts += [pts for pts in tail_decoder.failed_pts if _is_after(pts, last_pts)]
        return tail_frames

    def _assign_pts(self, av_frame: VideoFrame) -> tuple[int, VideoFrame]:
        """The picture with its time made strictly increasing: spliced streams go on where they jumped back."""
        raw_pts, last_pts = None if self._container.format.name in RAW_FORMATS else av_frame.pts, self._last_pts
        step = av_frame.duration or self._frame_format.step
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
        """The picture in the size and format that the film began with."""
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
    """(index, RGB picture) for each of `indices`, or the reason why decord cannot be trusted with this file.

    decord is wrong about edit lists, transport streams, start times and open GOPs, and turns pictures by itself; so it
    serves only files where none of these is and whose frame count and every frame time agree with the packets (to half
    a frame, as it counts in float).
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
        return "decord cannot hand out pictures of this size"  # 8, 16, 24 or 72 wide: their rows are padded
    return chain(first_frames, frames)


def _decord_refusal(video: VideoFacts, index: PacketIndex) -> str | None:
    """Why a file is not even tried."""
    if video.container not in {"mov", "matroska"}:
        return f"decord is not exact in {video.container} files"
    if not (index.has_exact_pts and index.has_closed_gops):
        return "decord is not exact with open GOPs and made-up times"
    if video.rotation or video.bit_depth != 8 or video.truncated:
        return "decord is not exact with turned, deep or cut-off pictures"
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

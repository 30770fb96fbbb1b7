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

from shared.values import Video
from worker.video.stream.packets import JUMP_SECONDS, RAW, PacketIndex, decoded, read_packets
from worker.video.stream.source import main_stream, open_media

TAIL = 64
"""Packets remembered to tell whether the end of the film is complete: more than any decoder holds back."""

MOST_FRAMES = 1500
"""Longest clip: decord keeps what it has decoded (8 GB for one film read in sequence)."""

MOST_BYTES = 2**29
"""Largest clip as RGB, for the same reason."""

MOST_LATE = 1e-3
"""Seconds that its first frame may be off."""

BATCH = 16
"""Pictures asked for at a time."""


@dataclass(frozen=True, slots=True)
class Form:
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


class Decoder:
    """A decoder on a file of its own; a context manager.

    Args:
        path: the film.
        form: what the pictures come as.
        threads: threads of the decoder; 0 for one a core.
        motion: let the pictures carry their motion vectors (side data), where the codec has any.

    Attributes:
        failed: pts of each packet that could not be decoded (with several threads, of the packet at hand).
        regular: whether the times are those in the file (False once one had to be made up or moved).
    """

    def __init__(self, path: Path, form: Form, threads: int = 0, *, motion: bool = False) -> None:
        self._path, self._form, self._motion = path, form, motion
        self._stack = ExitStack()
        self._container = self._stack.enter_context(open_media(path))
        self._stream = main_stream(self._container)
        # With a thread a frame, FFmpeg hands out the vectors of a picture that another thread has not finished.
        self._stream.codec_context.thread_type = "SLICE" if motion else "AUTO"
        self._stream.codec_context.thread_count = threads
        if motion:
            self._stream.codec_context.flags2 |= Flags2.export_mvs
        self._resize = VideoReformatter()
        self._jump = int(JUMP_SECONDS / self._stream.time_base) if self._stream.time_base else 0
        self._last: int | None = None
        self._last_raw: int | None = None
        self._shift = 0
        self.failed: list[int | None] = []
        self.regular = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def seek(self, pts: int) -> None:
        """Go to the last point at or before `pts` where decoding can start. Containers may miss it: check the times."""
        self._container.seek(pts, stream=self._stream)

    def pictures(self) -> Iterator[tuple[int, VideoFrame]]:
        """(pts, picture) from here to the end, the pts strictly increasing."""
        sent: deque[int] = deque(maxlen=TAIL)
        for picture in self._raw(sent):
            yield self._timed(picture)
        if self.regular and self._last_raw is not None and max(sent, default=self._last_raw) > self._last_raw:
            for picture in self._tail(self._last_raw):
                yield self._timed(picture)

    def _raw(self, sent: deque[int]) -> Iterator[VideoFrame]:
        for packet in read_packets(self._container, self._stream, self.failed):
            if packet.pts is not None and not packet.is_discard:
                sent.append(packet.pts)
            yield from decoded(self._stream, packet, self.failed)
        yield from decoded(self._stream, None, self.failed)

    def _tail(self, last: int) -> list[VideoFrame]:
        """Pictures after `last`, decoded once more with one thread.

        A decoder with several threads that meets damage while it empties itself loses what it still held; one thread
        hands out each picture by itself.
        """
        with Decoder(self._path, self._form, threads=1, motion=self._motion) as rest:
            rest.seek(last)
            found = [picture for picture in rest._raw(deque(maxlen=1)) if _after(picture.pts, last)]
            self.failed += [pts for pts in rest.failed if _after(pts, last)]
        return found

    def _timed(self, picture: VideoFrame) -> tuple[int, VideoFrame]:
        """The picture with its time made strictly increasing: spliced streams go on where they jumped back."""
        raw, last = None if self._container.format.name in RAW else picture.pts, self._last
        step = picture.duration or self._form.step
        if raw is None:
            pts, self.regular = (self._form.start_pts if last is None else last + step), False
        else:
            self._last_raw, pts = raw, raw + self._shift
            if last is not None and pts <= last:
                self.regular = False
                if pts + self._jump < last:
                    self._shift = last + step - raw
                pts = max(last + 1, raw + self._shift)
        self._last = pts
        return pts, self._formed(picture)

    def _formed(self, picture: VideoFrame) -> VideoFrame:
        """The picture in the size and format that the film began with."""
        form = self._form
        if (picture.width, picture.height, picture.format.name) == (form.width, form.height, form.pixel_format):
            return picture
        return self._resize.reformat(
            picture, form.width, form.height, form.pixel_format, interpolation=Interpolation.BICUBIC, threads=1
        )


def _after(pts: int | None, last: int) -> bool:
    return pts is not None and pts > last


def pictures_of_clip(
    path: Path, video: Video, index: PacketIndex, indices: Sequence[int], threads: int
) -> Iterator[tuple[int, VideoFrame]] | str:
    """(index, RGB picture) for each of `indices`, or the reason why decord cannot be trusted with this file.

    decord is wrong about edit lists, transport streams, start times and open GOPs, and turns pictures by itself; so it
    serves only files where none of these is and whose frame count and every frame time agree with the packets (to half
    a frame, as it counts in float).
    """
    refused, times = _unfit(video, index), index.pts
    if refused:
        return refused
    import decord

    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=threads)
        seen = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except decord.DECORDError:
        return "decord cannot open it"
    if len(seen) != len(times):
        return f"decord counts {len(seen)} frames, the packets {len(times)}"
    ours = np.array([float((pts - times[0]) * video.clock.time_base) for pts in times])
    late = abs(seen[0] - float(video.start_time))
    if late > MOST_LATE or np.abs(seen - seen[0] - ours).max(initial=0) > _half_frame(video):
        return "decord gives the frames other times than the packets"
    pictures = _fetched(reader, indices)
    try:
        begun = list(islice(pictures, 1))
    except decord.DECORDError:
        return "decord cannot hand out pictures of this size"  # 8, 16, 24 or 72 wide: their rows are padded
    return chain(begun, pictures)


def _unfit(video: Video, index: PacketIndex) -> str | None:
    """Why a file is not even tried."""
    if video.container not in {"mov", "matroska"}:
        return f"decord is not exact in {video.container} files"
    if not (index.regular and index.closed):
        return "decord is not exact with open GOPs and made-up times"
    if video.rotation or video.bit_depth != 8 or video.truncated:
        return "decord is not exact with turned, deep or cut-off pictures"
    size = video.coded_width * video.coded_height * 3 * video.frames
    return "too long for decord's memory" if video.frames > MOST_FRAMES or size > MOST_BYTES else None


def _half_frame(video: Video) -> float:
    return float(1 / (2 * video.clock.fps)) if video.clock.fps else float(Fraction(1, 100))


def _fetched(reader: Any, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    for at in range(0, len(indices), BATCH):
        chosen = list(indices[at : at + BATCH])
        batch = reader.get_batch(chosen).asnumpy()
        for index, picture in zip(chosen, batch, strict=True):
            yield index, VideoFrame.from_ndarray(picture, format="rgb24")

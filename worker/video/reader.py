"""Read a video: every frame that can be decoded, each with its exact time, in order or by number."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from av.video.frame import VideoFrame

from shared.values import Clock, Timeline, VideoFacts
from worker.video.probe import probe_video
from worker.video.stream.container import open_container, select_video_stream
from worker.video.stream.decoder import FrameFormat, VideoDecoder, read_with_decord
from worker.video.stream.packets import PacketIndex, index_packets, most_common_step

SEEK_BACK_STEPS = (0, 1, 4)
"""Which key packets before a frame are tried, counted backwards; after these, the video is read from its start."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame.

    Args:
        index: number among the frames that can be decoded, from 0, in display order.
        pts: when it is shown, in ticks of `Clock.time_base`; strictly increasing over a video.
        av_frame: the decoder's own frame, neither converted nor rotated: `transform.apply_view` does that.
    """

    index: int
    pts: int
    av_frame: VideoFrame


class VideoReader:
    """Reads a video; a context manager. Each pass has a decoder of its own, so several passes may be open at once.

    Args:
        path: the file.
        threads: threads of a decoder; 0 for one a core.
        video: its facts, if known; otherwise probed (with `allow_damaged`, so that a cut-off file can be read).
        motion: export motion vectors with the frames, for `worker.video.motion`.

    Attributes:
        path, video: as given, or as probed.
        decode_failures: packets that could not be decoded in the latest pass from the start.
        frames_decoded: frames decoded by all passes together.
        served_by: `pyav` or `decord`: which library decoded the frames of the latest `read_frames_at`.
        decord_refusal: why decord was not used in the latest `read_frames_at` with `allow_decord`; None if it was.
    """

    def __init__(self, path: Path, threads: int = 0, video: VideoFacts | None = None, *, motion: bool = False) -> None:
        self.path, self._threads, self._motion = path, threads, motion
        self.video = video or probe_video(path, allow_damaged=True)
        self._packets: PacketIndex | None = None
        self._pts, self._end_pts, self._read_to_end, self._has_exact_pts = array("q"), self.clock.start_pts, False, True
        self._open_passes: list[Generator[Frame, None, None]] = []
        self.decode_failures = 0
        self.frames_decoded = 0
        self.served_by = "pyav"
        self.decord_refusal: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for open_pass in self._open_passes:
            open_pass.close()

    @property
    def clock(self) -> Clock:
        """The time axis."""
        return self.video.clock

    @property
    def packets(self) -> PacketIndex:
        """Times of all frames according to their packets, read once, without decoding.

        Packets before the first decodable frame (a recording that begins within a group of pictures) are left out.
        """
        if self._packets is None:
            with open_container(self.path) as container:
                index = index_packets(container, select_video_stream(container))
            self._packets = replace(index, pts=index.pts[bisect_left(index.pts, self.clock.start_pts) :])
        return self._packets

    @property
    def timeline(self) -> Timeline:
        """Exact times of the frames that the pass from the start has read so far; cheap to build."""
        return Timeline(self.clock, self._pts, self._end_pts)

    def read_frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield frames `start` to `stop` (exclusive; None: to the end) in order.

        A pass over all frames sets `timeline` and `decode_failures` anew. A part is located by the times of its frames,
        so that its frames have the same numbers wherever it begins: those of `read_frames_at`.
        """
        frame_pass = self._read_whole_video() if start == 0 and stop is None else self._read_from(start)
        self._open_passes.append(frame_pass)
        for frame in frame_pass:
            if stop is not None and frame.index >= stop:
                frame_pass.close()
                break
            yield frame
        self._open_passes.remove(frame_pass)

    def read_frames_at(self, indices: Sequence[int], *, allow_decord: bool = False) -> Iterator[Frame]:
        """Yield the frames with these numbers, in ascending order, each once.

        Args:
            indices: once the video was read to its end, numbers among the decoded frames; before that, numbers among
                the packets, which is the same unless the video is damaged. IndexError outside.
            allow_decord: use decord where it is exact, which is checked (`decoder.read_with_decord`): its frames are
                already RGB. Otherwise PyAV is used, and `decord_refusal` has the reason.
        """
        frame_pts = self._frame_pts()
        wanted = sorted(set(indices))
        if wanted and (wanted[0] < 0 or wanted[-1] >= len(frame_pts)):
            raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of {len(frame_pts)}")
        self.served_by, self.decord_refusal = "pyav", None
        if allow_decord:
            decord_frames = read_with_decord(self.path, self.video, self.packets, wanted, self._threads)
            if not isinstance(decord_frames, str):
                self.served_by = "decord"
                return (Frame(index, frame_pts[index], av_frame) for index, av_frame in decord_frames)
            self.decord_refusal = decord_frames
        return self._read_groups(wanted, frame_pts)

    def _read_groups(self, wanted: list[int], frame_pts: array[int]) -> Iterator[Frame]:
        """Yield the wanted frames; those that decode from the same key packet are read in one pass."""
        for _, group in groupby(wanted, lambda index: self.packets.key_pts_before(frame_pts[index])):
            remaining = set(group)
            last = max(remaining)
            frame_pass = self._read_from(min(remaining))
            for frame in frame_pass:
                if frame.index in remaining:
                    yield frame
                if frame.index >= last:
                    frame_pass.close()

    def _frame_pts(self) -> array[int]:
        """Times of all frames: as decoded once the video was read to its end, else according to its packets."""
        return self._pts if self._read_to_end else self.packets.pts

    def _read_whole_video(self) -> Generator[Frame, None, None]:
        """The pass from the start that `timeline` follows."""
        self._pts, self._end_pts, self._read_to_end, self.decode_failures = array("q"), self.clock.start_pts, False, 0
        with self._open_decoder() as decoder:
            for frame in self._number_by_order(decoder):
                self._pts.append(frame.pts)
                self._end_pts = frame.pts + (frame.av_frame.duration or self._frame_format.step)
                self.decode_failures = len(decoder.failed_pts)
                yield frame
            self.decode_failures = len(decoder.failed_pts)
            self._read_to_end, self._has_exact_pts = True, decoder.has_exact_pts

    def _read_from(self, first: int) -> Generator[Frame, None, None]:
        """Yield frames from number `first` on: from the key packet before it, or from the start if seeking misses it.

        If seeking finds frames before and after it but not itself, it cannot be decoded, and the next one comes first.
        """
        frame_pts, damaged = self._frame_pts(), False
        if self._has_exact_pts and self.packets.has_exact_pts:
            for steps_back in SEEK_BACK_STEPS:
                key = self.packets.key_pts_before(frame_pts[first], steps_back)
                if key is None:
                    break
                with self._open_decoder() as decoder:
                    decoder.seek(key)
                    placed_frames = self._number_by_time(decoder, frame_pts)
                    frame = first_met = next(placed_frames, None)
                    while frame is not None and frame.index < first:
                        frame = next(placed_frames, None)
                    if frame is not None and frame.index == first:
                        yield frame
                        yield from placed_frames
                        return
                    damaged = first_met is not None and first_met.index < first
        # Counting from the start is always exact, except in a damaged video: there a frame that fails to decode would
        # shift every number after it, so frames are numbered by their times.
        with self._open_decoder() as decoder:
            numbered = self._number_by_time(decoder, frame_pts) if damaged else self._number_by_order(decoder)
            yield from dropwhile(lambda frame: frame.index < first, numbered)

    def _number_by_order(self, decoder: VideoDecoder) -> Iterator[Frame]:
        """Yield frames from the start, numbered in the order of decoding."""
        for index, (pts, av_frame) in enumerate(decoder.decode_frames()):
            self.frames_decoded += 1
            yield Frame(index, pts, av_frame)

    def _number_by_time(self, decoder: VideoDecoder, frame_pts: array[int]) -> Iterator[Frame]:
        """Yield frames from any position, numbered by their times; frames at unknown times are left out."""
        for pts, av_frame in decoder.decode_frames():
            self.frames_decoded += 1
            index = bisect_left(frame_pts, pts)
            if index < len(frame_pts) and frame_pts[index] == pts:
                yield Frame(index, pts, av_frame)

    def _open_decoder(self) -> VideoDecoder:
        return VideoDecoder(self.path, self._frame_format, self._threads, motion=self._motion)

    @property
    def _frame_format(self) -> FrameFormat:
        video, clock = self.video, self.clock
        step = round(1 / (clock.fps * clock.time_base)) if clock.fps else most_common_step(self._pts)
        return FrameFormat(video.coded_width, video.coded_height, video.pixel_format, max(1, step), clock.start_pts)

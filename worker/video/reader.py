"""Reading a film: every picture that can be decoded, each with its exact time, in order or by number."""

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

from shared.values import Clock, Timeline, Video
from worker.video.probe import probe
from worker.video.stream.decoder import Decoder, Form, pictures_of_clip
from worker.video.stream.packets import PacketIndex, scan, usual_step
from worker.video.stream.source import main_stream, open_media

STEPS_BACK = (0, 1, 4)
"""Key packets tried before a wanted frame, counted backwards; after these, the film is read from its start."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    Args:
        index: number among the pictures that can be decoded, from 0, in display order.
        pts: when it is shown, in ticks of `Clock.time_base`; strictly increasing over a film.
        picture: the decoder's own picture, neither converted nor turned: `transform.see` does that.
    """

    index: int
    pts: int
    picture: VideoFrame


class Reader:
    """A film; a context manager. Each pass has a decoder of its own, so passes may be held side by side.

    Args:
        path: the file.
        threads: threads of a decoder; 0 for one a core.
        video: its facts, where known; probed otherwise (`allow_damaged`, so that a cut-off file can be read).
        motion: let the pictures carry their motion vectors, for `worker.video.motion`.

    Attributes:
        path, video: as given, or as probed.
        decode_failures: packets that could not be decoded in the latest pass from the start.
        frames_decoded: pictures decoded by all passes together.
        served_by: `pyav` or `decord`: what gave the frames of the latest `at`.
        decord_refused: why decord did not serve the latest `at` that would have let it; None where it did.
    """

    def __init__(self, path: Path, threads: int = 0, video: Video | None = None, *, motion: bool = False) -> None:
        self.path, self._threads, self._motion = path, threads, motion
        self.video = video or probe(path, allow_damaged=True)
        self._packets: PacketIndex | None = None
        self._pts, self._end, self._whole, self._regular = array("q"), self.clock.start_pts, False, True
        self._passes: list[Generator[Frame, None, None]] = []
        self.decode_failures = 0
        self.frames_decoded = 0
        self.served_by = "pyav"
        self.decord_refused: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for going in self._passes:
            going.close()

    @property
    def clock(self) -> Clock:
        """The time axis."""
        return self.video.clock

    @property
    def packets(self) -> PacketIndex:
        """Times of all frames by their packets, read once, without decoding.

        Those before the first that can be decoded (a recording that begins within a group of pictures) are no frames.
        """
        if self._packets is None:
            with open_media(self.path) as container:
                index = scan(container, main_stream(container))
            self._packets = replace(index, pts=index.pts[bisect_left(index.pts, self.clock.start_pts) :])
        return self._packets

    @property
    def timeline(self) -> Timeline:
        """The exact times of the frames that the pass from the start has given so far; cheap to ask for."""
        return Timeline(self.clock, self._pts, self._end)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames `start` to `stop` (exclusive; None: to the end) in order.

        A pass over all frames writes `timeline` and `decode_failures` anew. A part is found by the times of its frames,
        so that it has the same numbers wherever it begins: those of `at`.
        """
        going = self._recorded() if start == 0 and stop is None else self._from(start)
        self._passes.append(going)
        for frame in going:
            if stop is not None and frame.index >= stop:
                going.close()
                break
            yield frame
        self._passes.remove(going)

    def at(self, indices: Sequence[int], *, decord: bool = False) -> Iterator[Frame]:
        """The frames of these numbers, in ascending order, each once.

        Args:
            indices: once the film was read to its end, numbers among the decoded frames; before that, numbers among
                the packets, which is the same unless the film is damaged. IndexError outside.
            decord: let decord serve where it is exact, which is checked (`decoder.pictures_of_clip`): its pictures come
                converted to RGB. PyAV serves otherwise, and says why in `decord_refused`.
        """
        times = self._times()
        wanted = sorted(set(indices))
        if wanted and (wanted[0] < 0 or wanted[-1] >= len(times)):
            raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of {len(times)}")
        self.served_by, self.decord_refused = "pyav", None
        if decord:
            found = pictures_of_clip(self.path, self.video, self.packets, wanted, self._threads)
            if not isinstance(found, str):
                self.served_by = "decord"
                return (Frame(index, times[index], picture) for index, picture in found)
            self.decord_refused = found
        return self._groups(wanted, times)

    def _groups(self, wanted: list[int], times: array[int]) -> Iterator[Frame]:
        """Frames that decode from the same key packet are fetched together."""
        for _, group in groupby(wanted, lambda index: self.packets.key_before(times[index])):
            left = set(group)
            last = max(left)
            going = self._from(min(left))
            for frame in going:
                if frame.index in left:
                    yield frame
                if frame.index >= last:
                    going.close()

    def _times(self) -> array[int]:
        """Times of all frames: as decoded once the film was read to its end, else by its packets."""
        return self._pts if self._whole else self.packets.pts

    def _recorded(self) -> Generator[Frame, None, None]:
        """The pass from the start that `timeline` follows."""
        self._pts, self._end, self._whole, self.decode_failures = array("q"), self.clock.start_pts, False, 0
        with self._decoder() as decoder:
            for frame in self._counted(decoder):
                self._pts.append(frame.pts)
                self._end = frame.pts + (frame.picture.duration or self._form.step)
                self.decode_failures = len(decoder.failed)
                yield frame
            self.decode_failures = len(decoder.failed)
            self._whole, self._regular = True, decoder.regular

    def _from(self, first: int) -> Generator[Frame, None, None]:
        """Frames from number `first` on: from the key packet before it, or from the start where seeking misses it.

        Where frames are met before it and after it and never it, it cannot be decoded, and the next one comes first.
        """
        times, damaged = self._times(), False
        if self._regular and self.packets.regular:
            for back in STEPS_BACK:
                key = self.packets.key_before(times[first], back)
                if key is None:
                    break
                with self._decoder() as decoder:
                    decoder.seek(key)
                    going = self._placed(decoder, times)
                    frame = before = next(going, None)
                    while frame is not None and frame.index < first:
                        frame = next(going, None)
                    if frame is not None and frame.index == first:
                        yield frame
                        yield from going
                        return
                    damaged = before is not None and before.index < first
        with self._decoder() as decoder:
            numbered = self._placed(decoder, times) if damaged else self._counted(decoder)
            yield from dropwhile(lambda frame: frame.index < first, numbered)

    def _counted(self, decoder: Decoder) -> Iterator[Frame]:
        """Pictures from the start, numbered as they come."""
        for index, (pts, picture) in enumerate(decoder.pictures()):
            self.frames_decoded += 1
            yield Frame(index, pts, picture)

    def _placed(self, decoder: Decoder, times: array[int]) -> Iterator[Frame]:
        """Pictures from somewhere, numbered by their times; what was never a frame of the film is left out."""
        for pts, picture in decoder.pictures():
            self.frames_decoded += 1
            index = bisect_left(times, pts)
            if index < len(times) and times[index] == pts:
                yield Frame(index, pts, picture)

    def _decoder(self) -> Decoder:
        return Decoder(self.path, self._form, self._threads, motion=self._motion)

    @property
    def _form(self) -> Form:
        video, clock = self.video, self.clock
        step = round(1 / (clock.fps * clock.time_base)) if clock.fps else usual_step(self._pts)
        return Form(video.coded_width, video.coded_height, video.pixel_format, max(1, step), clock.start_pts)

"""The sound of stretches of a film, cut to the sample where the pictures are cut."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from shared.values import Video
from worker.video.render.mp4 import Samples
from worker.video.stream.packets import JUMP_SECONDS, decoded, read_packets
from worker.video.stream.source import open_media

RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Sampling frequencies of AAC (ISO/IEC 14496-3, table 1.18)."""

USUAL_RATE = 48000
"""What sound of any other frequency becomes."""

STEPS_BACK = (Fraction(1, 2), Fraction(10))
"""Seconds before the wanted time to go to; where both miss it, the sound is read from the start."""

SLACK = Fraction(1, 50)
"""Seconds by which a packet's time may differ from the end of the one before without being a gap: containers round."""

PIECE = 2**15
"""Most samples of silence made at a time."""

Timed = tuple[Fraction, AudioFrame]
"""Decoded sound and when it is heard, in seconds as the container counts them."""


class Sound:
    """The first sound track of a film.

    Args:
        path: the film.
        video: its facts: where its pictures begin, and at least one sound track.
        regular: whether its times never jump (`PacketIndex.regular`).

    Attributes:
        rate: samples per second of what is given: the film's own where AAC has it.
        layout: `mono`, or `stereo`, to which more channels are mixed.
    """

    def __init__(self, path: Path, video: Video, *, regular: bool = True) -> None:
        self._path, self._start, self._regular = path, video.start_time, regular
        track = video.audio[0]
        self.rate = track.sample_rate if track.sample_rate in RATES else USUAL_RATE
        self.layout = "mono" if track.channels == 1 else "stereo"

    def between(self, start: Fraction, count: int) -> Iterator[Samples]:
        """Exactly `count` samples from `start` (seconds since the first picture) on, in pieces.

        Silence where the film has no sound: before it begins, in gaps, after it ends.
        """
        given = 0
        with closing(self._placed(self._start + start)) as pieces:
            for place, piece in pieces:
                for silence in self._silence(min(place, count) - given):
                    yield silence
                    given += silence.shape[1]
                fitting = piece[:, max(0, given - place) : max(0, count - place)]
                if fitting.size:
                    yield fitting
                    given += fitting.shape[1]
                if given >= count:
                    return
        yield from self._silence(count - given)

    def _silence(self, count: int) -> Iterator[Samples]:
        for first in range(0, count, PIECE):
            yield np.zeros((1 if self.layout == "mono" else 2, min(PIECE, count - first)), np.float32)

    def _placed(self, start: Fraction) -> Generator[tuple[int, Samples], None, None]:
        """(number of its first sample, counted from `start`; samples) in order, from `start` or before on."""
        for _, run in groupby(_numbered(self._from(start)), lambda numbered: numbered[0]):
            _, first = next(run)
            place = round((first[0] - start) * self.rate)
            resampler = AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
            for frame in chain([first[1]], (frame for _, (_, frame) in run), [None]):
                for ready in resampler.resample(frame):
                    if ready is not None:  # a resampler with nothing to do hands back the end
                        yield place, cast(Samples, ready.to_ndarray())
                        place += ready.samples

    def _from(self, start: Fraction) -> Iterator[Timed]:
        """Sound from `start` or before on: sought, or from the beginning where seeking misses it."""
        for back in STEPS_BACK if self._regular else ():
            found = self._decoded(start - back)
            first = next(found, None)
            if first is not None and first[0] <= start:
                yield first
                yield from found
                return
        yield from self._decoded(None)

    def _decoded(self, sought: Fraction | None) -> Iterator[Timed]:
        """All sound after a place in the film; damage is left out. Where the times jump back, they go on instead."""
        with open_media(self._path) as container:
            tracks: Any = container.streams.audio
            track = next(track for track in tracks if track.codec_context)  # none: no decoder for it
            if sought is not None and not _sought(container, sought):
                return
            expected, shift = None, Fraction(0)
            for packet in chain(read_packets(container, track, []), [None]):
                for frame in cast(list[AudioFrame], decoded(track, packet, [])):
                    time = expected if frame.pts is None else frame.pts * Fraction(track.time_base) + shift
                    if time is None:
                        continue
                    if expected is not None and time + JUMP_SECONDS < expected:
                        shift, time = shift + expected - time, expected
                    expected = time + Fraction(frame.samples, frame.sample_rate)
                    yield time, frame


def _sought(container: Any, time: Fraction) -> bool:
    """Whether the container could go to a place at or before that time."""
    try:
        container.seek(int(time * av.time_base))
    except av.error.FFmpegError:
        return False
    return True


def _numbered(frames: Iterator[Timed]) -> Iterator[tuple[int, Timed]]:
    """Sound with the number of its run: within a run all of one kind follows without a gap, but for rounding."""
    run, expected, kind = 0, None, None
    for time, frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if expected is not None and (abs(time - expected) > SLACK or now != kind):
            run += 1
        expected, kind = time + Fraction(frame.samples, frame.sample_rate), now
        yield run, (time, frame)

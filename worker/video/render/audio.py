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

from shared.values import VideoFacts
from worker.video.render.mp4 import Samples
from worker.video.stream.container import open_container
from worker.video.stream.packets import JUMP_SECONDS, decode_packet, read_packets

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Sampling frequencies of AAC (ISO/IEC 14496-3, table 1.18)."""

DEFAULT_RATE = 48000
"""What sound of any other frequency becomes."""

SEEK_BACK_STEPS_S = (Fraction(1, 2), Fraction(10))
"""Seconds before the wanted time to go to; where both miss it, the sound is read from the start."""

GAP_TOLERANCE_S = Fraction(1, 50)
"""Seconds by which a packet's time may differ from the end of the one before without being a gap: containers round."""

MAX_SILENCE_SAMPLES = 2**15
"""Most samples of silence made at a time."""

TimedAudio = tuple[Fraction, AudioFrame]
"""Decoded sound and when it is heard, in seconds as the container counts them."""


class AudioTrack:
    """The first sound track of a film.

    Args:
        path: the film.
        video: its facts: where its pictures begin, and at least one sound track.
        has_exact_pts: whether its times never jump (`PacketIndex.regular`).

    Attributes:
        rate: samples per second of what is given: the film's own where AAC has it.
        layout: `mono`, or `stereo`, to which more channels are mixed.
    """

    def __init__(self, path: Path, video: VideoFacts, *, has_exact_pts: bool = True) -> None:
        self._path, self._start, self._has_exact_pts = path, video.start_time, has_exact_pts
        track = video.audio[0]
        self.rate = track.sample_rate if track.sample_rate in AAC_RATES else DEFAULT_RATE
        self.layout = "mono" if track.channels == 1 else "stereo"

    def read_samples(self, start: Fraction, count: int) -> Iterator[Samples]:
        """Exactly `count` samples from `start` (seconds since the first picture) on, in pieces.

        Silence where the film has no sound: before it begins, in gaps, after it ends.
        """
        yielded = 0
        with closing(self._resample_from(self._start + start)) as blocks:
            for position, samples in blocks:
                for silence in self._generate_silence(min(position, count) - yielded):
                    yield silence
                    yielded += silence.shape[1]
                fitting = samples[:, max(0, yielded - position) : max(0, count - position)]
                if fitting.size:
                    yield fitting
                    yielded += fitting.shape[1]
                if yielded >= count:
                    return
        yield from self._generate_silence(count - yielded)

    def _generate_silence(self, count: int) -> Iterator[Samples]:
        for first in range(0, count, MAX_SILENCE_SAMPLES):
            yield np.zeros((1 if self.layout == "mono" else 2, min(MAX_SILENCE_SAMPLES, count - first)), np.float32)

    def _resample_from(self, start: Fraction) -> Generator[tuple[int, Samples], None, None]:
        """(number of its first sample, counted from `start`; samples) in order, from `start` or before on."""
        for _, run in groupby(_number_runs(self._decode_from(start)), lambda numbered: numbered[0]):
            _, first = next(run)
            position = round((first[0] - start) * self.rate)
            resampler = AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
            for frame in chain([first[1]], (frame for _, (_, frame) in run), [None]):
                for resampled in resampler.resample(frame):
                    if resampled is not None:  # a resampler with nothing to do hands back the end
                        yield position, cast(Samples, resampled.to_ndarray())
                        position += resampled.samples

    def _decode_from(self, start: Fraction) -> Iterator[TimedAudio]:
        """Sound from `start` or before on: sought, or from the beginning where seeking misses it."""
        for seconds_back in SEEK_BACK_STEPS_S if self._has_exact_pts else ():
            timed_frames = self._decode_after(start - seconds_back)
            first = next(timed_frames, None)
            if first is not None and first[0] <= start:
                yield first
                yield from timed_frames
                return
        yield from self._decode_after(None)

    def _decode_after(self, seek_time: Fraction | None) -> Iterator[TimedAudio]:
        """All sound after a place in the film; damage is left out. Where the times jump back, they go on instead."""
        with open_container(self._path) as container:
            tracks: Any = container.streams.audio
            track = next(track for track in tracks if track.codec_context)  # none: no decoder for it
            if seek_time is not None and not _try_seek(container, seek_time):
                return
            expected, shift = None, Fraction(0)
            for packet in chain(read_packets(container, track, []), [None]):
                for frame in cast(list[AudioFrame], decode_packet(track, packet, [])):
                    time = expected if frame.pts is None else frame.pts * Fraction(track.time_base) + shift
                    if time is None:
                        continue
                    if expected is not None and time + JUMP_SECONDS < expected:
                        shift, time = shift + expected - time, expected
                    expected = time + Fraction(frame.samples, frame.sample_rate)
                    yield time, frame


def _try_seek(container: Any, time: Fraction) -> bool:
    """Whether the container could go to a place at or before that time."""
    try:
        container.seek(int(time * av.time_base))
    except av.error.FFmpegError:
        return False
    return True


def _number_runs(frames: Iterator[TimedAudio]) -> Iterator[tuple[int, TimedAudio]]:
    """Sound with the number of its run: within a run all of one kind follows without a gap, but for rounding."""
    run, expected, last_format_key = 0, None, None
    for time, frame in frames:
        format_key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if expected is not None and (abs(time - expected) > GAP_TOLERANCE_S or format_key != last_format_key):
            run += 1
        expected, last_format_key = time + Fraction(frame.samples, frame.sample_rate), format_key
        yield run, (time, frame)

"""Read the sound of ranges of a video, cut to the sample where the frames are cut."""

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
"""Samples per second to which any other rate is converted."""

SEEK_BACK_STEPS_S = (Fraction(1, 2), Fraction(10))
"""How many seconds before the wanted time to seek to; if both miss it, the sound is read from the start."""

GAP_TOLERANCE_S = Fraction(1, 50)
"""Seconds by which a packet's time may differ from the end of the one before without a gap: containers round."""

MAX_SILENCE_SAMPLES = 2**15
"""Largest number of samples of silence in one block."""

TimedAudio = tuple[Fraction, AudioFrame]
"""(time in seconds as the container counts them, decoded sound)."""


class AudioTrack:
    """Reads the first sound track of a video.

    Args:
        path: the video.
        video: its facts: the time of its first frame, and at least one sound track.
        has_exact_pts: whether its times never jump (`PacketIndex.has_exact_pts`).

    Attributes:
        rate: samples per second that are returned: the video's own rate if AAC supports it.
        layout: `mono`, or `stereo`, to which more channels are mixed down.
    """

    def __init__(self, path: Path, video: VideoFacts, *, has_exact_pts: bool = True) -> None:
        self._path, self._start, self._has_exact_pts = path, video.start_time, has_exact_pts
        track = video.audio[0]
        self.rate = track.sample_rate if track.sample_rate in AAC_RATES else DEFAULT_RATE
        self.layout = "mono" if track.channels == 1 else "stereo"

    def read_samples(self, start: Fraction, count: int) -> Iterator[Samples]:
        """Yield exactly `count` samples from `start` (seconds since the first frame) on, in blocks.

        Silence where the video has no sound: before the sound begins, in gaps, after it ends.
        """
        # Every block is placed by its number of samples since `start`: what is missing before it becomes silence, what
        # overlaps is cut, so that errors of the container's times cannot add up.
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
        """Yield (number of the first sample, counted from `start`; samples) in order, from `start` or before on."""
        # A new resampler for each gapless run: one that is fed over a gap would close it.
        for _, run in groupby(_number_runs(self._decode_from(start)), lambda numbered: numbered[0]):
            _, first = next(run)
            position = round((first[0] - start) * self.rate)
            resampler = AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
            for frame in chain([first[1]], (frame for _, (_, frame) in run), [None]):
                for resampled in resampler.resample(frame):
                    if resampled is not None:  # a resampler that converts nothing returns the final None as it is
                        yield position, cast(Samples, resampled.to_ndarray())
                        position += resampled.samples

    def _decode_from(self, start: Fraction) -> Iterator[TimedAudio]:
        """Decode sound from `start` or before on: by seeking, or from the beginning if seeking misses it."""
        for seconds_back in SEEK_BACK_STEPS_S if self._has_exact_pts else ():
            timed_frames = self._decode_after(start - seconds_back)
            first = next(timed_frames, None)
            if first is not None and first[0] <= start:
                yield first
                yield from timed_frames
                return
        yield from self._decode_after(None)

    def _decode_after(self, seek_time: Fraction | None) -> Iterator[TimedAudio]:
        """Decode all sound after a time; damage is skipped. Where the times jump back, they continue instead."""
        with open_container(self._path) as container:
            tracks: Any = container.streams.audio
            track = next(track for track in tracks if track.codec_context)  # without a context there is no decoder
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
    """Seek to a position at or before that time; whether the container could."""
    try:
        container.seek(int(time * av.time_base))
    except av.error.FFmpegError:
        return False
    return True


def _number_runs(frames: Iterator[TimedAudio]) -> Iterator[tuple[int, TimedAudio]]:
    """Yield sound with the number of its run: a run has one format and no gap, except for rounding."""
    run, expected, last_format_key = 0, None, None
    for time, frame in frames:
        format_key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if expected is not None and (abs(time - expected) > GAP_TOLERANCE_S or format_key != last_format_key):
            run += 1
        expected, last_format_key = time + Fraction(frame.samples, frame.sample_rate), format_key
        yield run, (time, frame)

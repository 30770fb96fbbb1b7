"""Writing an MP4 picture by picture, each with its exact time, and samples of sound beside them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.filter.graph import Graph
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from shared.errors import Internal, StorageFull

Samples = npt.NDArray[np.float32]
"""Sound: channels x samples, float32."""

X264 = {"preset": "veryfast", "crf": "20", "forced-idr": "1"}
"""As `clips.WEB` has it; a picture that is to be a key picture begins a group of its own."""

COLOURS = ("color_range", "color_primaries", "color_trc", "colorspace")
"""What the colours of a picture mean: attributes of a picture and of an encoder."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a film is written as.

    Args:
        time_base: seconds per tick of the times of its pictures.
        fps: nominal frames per second, for the encoder's rate control.
        filters: what each picture goes through before it is encoded, as FFmpeg writes filters; ends in even 4:2:0.
        rate: samples of sound per second, one that AAC has; 0 for no sound.
        layout: of the sound's channels, as FFmpeg calls it.
        pixel_ratio: width of a pixel over its height, after the filters.
    """

    time_base: Fraction
    fps: Fraction
    filters: str
    rate: int = 0
    layout: str = "stereo"
    pixel_ratio: Fraction = Fraction(1)


class Mp4:
    """An MP4 that plays everywhere: H.264 4:2:0, AAC, its index in front; a context manager.

    Memory holds the encoder's pictures only. What fails inside leaves no file.

    Args:
        out: the file.
        form: what it is written as.

    Attributes:
        pictures: how many were written so far.
        seconds_shown, seconds_heard: what pictures and sound written so far reach to.

    Raises:
        StorageFull: no room for the file. Internal: FFmpeg failed otherwise.
    """

    def __init__(self, out: Path, form: Form) -> None:
        self._out, self._form = out, form
        self.pictures = self._samples = 0
        self.seconds_shown = self.seconds_heard = Fraction(0)
        self._graph: Graph | None = None
        with failures(out):
            scale = {"movflags": "+faststart", "video_track_timescale": str(form.time_base.denominator)}
            self._container = av.open(f"file:{out}", "w", format="mp4", options=scale)
            self._video: VideoStream = self._container.add_stream("libx264", rate=form.fps or 25, options=X264)
            self._sound = self._with_sound() if form.rate else None

    def _with_sound(self) -> AudioStream:
        stream = self._container.add_stream("aac", rate=self._form.rate)
        stream.codec_context.layout = self._form.layout
        stream.codec_context.time_base = Fraction(1, self._form.rate)
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(av.error.FFmpegError):  # the first failure is the one that counts
                self._container.close()
            self._out.unlink(missing_ok=True)
            return
        with failures(self._out):
            for stream in (self._video, self._sound):
                if stream is not None:
                    self._container.mux(stream.encode(None))
            self._container.close()

    def show(self, picture: VideoFrame, at: int, length: int, *, key: bool = False) -> None:
        """Write a picture.

        Args:
            picture: as decoded; all of one size and format. Its own time is not looked at; it is changed.
            at: when it is shown, in ticks from the beginning of the film; strictly increasing.
            length: ticks for which it is shown; counts for the last picture, the others end where the next begins.
            key: whether a player is to be able to begin here.
        """
        picture.pts, picture.duration, picture.time_base = at, length, self._form.time_base
        with failures(self._out):
            ready = self._filtered(picture)
            if not self.pictures:
                self._begin(ready)
            ready.pict_type = PictureType.I if key else PictureType.NONE  # else the encoder follows the source's
            self._container.mux(self._video.encode(ready))
        self.pictures += 1
        self.seconds_shown = (at + length) * self._form.time_base

    def hear(self, samples: Samples) -> None:
        """Write samples of sound, channels x any number, which follow those before."""
        if self._sound is None:
            raise ValueError("this film has no sound")
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._form.layout)
        frame.sample_rate, frame.pts, frame.time_base = self._form.rate, self._samples, Fraction(1, self._form.rate)
        with failures(self._out):
            self._container.mux(self._sound.encode(frame))
        self._samples += samples.shape[1]
        self.seconds_heard = Fraction(self._samples, self._form.rate)

    def _filtered(self, picture: VideoFrame) -> VideoFrame:
        if self._graph is None:
            self._graph = self._built(picture)
        self._graph.vpush(picture)
        return self._graph.vpull()

    def _built(self, picture: VideoFrame) -> Graph:
        """The filters, for pictures like this one."""
        graph = Graph()
        last = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=self._form.time_base
        )
        for written in self._form.filters.split(","):
            name, _, arguments = written.partition("=")
            following = graph.add(name, arguments or None)
            last.link_to(following)
            last = following
        last.link_to(graph.add("buffersink"))
        graph.configure()
        return graph

    def _begin(self, picture: VideoFrame) -> None:
        """Tell the encoder what the first picture says."""
        encoder = self._video.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, picture.format.name
        encoder.sample_aspect_ratio, encoder.time_base = self._form.pixel_ratio, self._form.time_base
        encoder.thread_count = 0
        encoder.flags |= Flags.frame_duration
        for name in COLOURS:
            setattr(encoder, name, int(getattr(picture, name)))


@contextmanager
def failures(out: Path) -> Iterator[None]:
    """Errors of FFmpeg as errors of ours, without paths in them; no file is left."""
    try:
        yield
    except av.error.FFmpegError as error:
        out.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise StorageFull("no room left for the film") from error
        raise Internal(f"ffmpeg: {error.strerror}") from error

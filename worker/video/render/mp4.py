"""Write an MP4 frame by frame, each with its exact time, and samples of sound along with them."""

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

X264_OPTIONS = {"preset": "veryfast", "crf": "20", "forced-idr": "1"}
"""As in `clips.WEB_OPTIONS`; `forced-idr`: a frame that is forced to be a keyframe is one where players can start."""

COLOUR_ATTRIBUTES = ("color_range", "color_primaries", "color_trc", "colorspace")
"""Names of the colour attributes that frames and encoders have."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Format in which a video is written.

    Args:
        time_base: seconds per tick of the times of its frames.
        fps: nominal frames per second, for the encoder's rate control.
        filter_chain: FFmpeg filters for each frame before it is encoded; they end in 4:2:0 of even size.
        audio_rate: samples of sound per second, a rate that AAC supports; 0 for no sound.
        audio_layout: FFmpeg's name of the channel layout.
        pixel_ratio: width of a pixel over its height, after the filters.
    """

    time_base: Fraction
    fps: Fraction
    filter_chain: str
    audio_rate: int = 0
    audio_layout: str = "stereo"
    pixel_ratio: Fraction = Fraction(1)


class Mp4Writer:
    """Writes an MP4 that plays everywhere: H.264 4:2:0, AAC, index at the front; a context manager.

    Memory holds the encoder's frames only. After an error inside the context no file is left.

    Args:
        out: the file.
        output_format: its format.

    Attributes:
        frames_written: number of frames written so far.
        video_seconds, audio_seconds: end of the frames and of the sound written so far.

    Raises:
        StorageFull: no space for the file. Internal: FFmpeg failed otherwise.
    """

    def __init__(self, out: Path, output_format: OutputFormat) -> None:
        self._out, self._output_format = out, output_format
        self.frames_written = self._samples_written = 0
        self.video_seconds = self.audio_seconds = Fraction(0)
        self._graph: Graph | None = None
        with translate_errors(out):
            scale = {"movflags": "+faststart", "video_track_timescale": str(output_format.time_base.denominator)}
            self._container = av.open(f"file:{out}", "w", format="mp4", options=scale)
            self._video: VideoStream = self._container.add_stream(
                "libx264", rate=output_format.fps or 25, options=X264_OPTIONS
            )
            self._audio = self._add_audio_stream() if output_format.audio_rate else None

    def _add_audio_stream(self) -> AudioStream:
        stream = self._container.add_stream("aac", rate=self._output_format.audio_rate)
        stream.codec_context.layout = self._output_format.audio_layout
        stream.codec_context.time_base = Fraction(1, self._output_format.audio_rate)
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(av.error.FFmpegError):  # the error that is already on its way is the one to report
                self._container.close()
            self._out.unlink(missing_ok=True)
            return
        with translate_errors(self._out):
            for stream in (self._video, self._audio):
                if stream is not None:
                    self._container.mux(stream.encode(None))
            self._container.close()

    def write_frame(
        self, av_frame: VideoFrame, start_ticks: int, duration_ticks: int, *, is_keyframe: bool = False
    ) -> None:
        """Write a frame.

        Args:
            av_frame: as decoded; all of one size and format. Its own time is ignored and overwritten.
            start_ticks: when it is shown, in ticks from the beginning of the video; strictly increasing.
            duration_ticks: ticks for which it is shown; used for the last frame, the others end where the next begins.
            is_keyframe: whether players must be able to start here.
        """
        av_frame.pts, av_frame.duration, av_frame.time_base = start_ticks, duration_ticks, self._output_format.time_base
        with translate_errors(self._out):
            filtered = self._apply_filters(av_frame)
            if not self.frames_written:
                self._configure_encoder(filtered)
            # NONE leaves the choice to the encoder; otherwise it would repeat the frame types of the source.
            filtered.pict_type = PictureType.I if is_keyframe else PictureType.NONE
            self._container.mux(self._video.encode(filtered))
        self.frames_written += 1
        self.video_seconds = (start_ticks + duration_ticks) * self._output_format.time_base

    def write_audio(self, samples: Samples) -> None:
        """Write the next samples of sound, channels x any number."""
        if self._audio is None:
            raise ValueError("this video has no sound")
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._output_format.audio_layout
        )
        frame.sample_rate, frame.pts, frame.time_base = (
            self._output_format.audio_rate,
            self._samples_written,
            Fraction(1, self._output_format.audio_rate),
        )
        with translate_errors(self._out):
            self._container.mux(self._audio.encode(frame))
        self._samples_written += samples.shape[1]
        self.audio_seconds = Fraction(self._samples_written, self._output_format.audio_rate)

    def _apply_filters(self, av_frame: VideoFrame) -> VideoFrame:
        if self._graph is None:
            self._graph = self._build_graph(av_frame)
        self._graph.vpush(av_frame)
        return self._graph.vpull()

    def _build_graph(self, av_frame: VideoFrame) -> Graph:
        """Build the filter graph for frames of this size and format."""
        graph = Graph()
        last = graph.add_buffer(
            width=av_frame.width,
            height=av_frame.height,
            format=av_frame.format,
            time_base=self._output_format.time_base,
        )
        for filter_text in self._output_format.filter_chain.split(","):
            name, _, arguments = filter_text.partition("=")
            following = graph.add(name, arguments or None)
            last.link_to(following)
            last = following
        last.link_to(graph.add("buffersink"))
        graph.configure()
        return graph

    def _configure_encoder(self, first_frame: VideoFrame) -> None:
        """Configure the encoder from the first filtered frame: only then are its size and colours known."""
        encoder = self._video.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = first_frame.width, first_frame.height, first_frame.format.name
        encoder.sample_aspect_ratio, encoder.time_base = self._output_format.pixel_ratio, self._output_format.time_base
        encoder.thread_count = 0
        encoder.flags |= Flags.frame_duration
        for name in COLOUR_ATTRIBUTES:
            setattr(encoder, name, int(getattr(first_frame, name)))


@contextmanager
def translate_errors(out: Path) -> Iterator[None]:
    """Raise errors of FFmpeg as our errors, without paths in them; no file is left."""
    try:
        yield
    except av.error.FFmpegError as error:
        out.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise StorageFull("no space left for the video") from error
        raise Internal(f"ffmpeg: {error.strerror}") from error

"""A video: its facts, read from the file and never from its name, and its record in the database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from typing import Any

from shared.values.time import Clock, format_timestamp


@dataclass(frozen=True, slots=True)
class AudioStream:
    """One sound track."""

    codec: str
    channels: int
    sample_rate: int
    language: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "codec": self.codec,
            "channels": self.channels,
            "sample_rate": self.sample_rate,
            "language": self.language,
        }


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """The facts of one video.

    Args:
        container: demuxer's name, such as `mov` or `matroska`.
        codec: video codec, such as `h264`.
        pixel_format: such as `yuv420p10le`.
        bit_depth: bits per component.
        coded_width, coded_height: pixels as stored.
        width, height: pixels as they should be shown, after the sample aspect ratio and the rotation.
        rotation: degrees counter-clockwise to be applied for display: 0, 90, 180 or 270.
        sample_aspect_ratio: width of a stored pixel over its height.
        clock: time axis of the video stream.
        start_time: seconds (absolute) of the first video frame.
        container_start_time: seconds (absolute) at which the container starts: what players call 0.
        duration: seconds from the first frame to the end of the last, from the packets and not from the header.
        frames: number of frames by the packets; a decoder may deliver fewer.
        transfer: colour transfer characteristic such as `bt709`, `smpte2084`, `arib-std-b67`; None where unsaid.
        interlaced: whether the stream says that its frames are two fields.
        audio: the sound tracks.
        decode_failures: packets that could not be decoded (known once the video was read).
        truncated: whether the index speaks of data beyond the end of the file.
    """

    container: str
    codec: str
    pixel_format: str
    bit_depth: int
    coded_width: int
    coded_height: int
    width: int
    height: int
    rotation: int
    sample_aspect_ratio: Fraction
    clock: Clock
    start_time: Fraction
    container_start_time: Fraction
    duration: Fraction
    frames: int
    transfer: str | None = None
    interlaced: bool = False
    audio: tuple[AudioStream, ...] = field(default=())
    decode_failures: int = 0
    truncated: bool = False

    def with_decode_failures(self, decode_failures: int) -> VideoFacts:
        """Return the facts with the number of packets that could not be decoded."""
        return replace(self, decode_failures=decode_failures)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the `probe` of an answer; read back by `from_dict`."""
        fps = self.clock.fps
        return {
            "container": self.container,
            "codec": self.codec,
            "pixel_format": self.pixel_format,
            "bit_depth": self.bit_depth,
            "coded_width": self.coded_width,
            "coded_height": self.coded_height,
            "width": self.width,
            "height": self.height,
            "rotation": self.rotation,
            "sample_aspect_ratio": str(self.sample_aspect_ratio),
            "fps": f"{fps.numerator}/{fps.denominator}",
            "vfr": self.clock.vfr,
            "time_base": f"{self.clock.time_base.numerator}/{self.clock.time_base.denominator}",
            "start_pts": self.clock.start_pts,
            "start_time": round(float(self.start_time), 6),
            "container_start_time": round(float(self.container_start_time), 6),
            "duration": round(float(self.duration), 6),
            "frames": self.frames,
            "transfer": self.transfer,
            "interlaced": self.interlaced,
            "audio": [stream.to_dict() for stream in self.audio],
            "decode_failures": self.decode_failures,
            "truncated": self.truncated,
        }

    @staticmethod
    def from_dict(record: dict[str, Any]) -> VideoFacts:
        """Inverse of `to_dict`, to the microsecond where a float stands for a fraction."""
        plain = {
            name: record[name]
            for name in (
                "container", "codec", "pixel_format", "bit_depth", "coded_width", "coded_height", "width", "height",
                "rotation", "frames", "transfer", "interlaced", "decode_failures", "truncated",
            )
        }  # fmt: skip
        return VideoFacts(
            **plain,
            sample_aspect_ratio=Fraction(record["sample_aspect_ratio"]),
            clock=Clock.from_dict(record),
            start_time=Fraction(str(record["start_time"])),
            container_start_time=Fraction(str(record["container_start_time"])),
            duration=Fraction(str(record["duration"])),
            audio=tuple(AudioStream(**stream) for stream in record["audio"]),
        )


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video in the database: its name, hash and facts.

    `stored`: its bytes are in the store; otherwise the video stays where it is, in a place of a source.
    """

    id: str
    sha256: str
    size: int
    name: str
    media_type: str
    facts: VideoFacts
    created_at: datetime
    stored: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "stored": self.stored,
            "probe": self.facts.to_dict(),
            "created_at": format_timestamp(self.created_at),
        }

"""Exact time: a frame's number, pts, seconds and timecode, from one type.

Seconds count from the first frame of the video stream (frame 0 is 0 s); the stream's own start time is a fact of the
video (`Video.start_time`), so absolute presentation time is `start_time + seconds`. Ends are exclusive everywhere.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class Clock:
    """The time axis of one video stream.

    Args:
        time_base: seconds per tick of a pts.
        fps: nominal frame rate, snapped to the standard rates (30000/1001 ...); 0 where the file has none.
        start_pts: pts of the first frame.
        vfr: whether the frames are unevenly spaced.
    """

    time_base: Fraction
    fps: Fraction
    start_pts: int
    vfr: bool = False

    def moment_at(self, frame: int, pts: int) -> Moment:
        """The moment of frame `frame`, shown at `pts`."""
        return Moment(frame=frame, pts=pts, clock=self)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; read back by `from_dict`."""
        return {
            "time_base": str(self.time_base),
            "fps": str(self.fps),
            "start_pts": self.start_pts,
            "vfr": self.vfr,
        }

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Clock:
        """Inverse of `to_dict`."""
        return Clock(
            time_base=Fraction(record["time_base"]),
            fps=Fraction(record["fps"]),
            start_pts=int(record["start_pts"]),
            vfr=bool(record["vfr"]),
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on the frame grid of a video. As an exclusive end, `frame` may be the number of frames."""

    frame: int
    pts: int
    clock: Clock

    @property
    def seconds(self) -> Fraction:
        """Exact seconds since the first frame."""
        return (self.pts - self.clock.start_pts) * self.clock.time_base

    @property
    def timecode(self) -> str:
        """SMPTE label of the nominal frame that is shown at this time.

        From the time and not from the frame number: where the rate varies, or frames could not be decoded, the two
        drift apart, and a label has to agree with what a player shows.
        """
        fps = self.clock.fps
        return format_timecode(round(self.seconds * fps), fps) if fps > 0 else format_clock_time(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """`frame`, `seconds`, `pts`, `format_timecode`: the form of every time in an answer."""
        return {
            "frame": self.frame,
            "seconds": round(float(self.seconds), 6),
            "pts": self.pts,
            "timecode": self.timecode,
        }


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `start` to `end`, end exclusive."""

    start: Moment
    end: Moment

    def __post_init__(self) -> None:
        if self.end.frame < self.start.frame:
            raise ValueError(f"range ends before it starts: {self.start.frame}..{self.end.frame}")

    @property
    def frames(self) -> int:
        """Number of frames inside."""
        return self.end.frame - self.start.frame

    @property
    def seconds(self) -> Fraction:
        """Exact length in seconds."""
        return self.end.seconds - self.start.seconds


class Timeline:
    """Frame number -> moment for a whole video: eight bytes a frame.

    Args:
        clock: the time axis.
        pts: pts of every frame, in display order.
        end_pts: when the last frame stops being shown.
    """

    def __init__(self, clock: Clock, pts: array[int], end_pts: int) -> None:
        self.clock = clock
        self._pts = pts
        self._end_pts = end_pts

    @staticmethod
    def empty(clock: Clock) -> Timeline:
        """The timeline of a video that was not read."""
        return Timeline(clock, array("q"), clock.start_pts)

    def __len__(self) -> int:
        return len(self._pts)

    def moment_at(self, frame: int) -> Moment:
        """The moment of `frame`; `len(self)` gives the end of the video. IndexError outside."""
        if frame == len(self._pts):
            return self.clock.moment_at(frame, self._end_pts)
        if not 0 <= frame < len(self._pts):
            raise IndexError(f"frame {frame} of {len(self._pts)}")
        return self.clock.moment_at(frame, self._pts[frame])

    def time_range(self, start: int, end: int) -> TimeRange:
        """Frames `start` (inclusive) to `end` (exclusive) as exact time."""
        return TimeRange(self.moment_at(start), self.moment_at(end))


def format_clock_time(seconds: Fraction) -> str:
    """`HH:MM:SS.mmm`, rounded to the nearest millisecond."""
    whole, millis = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{millis:03d}"


def format_timecode(frame: int, fps: Fraction) -> str:
    """SMPTE ST 12-1 label of a frame number: `HH:MM:SS:FF`, `HH:MM:SS;FF` (drop-frame) at 30000/1001 and its multiples.

    Drop-frame skips the first two labels (per 30) of every minute that is not a multiple of ten.
    """
    nominal = max(1, round(fps))
    drop = nominal // 15 if fps.denominator == 1001 and nominal % 30 == 0 else 0
    if drop:
        per_minute, per_ten = nominal * 60 - drop, nominal * 600 - drop * 9
        tens, rest = divmod(frame, per_ten)
        frame += drop * 9 * tens + (drop * ((rest - drop) // per_minute) if rest >= drop else 0)
    seconds, frames = divmod(frame, nominal)
    digits = max(2, len(str(nominal - 1)))
    mark = ";" if drop else ":"
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{frames:0{digits}d}"


def format_timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None

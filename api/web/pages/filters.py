"""Template filters: numbers, sizes, times and parameters as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from shared.values import Run, StoredVideo, VideoFacts
from shared.values.runs import StageRecord


def describe_video(stored: StoredVideo) -> list[tuple[str, str]]:
    """What is known of a video, as (name, words)."""
    video = stored.facts
    tracks = [f"{a.codec}, {a.channels} ch, {a.sample_rate / 1000:g} kHz" for a in video.audio]
    facts = [
        ("Picture", f"{video.width} x {video.height}{_format_rotation(video)}"),
        ("Codec", f"{video.codec}, {video.bit_depth} bit, in {video.container}"),
        ("Frame rate", f"{format_rate(video.clock.fps)}{', varying' if video.clock.vfr else ''}"),
        ("Duration", f"{format_duration(video.duration)} ({video.frames:,} frames)"),
        ("Sound", "; ".join(tracks) or "none"),
        ("Size", format_size(stored.size)),
    ]
    return facts + ([("Damage", "cut off: the index speaks of more")] if video.truncated else [])


def _format_rotation(video: VideoFacts) -> str:
    return f", turned by {video.rotation}°" if video.rotation else ""


def format_size(count: int) -> str:
    """Bytes for people."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def format_duration(seconds: float | Fraction) -> str:
    """A length of time: `0.52 s`, `8.3 s`, `2:05`, `1:02:05`."""
    exact = float(seconds)
    if exact < 59.95:
        return f"{exact:.2f} s" if exact < 1 else f"{exact:.1f} s"
    minutes, remainder = divmod(round(exact), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{remainder:02d}" if minutes >= 60 else f"{minutes}:{remainder:02d}"


def format_remaining(seconds: float) -> str:
    """Time to go, without parts of a second: `18 s`, `2:05`."""
    return f"{math.ceil(seconds)} s" if seconds < 59 else format_duration(seconds)


def format_number(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def format_rate(fps: Fraction) -> str:
    """`23.976 fps`."""
    return f"{float(fps):.6g} fps" if fps else "unknown"


def find_running_stage(run: Run) -> StageRecord | None:
    """The stage that a run is in."""
    return next((stage for stage in run.stages if stage["state"] == "running"), None)


def format_param(value: Any) -> str:
    """A parameter."""
    if value is None or value in ([], ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


FILTERS: dict[str, Callable[..., Any]] = {
    "size": format_size,
    "lasting": format_duration,
    "remaining": format_remaining,
    "grouped": format_number,
    "rate": format_rate,
    "under_way": find_running_stage,
    "said": format_param,
}
"""Of the templates, by name."""

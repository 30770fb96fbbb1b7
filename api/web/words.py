"""Facts and numbers in words, as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from shared.values import Run, StoredVideo, Video


def facts(stored: StoredVideo) -> list[tuple[str, str]]:
    """What is known of a video, as (name, words)."""
    video = stored.video
    tracks = [f"{a.codec}, {a.channels} ch, {a.sample_rate / 1000:g} kHz" for a in video.audio]
    facts = [
        ("Picture", f"{video.width} x {video.height}{_turned(video)}"),
        ("Codec", f"{video.codec}, {video.bit_depth} bit, in {video.container}"),
        ("Frame rate", f"{rate(video.clock.fps)}{', varying' if video.clock.vfr else ''}"),
        ("Duration", f"{lasting(video.duration)} ({video.frames:,} frames)"),
        ("Sound", "; ".join(tracks) or "none"),
        ("Size", size(stored.size)),
    ]
    return facts + ([("Damage", "cut off: the index speaks of more")] if video.truncated else [])


def _turned(video: Video) -> str:
    return f", turned by {video.rotation}°" if video.rotation else ""


def size(count: int) -> str:
    """Bytes for people."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def lasting(seconds: float | Fraction) -> str:
    """A length of time: `0.52 s`, `8.3 s`, `2:05`, `1:02:05`."""
    exact = float(seconds)
    if exact < 59.95:
        return f"{exact:.2f} s" if exact < 1 else f"{exact:.1f} s"
    minutes, rest = divmod(round(exact), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def remaining(seconds: float) -> str:
    """Time to go, without parts of a second: `18 s`, `2:05`."""
    return f"{math.ceil(seconds)} s" if seconds < 59 else lasting(seconds)


def grouped(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def rate(fps: Fraction) -> str:
    """`23.976 fps`."""
    return f"{float(fps):.6g} fps" if fps else "unknown"


def under_way(run: Run) -> dict[str, Any] | None:
    """The stage that a run is in."""
    return next((stage for stage in run.stages if stage["state"] == "running"), None)


def said(value: Any) -> str:
    """A parameter."""
    if value is None or value in ([], ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


FILTERS: dict[str, Callable[..., Any]] = {
    "size": size,
    "lasting": lasting,
    "remaining": remaining,
    "grouped": grouped,
    "rate": rate,
    "under_way": under_way,
    "said": said,
}
"""Of the templates, by name."""

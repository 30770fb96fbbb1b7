"""What all measurements share: the clock, the median, the film."""

from __future__ import annotations

import importlib
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import imageio_ffmpeg

from shared.errors import InvalidRequest
from shared.values import Progress


class Quiet:
    """A report that nobody reads."""

    def progress(self, progress: Progress) -> None:
        """Not needed."""

    def note(self, action: str, **facts: Any) -> None:
        """Not needed."""


@dataclass(slots=True)
class Measured:
    """Seconds of one way of doing it, one entry a round."""

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Measure what happens within, as one more round."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        yield
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """Of this process and of the ones it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def ratio(base: Sequence[float], each: Sequence[float]) -> float:
    """Median of the ratios within each round."""
    return median(first / second for first, second in zip(base, each, strict=True))


def part(film: Path, start: float, seconds: float, folder: Path) -> Path:
    """So many seconds of a film, packets copied, from the key frame at or before `start`."""
    out = folder / "part.mkv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-ss", str(start), "-i", str(film)]
    subprocess.run([*command, "-map", "0:V:0", "-t", str(seconds), "-c", "copy", str(out)], check=True)
    return out


def sample() -> Path:
    """The clip that comes with the package iscc-samples; InvalidRequest where it is not installed."""
    if find_spec("iscc_samples") is None:
        raise InvalidRequest("Which film? Give --film, or install the extra `local`, which brings one.")
    samples: list[Path] = importlib.import_module("iscc_samples").videos()
    return next(path for path in samples if path.name == "demo.mp4")

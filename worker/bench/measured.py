"""What all measurements share: the clock, the median, the film."""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import imageio_ffmpeg
import typer

from shared.catalog import Params
from shared.errors import InvalidRequest
from shared.values import Progress
from worker.models.contract import Inputs, Model
from worker.pipeline import Execution, Stages, execute
from worker.video.probe import probe


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


@dataclass(slots=True)
class Served(Measured):
    """A room in one arithmetic, by the loop that serves.

    Args:
        model: the room, its network loaded.

    Attributes:
        parts: seconds of each stage, one entry a round.
    """

    model: Model = field(kw_only=True)
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, path: Path, params: Params, scratch: Path, inputs: Inputs | None = None) -> Execution:
        """One round, from the film to results; files into `scratch`, which is made."""
        scratch.mkdir(parents=True)
        with self.round():
            done = execute(self.model, path, probe(path), inputs or Inputs(), params, scratch, Stages(Quiet()))
        for stage in done.stages:
            self.parts[stage.name].append(stage.seconds or 0.0)
        return done


def head(film: str, frames: int, weights: str, title: str) -> None:
    """What was measured on what, and the names of the columns."""
    typer.echo(f"{film}: {frames} frames, {len(os.sched_getaffinity(0))} cores; weights {weights}\n")
    typer.echo(f"{title:34} {'wall s':>8} {'ratio':>7} {'CPU s':>8} {'ratio':>7}  rounds; seconds by part")


def row(base: Measured, each: Measured, parts: Mapping[str, Sequence[float]]) -> None:
    """Medians of one way, and how many times as fast as the first it is."""
    wall, cpu = median(each.wall), median(each.cpu)
    ratios = median(base.wall) / wall, median(base.cpu) / cpu
    said = ", ".join(f"{name} {median(seconds):.2f}" for name, seconds in parts.items() if median(seconds) >= 0.005)
    typer.echo(f"{each.name:34} {wall:8.2f} {ratios[0]:7.1f} {cpu:8.2f} {ratios[1]:7.1f}  {len(each.wall)}; {said}")


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

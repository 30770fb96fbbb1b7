"""`python -m tests.bench length`: what a model costs by the length of the video, each length in a process of its own.

The video is a short one, shown again and again. Time should grow with the length, and memory should not.
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
from tests.bench.masks import build_grounding, load_mttr_networks
from tests.bench.measurement import ModelMeasurement
from tests.bench.random_weights import load_networks
from worker.models.clip_it.network import ClipIt
from worker.models.contract import LoadedModel
from worker.runtime.placement import Placement, resolve_placement

MINUTES = (1.0, 10.0, 60.0)

VIDEO_HEIGHT = 180
"""Rows of the video's frames: what costs is to be the model and not the decoder."""

BENCHED_MODELS: dict[str, tuple[int, Params]] = {
    "clip_it": (24, ClipItParams(sentences=("a street at night",))),
    "mttr": (1, MttrParams(queries=("a man in a coat",), short_side=96)),
}
"""For each model: frames per second of the video, parameters of the run."""


def bench_length(model_name: str, video_path: Path, minutes: Sequence[float], rate: int | None) -> None:
    """Measure and print.

    Args:
        model_name: of the model.
        video_path: what is shown again and again.
        minutes: lengths.
        rate: frames per second; None: as in `BENCHED_MODELS`.
    """
    default_rate, params = BENCHED_MODELS[model_name]
    changed_params = params.model_dump(mode="json", exclude_defaults=True)
    typer.echo(f"{model_name} {changed_params}, {rate or default_rate} frames per second\n")
    columns = (("minutes", 8), ("frames", 8), ("wall s", 8), ("CPU s", 8), ("per min", 8), ("before MiB", 11))
    typer.echo(" ".join(f"{title:>{width}}" for title, width in (*columns, ("peak MiB", 9))) + "  by stage")
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        for length in minutes:
            path, out = Path(folder) / "video.mp4", Path(folder) / "measured.json"
            write_looped_video(video_path, path, rate or default_rate, length * 60)
            command = [sys.executable, "-m", "tests.bench", "length_of", model_name, str(path), str(out)]
            subprocess.run(command, check=True)
            measured = json.loads(out.read_text(encoding="utf-8"))
            stages = ", ".join(
                f"{stage} {seconds:.1f}" for stage, seconds in measured["stages"].items() if seconds >= 0.05
            )
            typer.echo(
                f"{length:8g} {measured['frames']:8d} {measured['wall']:8.1f} {measured['cpu']:8.1f} "
                f"{measured['cpu'] / length:8.2f} {measured['before']:11.0f} {measured['peak']:9.0f}  {stages}"
            )


def write_looped_video(video_path: Path, out: Path, rate: int, seconds: float) -> None:
    """Write `seconds` of a video that is repeated as often as needed, with its sound."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-nostdin",
        "-v",
        "error",
        "-y",
        "-stream_loop",
        "-1",
        "-i",
        str(video_path),
    ]
    video_options = [
        "-vf",
        f"fps={rate},scale=-2:{VIDEO_HEIGHT}",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        str(10 * rate),
    ]
    subprocess.run([*command, "-t", str(seconds), *video_options, "-c:a", "aac", "-b:a", "64k", str(out)], check=True)


def save_length(model_name: str, video_path: Path, out: Path) -> None:
    """One run of a model in this process: seconds and memory into a JSON file."""
    params, placement = BENCHED_MODELS[model_name][1], resolve_placement("cpu", "auto", "torch", 0)
    torch.set_num_threads(placement.threads)
    model = _build_model(model_name, placement)
    Path("/proc/self/clear_refs").write_text("5")  # what lies before does not count: proc(5)
    measurement, before = ModelMeasurement(model_name, model=model), _peak_memory_mib()
    with TemporaryDirectory(prefix="sceneworks-bench-") as folder:
        execution = measurement.run_round(video_path, params, Path(folder) / "run")
    stages = {stage.name: stage.seconds or 0.0 for stage in execution.stages}
    measured = {
        "frames": execution.frames,
        "wall": measurement.wall_seconds[0],
        "cpu": measurement.cpu_seconds[0],
        "before": before,
        "peak": _peak_memory_mib(),
        "stages": stages,
    }
    out.write_text(json.dumps(measured), encoding="utf-8")


def _build_model(model_name: str, placement: Placement) -> LoadedModel:
    """The model on this processor; only its own copy of the weights stays in memory."""
    if model_name == "mttr":
        mttr_networks = load_mttr_networks(placement)
        return mttr_networks.build_model(
            "mttr", placement.precision, build_grounding(mttr_networks, placement.precision)
        )
    return load_networks(model_name, ClipIt, placement).build_model(model_name, placement.precision)


def _peak_memory_mib() -> float:
    """MiB that this process has had in memory at most since that was last forgotten."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

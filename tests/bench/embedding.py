"""`python -m tests.bench r2plus1d`: from a video to its embedding, against the baseline, alternately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
import typer

from shared.catalog import R2plus1dParams
from tests.bench.baselines.embedding import EmbeddingBaseline
from tests.bench.measurement import Measurement, ModelMeasurement, cut_part, print_header, print_row
from tests.bench.random_weights import load_networks
from worker.models.contract import LoadedModel, WindowOutput
from worker.models.r2plus1d.network import R2Plus1D
from worker.pipeline.execute import Execution
from worker.runtime.placement import resolve_placement

PARAMS = R2plus1dParams()

Floats = npt.NDArray[np.float32]


def bench_r2plus1d(video_path: Path, start: float, seconds: float | None, rounds: int, baseline_rounds: int) -> None:
    """Measure and print.

    Args:
        video_path: a video.
        start, seconds: the part of it; None: all.
        rounds, baseline_rounds: how often ours and the baseline are measured.
    """
    placement = resolve_placement("cpu", "auto", "torch", 0)
    torch.set_num_threads(placement.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = cut_part(video_path, start, seconds, folder) if seconds else video_path
        bench_networks = load_networks("r2plus1d", R2Plus1D, placement)
        baseline, baseline_measurement = EmbeddingBaseline(bench_networks.baseline), Measurement("baseline, fp32")
        measurements = [
            ModelMeasurement(f"ours, {precision}", model=bench_networks.build_model("r2plus1d", precision))
            for precision in bench_networks.by_precision
        ]
        executions: list[Execution] = []
        for turn in range(max(rounds, baseline_rounds)):
            if turn < baseline_rounds:
                with baseline_measurement.measure_round():
                    baseline.run_pipeline(path)
            if turn < rounds:
                executions = [
                    measurement.run_round(path, PARAMS, folder / f"{number} {turn}")
                    for number, measurement in enumerate(measurements)
                ]
        print_header(video_path.name, baseline.frame_count, bench_networks.weights_label, "video to embedding")
        print_row(baseline_measurement, baseline_measurement, baseline.step_seconds)
        for measurement in measurements:
            print_row(baseline_measurement, measurement, measurement.stage_seconds)
        _print_differences(baseline, measurements, executions)


def _print_differences(
    baseline: EmbeddingBaseline, measurements: Sequence[ModelMeasurement], executions: Sequence[Execution]
) -> None:
    """Compare the embeddings with that of the baseline: on the clips that it saw, then of the whole runs."""
    difference = relative_difference(compute_embedding(measurements[0].model, baseline), baseline.embedding)
    typer.echo(f"\nours, fp32, on the same clips: within {difference:.2g} of the largest value")
    for measurement, execution in zip(measurements, executions, strict=True):
        embedding = np.array(execution.outcome.embeddings[0].vector, np.float32)
        difference = relative_difference(embedding, baseline.embedding)
        typer.echo(f"{measurement.name}, on its own clips: within {difference:.2g} of it")


def compute_embedding(model: LoadedModel, baseline: EmbeddingBaseline) -> Floats:
    """What the model makes of the clips that the baseline saw: (2048,)."""
    definition, network = model.definition, model.get_network(PARAMS)
    values = np.concatenate([definition.encode(network, clip_THWC[None], PARAMS) for clip_THWC in baseline.clips])
    embedding: Floats = definition.infer(
        network, [WindowOutput(at, at + 1, value) for at, value in enumerate(values)], PARAMS
    )[0]
    return embedding


def relative_difference(measured: Floats, expected: Floats) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(measured - expected).max() / np.abs(expected).max())

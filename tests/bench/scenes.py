"""`python -m tests.bench bassl`: from a video to scenes, against the way of the published pipeline, alternately.

Ours is `shots` with `hsv_luv`, keyframes and contact sheet included, then `bassl` from those keyframes, by the loop
that serves. Both sides have the same weights, loaded before the clock starts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer

from shared.catalog import BasslParams, ShotsParams
from shared.settings import get_settings
from shared.values import Result, Stage
from tests.bench.baselines.scenes import ImageArrays, SceneBaseline, Scores, Span
from tests.bench.measurement import Measurement, SilentReporter, cut_part
from tests.bench.random_weights import RANDOM_WEIGHTS, randomize_weights
from worker.models import load_definition
from worker.models.bassl.config import KEYFRAMES_PER_SHOT
from worker.models.bassl.network import BaSSL
from worker.models.bassl.weights import WEIGHTS_MANIFEST
from worker.models.contract import LoadedModel, RunInputs, WindowOutput
from worker.pipeline import StageTracker
from worker.pipeline.execute import execute_run
from worker.runtime.placement import Placement, resolve_placement
from worker.video.probe import probe_video
from worker.weights import find_card, import_weights, load_imported
from worker.weights.pinned import state_shapes

KEYFRAMES_PER_BATCH = 32
"""Keyframes that go through the encoder together when the baseline's are scored by ours."""
SHOTS_PARAMS = ShotsParams(detector="hsv_luv")


@dataclass(slots=True)
class SceneMeasurement(Measurement):
    """Both models in one precision, and the results of the last round.

    Args:
        shots, bassl: the models, their networks loaded.
    """

    shots: LoadedModel = field(kw_only=True)
    bassl: LoadedModel = field(kw_only=True)
    spans: list[Span] = field(default_factory=list)
    scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))
    encoded_keyframes: int = 0
    stage_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run_models(self, path: Path, scratch: Path) -> None:
        """From the video to scenes; files into `scratch`."""
        video, params = probe_video(path), BasslParams()
        folders = [scratch / name for name in ("shots", "scenes")]
        for folder in folders:
            folder.mkdir(parents=True)
        first = execute_run(
            self.shots, path, video, RunInputs(), SHOTS_PARAMS, folders[0], StageTracker(SilentReporter())
        )
        rows, files = first.outcome.results, {file.kind: file.path for file in first.outcome.files}
        inputs = RunInputs({"shots": rows}, {"shots": files})
        second = execute_run(self.bassl, path, video, inputs, params, folders[1], StageTracker(SilentReporter()))
        boundaries = [row for row in second.outcome.results if row.kind == "boundary"]
        self.spans, self.scores = (
            list(_boundary_spans(boundaries)),
            np.array([row.score for row in boundaries], np.float32),
        )
        stages = {stage.name: stage for stage in second.stages}
        self.encoded_keyframes = stages["encode"].done
        self.stage_seconds["decode, cuts, keyframes, sheet"].append(_total_seconds(first.stages))
        self.stage_seconds["encode keyframes"].append(stages["encode"].seconds or 0.0)
        self.stage_seconds["context network"].append(stages["infer"].seconds or 0.0)

    def score_keyframes(self, keyframes_NKHWC: ImageArrays) -> Scores:
        """What the model says of other keyframes (N, 3, 224, 224, 3) -> (N,)."""
        definition, params, network = self.bassl.definition, BasslParams(), self.bassl.get_network(BasslParams())
        each_PTHWC = keyframes_NKHWC.reshape(-1, 1, *keyframes_NKHWC.shape[2:])
        parts = [
            definition.encode(network, each_PTHWC[at : at + KEYFRAMES_PER_BATCH], params)
            for at in range(0, len(each_PTHWC), KEYFRAMES_PER_BATCH)
        ]
        outputs = [WindowOutput(at, at + 1, value) for at, value in enumerate(np.concatenate(parts))]
        scores_N: Scores = definition.infer(network, outputs, params).probabilities
        return scores_N


@dataclass(frozen=True, slots=True)
class SceneComparison:
    """All that was measured.

    Args:
        frames: of the video, as the baseline counts them.
        baseline, baseline_measurement: the baseline, and its seconds.
        measurements: in fp32 first, then in bf16 where this processor has it.
        weights_label: in words: which.
    """

    frames: int
    baseline: SceneBaseline
    baseline_measurement: Measurement
    measurements: tuple[SceneMeasurement, ...]
    weights_label: str

    @property
    def same_keyframes_difference(self) -> float:
        """Largest difference of the scores in fp32, both sides looking at the same keyframe frames."""
        return _max_difference(self.baseline.scores, self.measurements[0].score_keyframes(self.baseline.keyframes))


def bench_bassl(video_path: Path, start: float, seconds: float, rounds: int, baseline_rounds: int) -> SceneComparison:
    """Measure and print.

    Args:
        video_path: a video.
        start, seconds: the part of it.
        rounds, baseline_rounds: how often ours and the baseline are measured.
    """
    placement = resolve_placement("cpu", "auto", "torch", 0)
    torch.set_num_threads(placement.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = cut_part(video_path, start, seconds, folder)
        weights, weights_label = _prepare_weights(folder)
        baseline, measurements = _build_baseline(weights), tuple(_build_measurements(weights, placement))
        baseline_measurement = Measurement("baseline, fp32")
        for turn in range(max(rounds, baseline_rounds)):
            if turn < baseline_rounds:
                with baseline_measurement.measure_round():
                    baseline.run_pipeline(path)
            for measurement in measurements if turn < rounds else ():
                with measurement.measure_round():
                    measurement.run_models(path, folder / f"{measurement.name} {turn}")
    comparison = SceneComparison(baseline.spans[-1][1], baseline, baseline_measurement, measurements, weights_label)
    _print_comparison(video_path.name, comparison)
    return comparison


def _build_measurements(weights: Path, placement: Placement) -> Iterator[SceneMeasurement]:
    for precision in dict.fromkeys(["fp32", placement.precision]):
        precision_placement = Placement("cpu", precision, "torch", placement.threads)
        models = [LoadedModel(load_definition(name), precision_placement, (weights,)) for name in ("shots", "bassl")]
        models[1].get_network(BasslParams())
        yield SceneMeasurement(f"ours, {precision}", shots=models[0], bassl=models[1])


def _build_baseline(weights: Path) -> SceneBaseline:
    with torch.device("meta"):
        network = BaSSL()
    state = load_imported(WEIGHTS_MANIFEST.spec, [weights], state_shapes(network))
    network.load_state_dict(state, strict=True, assign=True)
    return SceneBaseline(network.eval().requires_grad_(False))


def _prepare_weights(scratch: Path) -> tuple[Path, str]:
    """The folder of the imported weights, or one with weights drawn now; and in words which."""
    folder = get_settings().weights_dir
    if find_card(WEIGHTS_MANIFEST.spec, [folder]) is not None:
        return folder, "imported"
    file = scratch / WEIGHTS_MANIFEST.tensor_files[0].name
    torch.save(randomize_weights(BaSSL()).state_dict(), file)
    import_weights(WEIGHTS_MANIFEST, [file], scratch, datetime.now(UTC))
    return scratch, RANDOM_WEIGHTS


def _print_comparison(video_name: str, comparison: SceneComparison) -> None:
    cores, shots = len(os.sched_getaffinity(0)), len(comparison.baseline.spans)
    typer.echo(
        f"{video_name}: {comparison.frames} frames, {shots} shots, {cores} cores; weights {comparison.weights_label}"
    )
    baseline_rounds = len(comparison.baseline_measurement.wall_seconds)
    own_rounds = len(comparison.measurements[0].wall_seconds)
    typer.echo(f"medians of rounds: {baseline_rounds} of the baseline, {own_rounds} of ours\n")
    typer.echo(f"{'video to scenes':22} {'wall s':>8} {'ratio':>6} {'CPU s':>8} {'ratio':>6}  encoded; seconds by part")
    window = comparison.measurements[0].bassl.get_network(BasslParams()).network.window
    _print_row(
        comparison.baseline_measurement,
        comparison.baseline_measurement,
        shots * window * KEYFRAMES_PER_SHOT,
        comparison.baseline.step_seconds,
    )
    for measurement in comparison.measurements:
        _print_row(
            comparison.baseline_measurement, measurement, measurement.encoded_keyframes, measurement.stage_seconds
        )
    low, high = float(comparison.baseline.scores.min()), float(comparison.baseline.scores.max())
    typer.echo(f"\nscores of the baseline: {low:.4f} to {high:.4f}")
    typer.echo(f"ours, fp32, on the same keyframes: within {comparison.same_keyframes_difference:.2g}")
    for measurement in comparison.measurements:
        difference = _describe_own_difference(comparison.baseline, measurement)
        typer.echo(f"{measurement.name}, on its own keyframes: {difference}")


def _print_row(base: Measurement, measurement: Measurement, encoded: int, parts: Mapping[str, Sequence[float]]) -> None:
    wall, cpu = median(measurement.wall_seconds), median(measurement.cpu_seconds)
    ratios = median(base.wall_seconds) / wall, median(base.cpu_seconds) / cpu
    parts_text = ", ".join(f"{name} {median(seconds):.1f}" for name, seconds in parts.items())
    columns = f"{wall:8.1f} {ratios[0]:6.1f} {cpu:8.1f} {ratios[1]:6.1f}"
    typer.echo(f"{measurement.name:22} {columns}  {encoded} keyframes; {parts_text}")


def _describe_own_difference(baseline: SceneBaseline, measurement: SceneMeasurement) -> str:
    """In words: what reading, scaling and storing keyframes in another way does to the scores."""
    if baseline.spans != measurement.spans:
        return f"{len(set(measurement.spans) - set(baseline.spans))} of {len(measurement.spans)} shots are others"
    return f"the same shots, scores within {_max_difference(baseline.scores, measurement.scores):.2g}"


def _max_difference(one: Scores, other: Scores) -> float:
    return float(np.abs(one - other).max())


def _boundary_spans(rows: Sequence[Result]) -> Iterator[Span]:
    for row in rows:
        if row.range is not None:
            yield row.range.start.frame, row.range.end.frame


def _total_seconds(stages: Sequence[Stage]) -> float:
    return sum(stage.seconds or 0.0 for stage in stages)

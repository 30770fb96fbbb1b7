"""`python -m tests.bench clip_it`: from a video to its summary, against the baseline, alternately.

Neither side renders the summary video. The second query reuses the features of the first run; the published pipeline
starts from the beginning for each query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import typer

from shared.catalog import ClipItParams
from tests.bench.baselines.summaries import SummaryBaseline
from tests.bench.measurement import Measurement, ModelMeasurement, cut_part, print_header, print_row
from tests.bench.random_weights import BenchNetworks, load_networks, randomize_weights
from worker.models.clip_it.network import ClipIt, FrameScorer
from worker.models.clip_it.summary import VideoSummary
from worker.models.contract import LoadedModel, RunInputs, WindowOutput
from worker.pipeline.execute import Execution
from worker.runtime.placement import resolve_placement

FIRST_QUERY = ClipItParams(sentences=("a rabbit comes out of its hole",), summary_video=False)
SECOND_QUERY = ClipItParams(sentences=("butterflies over a meadow",), summary_video=False)
FRAMES_PER_BATCH = 8
"""That go through CLIP together when the baseline's are scored by ours."""


@dataclass(slots=True)
class TwoQueryMeasurement:
    """A model that runs two queries on a video, and its first result.

    Args:
        first, second: the measurement of each query.
    """

    first: ModelMeasurement
    second: ModelMeasurement
    first_execution: Execution | None = None

    def run_both(self, path: Path, scratch: Path) -> None:
        """Run both queries once."""
        self.first_execution = self.first.run_round(path, FIRST_QUERY, scratch / "first")
        cached_files = {file.kind: file.path for file in self.first_execution.outcome.files}
        self.second.run_round(path, SECOND_QUERY, scratch / "second", RunInputs(cached_files=cached_files))


def bench_clip_it(video_path: Path, start: float, seconds: float | None, rounds: int, baseline_rounds: int) -> None:
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
        bench_networks = load_networks("clip_it", ClipIt, placement)
        baseline, measurements = (
            _build_baseline(bench_networks),
            [_build_measurement(bench_networks, precision) for precision in bench_networks.by_precision],
        )
        baseline_measurement = Measurement("baseline, fp32")
        for turn in range(max(rounds, baseline_rounds)):
            if turn < baseline_rounds:
                with baseline_measurement.measure_round():
                    baseline.run_pipeline(path, FIRST_QUERY.sentences)
            for number, measurement in enumerate(measurements if turn < rounds else ()):
                measurement.run_both(path, folder / f"{number} {turn}")
        print_header(video_path.name, baseline.frame_count, bench_networks.weights_label, "video to summary")
        print_row(baseline_measurement, baseline_measurement, baseline.step_seconds)
        for query_measurement in (
            query_measurement
            for measurement in measurements
            for query_measurement in (measurement.first, measurement.second)
        ):
            print_row(baseline_measurement, query_measurement, query_measurement.stage_seconds)
        for line in _describe_agreement(baseline, measurements):
            typer.echo(line)


def _build_baseline(bench_networks: BenchNetworks[ClipIt]) -> SummaryBaseline:
    """With a decoder of any weights: no score depends on it, but the published pipeline computes it."""
    scorer = randomize_weights(FrameScorer())
    scorer.load_state_dict(bench_networks.baseline.scorer.state_dict(), strict=False)
    return SummaryBaseline(bench_networks.baseline.clip, scorer.eval().requires_grad_(False))


def _build_measurement(bench_networks: BenchNetworks[ClipIt], precision: str) -> TwoQueryMeasurement:
    name, model = f"ours, {precision}", bench_networks.build_model("clip_it", precision)
    return TwoQueryMeasurement(
        ModelMeasurement(name, model=model), ModelMeasurement(f"{name}, second query", model=model)
    )


def compute_summary(model: LoadedModel, baseline: SummaryBaseline) -> VideoSummary:
    """What the model makes of the frames that the baseline saw."""
    definition, network = model.definition, model.get_network(FIRST_QUERY)
    each_T1HWC = baseline.sampled_frames[:, None]
    values = [
        definition.encode(network, each_T1HWC[at : at + FRAMES_PER_BATCH], FIRST_QUERY)
        for at in range(0, len(each_T1HWC), FRAMES_PER_BATCH)
    ]
    starts = [*range(0, baseline.frame_count, FIRST_QUERY.sample_every), baseline.frame_count]
    outputs = [WindowOutput(*window) for window in zip(starts, starts[1:], np.concatenate(values), strict=False)]
    summary: VideoSummary = definition.infer(network, outputs, FIRST_QUERY)
    return summary


def _describe_agreement(baseline: SummaryBaseline, measurements: Sequence[TwoQueryMeasurement]) -> Iterator[str]:
    """In words: how far the answers are from those of the baseline."""
    same_frames_summary = compute_summary(measurements[0].first.model, baseline)
    worst = float(np.abs(same_frames_summary.scores - baseline.scores).max())
    chosen = list(same_frames_summary.selection.segments) if same_frames_summary.selection.rule == "knapsack" else []
    yield f"\nscores of the baseline: {baseline.scores.min():.4f} to {baseline.scores.max():.4f}"
    yield (
        f"ours, fp32, on the same frames: scores within {worst:.2g}; "
        f"{_same_or_other(list(same_frames_summary.segments), baseline.segments)} segments, "
        f"{_same_or_other(chosen, baseline.selected_segments)} of them in the summary"
    )
    for measurement in measurements:
        if measurement.first_execution is not None:
            rows = measurement.first_execution.outcome.results
            scores_T = np.array([row.score for row in rows if row.kind == "frame_score"])
            spans = [
                (row.range.start.frame, row.range.end.frame) for row in rows if row.kind == "segment" and row.range
            ]
            lost = len(set(baseline.segments) - set(spans))
            agreement = (
                f"within {np.abs(scores_T - baseline.scores).max():.2g}"
                if len(scores_T) == len(baseline.scores)
                else "of others"
            )
            yield f"{measurement.first.name}, on its own frames: scores {agreement}; {lost} of the segments are others"


def _same_or_other(measured: Sequence[object], expected: Sequence[object]) -> str:
    """Say whether two lists are equal, and how long the expected one is."""
    return f"{'the same' if measured == expected else 'OTHER'} {len(expected)}"

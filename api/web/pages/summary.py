"""The summary on the page of a job: the scores over the video as a curve, the highlights, and the captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from api.http.context import get_services
from api.results.selection import EVERY_ROW
from api.web.pages.shots import select_run
from shared.store import results
from shared.store.results import RunResult
from shared.values import Artifact, Job, Run, TimeRange

MAX_CURVE_POINTS = 1500
"""Steps of a curve: more than most screens have columns."""


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """Scores over time as paths of a drawing: x is seconds, y goes from 0 (the highest score) down to 10 (the lowest).

    Args:
        line: the scores, each from its sampled frame to the next one.
        ticks: where the segments of the video begin.
        lowest, highest: the scores at the edges of the drawing.
    """

    line: str
    ticks: str
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class SummaryView:
    """The summary of one run.

    Args:
        runs: every run of the job that has a summary, this one included.
        highlights: with ranges, in order.
        captions: the sentences that guided it.
        summary_video, poster: ids of artifacts; None where there are none.
    """

    run: Run
    runs: tuple[Run, ...]
    highlights: tuple[RunResult, ...]
    captions: tuple[RunResult, ...]
    curve: ScoreCurve | None
    summary_video: str | None
    poster: str | None

    @property
    def seconds(self) -> Fraction:
        """Length of the highlights together."""
        return sum((row.result.range.seconds for row in self.highlights if row.result.range), Fraction(0))


def load_summary_view(job: Job, files: Sequence[tuple[str, str, Artifact]]) -> SummaryView | None:
    """Load the summary of the requested run, or of the first that has one; None while there is none."""
    run, runs = select_run(job, "highlight", "summary")
    if run is None:
        return None
    artifact_ids = {file.kind: file.id for run_id, _, file in files if run_id == run.id}
    return SummaryView(
        run=run,
        runs=runs,
        highlights=_load_results(job, run, "highlight"),
        captions=_load_results(job, run, "caption"),
        curve=build_score_curve(
            results.load_score_curve(get_services().engine, job.id, run.id, "frame_score", MAX_CURVE_POINTS),
            _load_results(job, run, "segment"),
        ),
        summary_video=artifact_ids.get("summary_video"),
        poster=artifact_ids.get("poster"),
    )


def _load_results(job: Job, run: Run, kind: str) -> tuple[RunResult, ...]:
    return tuple(results.list_results(get_services().engine, job.id, run_id=run.id, kind=kind, limit=EVERY_ROW))


def build_score_curve(scores: Sequence[tuple[TimeRange, float]], segments: Sequence[RunResult]) -> ScoreCurve | None:
    """Build the curve of the scores over the segments of the video; None without scores."""
    if not scores:
        return None
    lowest, highest = min(score for _, score in scores), max(score for _, score in scores)
    height = highest - lowest
    points = []
    for span, score in scores:
        y = round(10 * (highest - score) / height, 3) if height else 5.0
        points.append(f"{float(span.start.seconds):.3f} {y:g}H{float(span.end.seconds):.3f}")
    starts = [float(row.result.range.start.seconds) for row in segments if row.result.range]
    return ScoreCurve("M" + "L".join(points), "".join(f"M{start:.3f} 0V10" for start in starts), lowest, highest)

"""A summary on the page of a job: the scores over the film as a curve, what was chosen, and the words that asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from api.results.chosen import EVERY_ROW
from api.service.health import services
from api.web.film import picked
from shared.store import results
from shared.store.results import Found
from shared.values import Artifact, Job, Run, TimeRange

POINTS = 1500
"""Steps of a curve: more than most screens have columns."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores over time as paths of a drawing: x is seconds, y goes from 0 (the highest score) down to 10 (the lowest).

    Args:
        line: the scores, each from its sampled frame to the next one.
        ticks: where the segments of the film begin.
        lowest, highest: the scores at the edges of the drawing.
    """

    line: str
    ticks: str
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The answer to one question about a film.

    Args:
        runs: every run of the job that made a summary, this one included.
        highlights: with ranges, in order.
        captions: the sentences that guided it.
        film, poster: ids of artifacts; None where there are none.
    """

    run: Run
    runs: tuple[Run, ...]
    highlights: tuple[Found, ...]
    captions: tuple[Found, ...]
    curve: Curve | None
    film: str | None
    poster: str | None

    @property
    def seconds(self) -> Fraction:
        """Length of the highlights together."""
        return sum((one.result.range.seconds for one in self.highlights if one.result.range), Fraction(0))


def summary(job: Job, files: Sequence[tuple[str, str, Artifact]]) -> Summary | None:
    """The summary of the run asked for, or of the first that made one; None while there is none."""
    run, runs = picked(job, "highlight", "summary")
    if run is None:
        return None
    mine = {file.kind: file.id for run_id, _, file in files if run_id == run.id}
    return Summary(
        run=run,
        runs=runs,
        highlights=_rows(job, run, "highlight"),
        captions=_rows(job, run, "caption"),
        curve=curve(
            results.curve(services().engine, job.id, run.id, "frame_score", POINTS), _rows(job, run, "segment")
        ),
        film=mine.get("summary_film"),
        poster=mine.get("poster"),
    )


def _rows(job: Job, run: Run, kind: str) -> tuple[Found, ...]:
    return tuple(results.page(services().engine, job.id, run_id=run.id, kind=kind, limit=EVERY_ROW))


def curve(scores: Sequence[tuple[TimeRange, float]], segments: Sequence[Found]) -> Curve | None:
    """The curve of these scores over the segments of the film; None without scores."""
    if not scores:
        return None
    lowest, highest = min(score for _, score in scores), max(score for _, score in scores)
    height = highest - lowest
    points = []
    for span, score in scores:
        y = round(10 * (highest - score) / height, 3) if height else 5.0
        points.append(f"{float(span.start.seconds):.3f} {y:g}H{float(span.end.seconds):.3f}")
    starts = [float(one.result.range.start.seconds) for one in segments if one.result.range]
    return Curve("M" + "L".join(points), "".join(f"M{start:.3f} 0V10" for start in starts), lowest, highest)

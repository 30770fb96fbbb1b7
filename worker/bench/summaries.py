"""`sceneworks-worker bench clip_it`: from a film to its summary, against the published pipeline's way, by turns.

The film of the summary is not made on either side. The second question is asked of what the first run kept; the
published pipeline begins anew for each.
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
from worker.bench.drawn import Networks, drawn, networks
from worker.bench.measured import Measured, Served, head, part, row
from worker.bench.published.summaries import PublishedSummary
from worker.models.clip_it.network import ClipIt, Scorer
from worker.models.clip_it.summary import Summary
from worker.models.contract import Inputs, Model, Piece
from worker.models.placement import place
from worker.pipeline import Execution

FIRST = ClipItParams(sentences=("a rabbit comes out of its hole",), film=False)
SECOND = ClipItParams(sentences=("butterflies over a meadow",), film=False)
PICTURES = 8
"""That go through CLIP together when the published way's are scored by ours."""


@dataclass(slots=True)
class Asked:
    """A room that is asked twice about a film, and what it answered first.

    Args:
        first, second: both questions.
    """

    first: Served
    second: Served
    found: Execution | None = None

    def run(self, path: Path, scratch: Path) -> None:
        """Both questions once."""
        self.found = self.first.run(path, FIRST, scratch / "first")
        kept = {file.kind: file.path for file in self.found.outcome.files}
        self.second.run(path, SECOND, scratch / "second", Inputs(kept=kept))


def bench_clip_it(film: Path, start: float, seconds: float | None, rounds: int, published_rounds: int) -> None:
    """Measure and print.

    Args:
        film: a video.
        start, seconds: the part of it; None: all.
        rounds, published_rounds: how often ours and the published way are measured.
    """
    here = place("cpu", "auto", "torch", 0)
    torch.set_num_threads(here.threads)
    with TemporaryDirectory(prefix="sceneworks-bench-") as name:
        folder = Path(name)
        path = part(film, start, seconds, folder) if seconds else film
        both = networks("clip_it", ClipIt, here)
        way, ours = _published(both), [_ours(both, precision) for precision in both.placed]
        published = Measured("published way, fp32")
        for turn in range(max(rounds, published_rounds)):
            if turn < published_rounds:
                with published.round():
                    way.run(path, FIRST.sentences)
            for number, each in enumerate(ours if turn < rounds else ()):
                each.run(path, folder / f"{number} {turn}")
        head(film.name, way.frames, both.weights, "film to summary")
        row(published, published, way.parts)
        for served in (served for each in ours for served in (each.first, each.second)):
            row(published, served, served.parts)
        for line in _agreement(way, ours):
            typer.echo(line)


def _published(both: Networks[ClipIt]) -> PublishedSummary:
    """With a decoder of any weights: no score depends on it, but the published pipeline computes it."""
    scorer = drawn(Scorer())
    scorer.load_state_dict(both.published.scorer.state_dict(), strict=False)
    return PublishedSummary(both.published.clip, scorer.eval().requires_grad_(False))


def _ours(both: Networks[ClipIt], precision: str) -> Asked:
    name, model = f"ours, {precision}", both.model("clip_it", precision)
    return Asked(Served(name, model=model), Served(f"{name}, second question", model=model))


def summary_of(model: Model, way: PublishedSummary) -> Summary:
    """What the room makes of the pictures that the published way saw."""
    room, network = model.room, model.network(FIRST)
    each_T1HWC = way.pictures[:, None]
    values = [room.encode(network, each_T1HWC[at : at + PICTURES], FIRST) for at in range(0, len(each_T1HWC), PICTURES)]
    starts = [*range(0, way.frames, FIRST.sample_every), way.frames]
    pieces = [Piece(*place) for place in zip(starts, starts[1:], np.concatenate(values), strict=False)]
    summary: Summary = room.infer(network, pieces, FIRST)
    return summary


def _agreement(way: PublishedSummary, ours: Sequence[Asked]) -> Iterator[str]:
    """In words: how far the answers are from those of the published way."""
    same = summary_of(ours[0].first.model, way)
    worst = float(np.abs(same.scores - way.scores).max())
    chosen = list(same.selection.segments) if same.selection.rule == "knapsack" else []
    yield f"\nscores of the published way: {way.scores.min():.4f} to {way.scores.max():.4f}"
    yield (
        f"ours, fp32, on the same pictures: scores within {worst:.2g}; "
        f"{'the same' if list(same.segments) == way.segments else 'OTHER'} {len(way.segments)} segments, "
        f"{'the same' if chosen == way.chosen else 'OTHER'} {len(way.chosen)} of them in the summary"
    )
    for each in ours:
        if each.found is not None:
            rows = each.found.outcome.results
            scores_T = np.array([row.score for row in rows if row.kind == "frame_score"])
            spans = [
                (row.range.start.frame, row.range.end.frame) for row in rows if row.kind == "segment" and row.range
            ]
            lost = len(set(way.segments) - set(spans))
            said = (
                f"within {np.abs(scores_T - way.scores).max():.2g}" if len(scores_T) == len(way.scores) else "of others"
            )
            yield f"{each.first.name}, on its own pictures: scores {said}; {lost} of the segments are others"

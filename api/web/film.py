"""A film on the page of a job: its shots by pages, and its scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import request

from api.errors import page, read_token
from api.results.chosen import EVERY_ROW, finished
from api.service.health import services
from shared.store import results
from shared.store.results import Found
from shared.values import Artifact, Job, Run

SHOTS = 300
"""On one page of the filmstrip."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One shot of the filmstrip; times are seconds since the first frame, the end exclusive."""

    number: int
    start: float
    end: float
    timecode: str
    frames: int
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Film:
    """A page of the shots of one run.

    Args:
        runs: every run of the job that has shots to show, this one included.
        more: address of the next page; None on the last.
    """

    run: Run
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    more: str | None


@dataclass(frozen=True, slots=True)
class Scenes:
    """The scenes of one run; `runs` are all that have some, this one included."""

    run: Run
    runs: tuple[Run, ...]
    rows: tuple[Found, ...]


def picked(job: Job, kind: str, argument: str) -> tuple[Run | None, tuple[Run, ...]]:
    """The finished run with results of that kind that the address names by `argument`, or the first; and all such."""
    done = finished(job, kind)
    wanted = request.args.get(argument)
    return next((run for run in done if wanted in {None, run.id}), None), tuple(done)


def film(job: Job, files: Sequence[tuple[str, str, Artifact]]) -> Film | None:
    """The shots of the run asked for, or of the first that has some; None while there are none."""
    run, done = picked(job, "shot", "run")
    if run is None:
        return None
    after = read_token("shots", request.args.get("after"), (int, str, int))
    found = results.page(services().engine, job.id, run_id=run.id, kind="shot", limit=SHOTS + 1, after=after)
    shots, token, _ = page("shots", found, SHOTS, lambda one: one.cursor)
    archive = next((file.id for run_id, _, file in files if (run_id, file.kind) == (run.id, "keyframes")), None)
    return Film(
        run=run,
        runs=done,
        cells=tuple(_cell(shot, archive) for shot in shots),
        more=f"/jobs/{job.id}?run={run.id}&after={token}" if token else None,
    )


def scenes(job: Job) -> Scenes | None:
    """The scenes of the run asked for, or of the first that has some; None while there are none."""
    run, done = picked(job, "scene", "scenes")
    if run is None:
        return None
    rows = results.page(services().engine, job.id, run_id=run.id, kind="scene", limit=EVERY_ROW)
    return Scenes(run, done, tuple(rows))


def _cell(found: Found, archive: str | None) -> Cell:
    """A shot with its keyframes, which have MovieNet's names."""
    shot, span = found.result, found.result.range
    if span is None:
        raise ValueError(f"shot {shot.seq} of {found.run_id} has no times")
    names = [f"shot_{shot.seq:04d}_img_{image}.jpg" for image in range(3)] if archive else []
    return Cell(
        number=shot.seq + 1,
        start=round(float(span.start.seconds), 6),
        end=round(float(span.end.seconds), 6),
        timecode=span.start.timecode,
        frames=span.frames,
        pictures=tuple(f"/v1/artifacts/{archive}/members/{name}" for name in names),
    )

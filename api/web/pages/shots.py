"""The video on the page of a job: its shots in pages, and its scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import request

from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.results.selection import EVERY_ROW, list_finished_runs
from shared.store import results
from shared.store.results import RunResult
from shared.values import Artifact, Job, Run

SHOTS_PER_PAGE = 300
"""On one page of the filmstrip."""


@dataclass(frozen=True, slots=True)
class ShotCell:
    """One shot of the filmstrip; times are seconds since the first frame, the end exclusive."""

    number: int
    start: float
    end: float
    timecode: str
    frames: int
    keyframe_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShotsView:
    """A page of the shots of one run.

    Args:
        runs: every run of the job that has shots to show, this one included.
        next_url: address of the next page; None on the last.
    """

    run: Run
    runs: tuple[Run, ...]
    cells: tuple[ShotCell, ...]
    next_url: str | None


@dataclass(frozen=True, slots=True)
class ScenesView:
    """The scenes of one run; `runs` are all that have some, this one included."""

    run: Run
    runs: tuple[Run, ...]
    rows: tuple[RunResult, ...]


def select_run(job: Job, kind: str, argument: str) -> tuple[Run | None, tuple[Run, ...]]:
    """The finished run with results of that kind that the address names by `argument`, or the first; and all such."""
    finished_runs = list_finished_runs(job, kind)
    requested = request.args.get(argument)
    return next((run for run in finished_runs if requested in {None, run.id}), None), tuple(finished_runs)


def load_shots_view(job: Job, files: Sequence[tuple[str, str, Artifact]]) -> ShotsView | None:
    """Load the shots of the requested run, or of the first that has some; None while there are none."""
    run, finished_runs = select_run(job, "shot", "run")
    if run is None:
        return None
    after = read_page_token("shots", request.args.get("after"), (int, str, int))
    rows = results.list_results(
        get_services().engine, job.id, run_id=run.id, kind="shot", limit=SHOTS_PER_PAGE + 1, after=after
    )
    shots, token, _ = paginate_items("shots", rows, SHOTS_PER_PAGE, lambda row: row.cursor)
    keyframes_id = next((file.id for run_id, _, file in files if (run_id, file.kind) == (run.id, "keyframes")), None)
    return ShotsView(
        run=run,
        runs=finished_runs,
        cells=tuple(_build_shot_cell(shot, keyframes_id) for shot in shots),
        next_url=f"/jobs/{job.id}?run={run.id}&after={token}" if token else None,
    )


def load_scenes_view(job: Job) -> ScenesView | None:
    """Load the scenes of the requested run, or of the first that has some; None while there are none."""
    run, finished_runs = select_run(job, "scene", "scenes")
    if run is None:
        return None
    rows = results.list_results(get_services().engine, job.id, run_id=run.id, kind="scene", limit=EVERY_ROW)
    return ScenesView(run, finished_runs, tuple(rows))


def _build_shot_cell(row: RunResult, keyframes_id: str | None) -> ShotCell:
    """A shot with its keyframes, which have MovieNet's names."""
    shot, span = row.result, row.result.range
    if span is None:
        raise ValueError(f"shot {shot.seq} of {row.run_id} has no times")
    names = [f"shot_{shot.seq:04d}_img_{image}.jpg" for image in range(3)] if keyframes_id else []
    return ShotCell(
        number=shot.seq + 1,
        start=round(float(span.start.seconds), 6),
        end=round(float(span.end.seconds), 6),
        timecode=span.start.timecode,
        frames=span.frames,
        keyframe_urls=tuple(f"/v1/artifacts/{keyframes_id}/members/{name}" for name in names),
    )

"""Masks on the page of a job: what each query means, and where a player finds its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.results.chosen import EVERY_ROW
from api.service.health import services
from api.web.film import picked
from shared.store import results
from shared.store.results import Found
from shared.values import Artifact, Job, Run


@dataclass(frozen=True, slots=True)
class Masks:
    """The tracks of one run.

    Args:
        runs: every run of the job that has tracks, this one included.
        tracks: one a query.
        lines: the file of all masks; None where no frame was read.
        overlay: the film with the masks drawn over it; None where none was asked for.
    """

    run: Run
    runs: tuple[Run, ...]
    tracks: tuple[Found, ...]
    lines: Artifact | None
    overlay: Artifact | None


def masks(job: Job, files: Sequence[tuple[str, str, Artifact]]) -> Masks | None:
    """The tracks of the run asked for, or of the first that has some; None while there are none."""
    run, runs = picked(job, "track", "masks")
    if run is None:
        return None
    mine = {file.kind: file for run_id, _, file in files if run_id == run.id}
    rows = results.page(services().engine, job.id, run_id=run.id, kind="track", limit=EVERY_ROW)
    return Masks(run, runs, tuple(rows), mine.get("tracks"), mine.get("overlay_film"))

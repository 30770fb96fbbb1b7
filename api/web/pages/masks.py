"""Masks on the page of a job: what each query means, and where a player finds its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.http.context import get_services
from api.results.selection import EVERY_ROW
from api.web.pages.shots import select_run
from shared.store import results
from shared.store.results import RunResult
from shared.values import Artifact, Job, Run


@dataclass(frozen=True, slots=True)
class MasksView:
    """The tracks of one run.

    Args:
        runs: every run of the job that has tracks, this one included.
        tracks: one a query.
        masks_file: the file of all masks; None where no frame was read.
        overlay_video: the video with the masks drawn over it; None where it was not requested.
    """

    run: Run
    runs: tuple[Run, ...]
    tracks: tuple[RunResult, ...]
    masks_file: Artifact | None
    overlay_video: Artifact | None


def load_masks_view(job: Job, files: Sequence[tuple[str, str, Artifact]]) -> MasksView | None:
    """Load the tracks of the requested run, or of the first that has some; None while there are none."""
    run, runs = select_run(job, "track", "masks")
    if run is None:
        return None
    files_by_kind = {file.kind: file for run_id, _, file in files if run_id == run.id}
    rows = results.list_results(get_services().engine, job.id, run_id=run.id, kind="track", limit=EVERY_ROW)
    return MasksView(run, runs, tuple(rows), files_by_kind.get("tracks"), files_by_kind.get("overlay_video"))

"""Neighbours on the page of a job: videos, or shots of videos, with embeddings similar to this one."""

from __future__ import annotations

from dataclasses import dataclass

from flask import request

from api.http.context import get_services
from api.http.problems import bad_query
from api.web.pages.shots import select_run
from shared.errors import Conflict, NotFound
from shared.store import results, search
from shared.store.search import ExcludedCounts, Neighbour, SearchFilter, embeddings
from shared.store.search.embeddings import VideoPart
from shared.values import Job, Run

MAX_NEIGHBOURS = 24
"""Neighbours that the page shows; the API lists more."""
MAX_SHOT_OPTIONS = 2000
"""Shots to choose from; those after them can be named in the address."""


@dataclass(frozen=True, slots=True)
class SearchView:
    """The neighbours of a video, or of one of its shots.

    Args:
        runs: every run of the job that embedded the video, this one included.
        shots: numbers of the shots that can be the query; none where the video was embedded as a whole.
        shot: the shot of the query; None for the whole video.
        neighbours: the most similar first.
        excluded: what was not compared; None where there was no search.
        unavailable_reason: why there is no answer; empty where there is one.
    """

    run: Run
    runs: tuple[Run, ...]
    shots: tuple[int, ...]
    shot: int | None
    neighbours: tuple[Neighbour, ...]
    excluded: ExcludedCounts | None
    unavailable_reason: str


def load_search_view(job: Job) -> SearchView | None:
    """Load the neighbours by the requested run, or by the first that embedded the video; None while there is none."""
    run, runs = select_run(job, "embedding", "likeness")
    if run is None:
        return None
    engine, shot = get_services().engine, _read_shot_argument()
    rows = results.list_results(engine, job.id, run_id=run.id, kind="embedding", limit=MAX_SHOT_OPTIONS)
    shots = tuple(row.result.seq for row in rows if row.result.range)
    try:
        search_query = embeddings.query_from_video(engine, job.video_id, VideoPart(shot), run_id=run.id)
    except (Conflict, NotFound) as error:
        return SearchView(run, runs, shots, shot, (), None, error.detail)
    search_options = SearchFilter(per="shot" if shots else "video", exclude_video_id=job.video_id, limit=MAX_NEIGHBOURS)
    neighbours = tuple(search.find_neighbours(engine, search_query, search_options))
    return SearchView(
        run, runs, shots, shot, neighbours, search.count_excluded(engine, search_query, search_options), ""
    )


def _read_shot_argument() -> int | None:
    """Number of the shot in the address."""
    text = request.args.get("shot") or None
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 9):
        raise bad_query("shot", "not_a_number", "A shot is named by its number.")
    return None if text is None else int(text)

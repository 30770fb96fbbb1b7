"""Likeness on the page of a job: films, or shots of films, that look and move like this one."""

from __future__ import annotations

from dataclasses import dataclass

from flask import request

from api.errors import bad_query
from api.service.health import services
from api.web.film import picked
from shared.errors import Conflict, NotFound
from shared.store import likeness, results
from shared.store.likeness import LeftOut, Near, Wanted, embeddings
from shared.store.likeness.embeddings import Part
from shared.values import Job, Run

MOST = 24
"""Pictures of a grid; the API has more."""
CHOICES = 2000
"""Shots to choose from; those after them can be named in the address."""


@dataclass(frozen=True, slots=True)
class Like:
    """What is like a film, or like one shot of it.

    Args:
        runs: every run of the job that embedded the film, this one included.
        shots: numbers of the shots that can be asked with; none where the film was embedded as a whole.
        shot: the one that was; None for the whole film.
        near: the likest first.
        left_out: what was not compared; None where nothing could be asked.
        why: why there is no answer; empty where there is one.
    """

    run: Run
    runs: tuple[Run, ...]
    shots: tuple[int, ...]
    shot: int | None
    near: tuple[Near, ...]
    left_out: LeftOut | None
    why: str


def like(job: Job) -> Like | None:
    """What is like the film by the run asked for, or by the first that embedded it; None while there is none."""
    run, runs = picked(job, "embedding", "likeness")
    if run is None:
        return None
    engine, shot = services().engine, _shot()
    rows = results.page(engine, job.id, run_id=run.id, kind="embedding", limit=CHOICES)
    shots = tuple(one.result.seq for one in rows if one.result.range)
    try:
        question = embeddings.of_video(engine, job.video_id, Part(shot), run_id=run.id)
    except (Conflict, NotFound) as error:
        return Like(run, runs, shots, shot, (), None, error.detail)
    wanted = Wanted(per="shot" if shots else "video", not_of=job.video_id, limit=MOST)
    near = tuple(likeness.nearest(engine, question, wanted))
    return Like(run, runs, shots, shot, near, likeness.left_out(engine, question, wanted), "")


def _shot() -> int | None:
    """Number of the shot in the address."""
    said = request.args.get("shot") or None
    if said is not None and not (said.isascii() and said.isdigit() and len(said) < 9):
        raise bad_query("shot", "not_a_number", "A shot is named by its number.")
    return None if said is None else int(said)

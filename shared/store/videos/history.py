"""What was made of a video, run after run: which run is current, which has taken the place of which, and their results.

A finished run is superseded when a later run of its model on the video is done; it stays readable by its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, case, func, select, tuple_
from sqlalchemy.orm import Session

from shared.errors import NotFound
from shared.store import mapping, results
from shared.store.results import RunResult
from shared.store.transaction import transactional
from shared.store.videos.videos import get_video_row
from shared.tables import ResultRow, RunRow
from shared.values import Clock, Run, RunState


@dataclass(frozen=True, slots=True)
class RunHistoryEntry:
    """A run of a video and its place among those of its model.

    Args:
        get_current_run_ids: whether its results are the ones that are shown.
        superseded_by: the run that took its place; None while it is current, and for a run that is not done.
    """

    run: Run
    current: bool
    superseded_by: str | None


@transactional
def list_runs(
    session: Session,
    video_id: str,
    *,
    limit: int,
    after: tuple[datetime, str] | None = None,
    model: str | None = None,
) -> list[RunHistoryEntry]:
    """Runs of a video, newest first, that come after the (created_at, id) given; NotFound."""
    get_video_row(session, video_id)
    following = func.lead(RunRow.id).over(partition_by=RunRow.model, order_by=(RunRow.finished_at, RunRow.id))
    done = (
        select(RunRow.id, following.label("next"))
        .where(RunRow.video_id == video_id, RunRow.state == RunState.DONE)
        .subquery()
    )
    statement = (
        select(RunRow, done.c.id, done.c.next)
        .outerjoin(done, done.c.id == RunRow.id)
        .where(RunRow.video_id == video_id)
        .order_by(RunRow.created_at.desc(), RunRow.id.desc())
        .limit(limit)
    )
    if after:
        statement = statement.where(tuple_(RunRow.created_at, RunRow.id) < after)
    if model is not None:
        statement = statement.where(RunRow.model == model)
    return [
        RunHistoryEntry(mapping.to_run(row), finished is not None and later is None, later)
        for row, finished, later in session.execute(statement)
    ]


@transactional
def get_current_run_ids(session: Session, video_id: str, models: Sequence[str]) -> list[str]:
    """Ids of the current runs of a video in the order of the models given, those that have one; NotFound."""
    get_video_row(session, video_id)
    run_ids_by_model = results.find_current_runs(session, video_id, models)
    return [run_ids_by_model[model] for model in models if model in run_ids_by_model]


@transactional
def get_finished_runs(session: Session, video_id: str, run_ids: Sequence[str]) -> list[Run]:
    """Finished runs of a video by id, in that order; NotFound unless all of them are there."""
    get_video_row(session, video_id)
    runs_by_id = {row.id: mapping.to_run(row) for row in session.scalars(_finished_runs_query(video_id, run_ids))}
    if set(run_ids) - set(runs_by_id):
        raise NotFound("This video has no such finished run.")
    return [runs_by_id[run_id] for run_id in run_ids]


def _finished_runs_query(video_id: str, run_ids: Sequence[str]) -> Select[RunRow]:
    return select(RunRow).where(RunRow.video_id == video_id, RunRow.id.in_(run_ids), RunRow.state == RunState.DONE)


@transactional
def list_run_results(
    session: Session,
    video_id: str,
    run_ids: Sequence[str],
    *,
    limit: int,
    after: tuple[int, str, int] | None = None,
    kind: str | None = None,
) -> list[RunResult]:
    """Results of these runs of a video in order of run, kind and seq, after the (place of the run, kind, seq) given."""
    clock = Clock.from_dict(get_video_row(session, video_id).probe)
    if not run_ids:
        return []
    place = case({run_id: at for at, run_id in enumerate(run_ids)}, value=RunRow.id)
    statement = (
        select(ResultRow, RunRow.model, place)
        .join(RunRow, RunRow.id == ResultRow.run_id)
        .where(RunRow.id.in_(run_ids), RunRow.video_id == video_id)
        .order_by(place, ResultRow.kind, ResultRow.seq)
        .limit(limit)
    )
    if kind is not None:
        statement = statement.where(ResultRow.kind == kind)
    if after is not None:
        statement = statement.where(tuple_(place, ResultRow.kind, ResultRow.seq) > after)
    return [
        RunResult(row.run_id, model, at, mapping.to_result(row, clock)) for row, model, at in session.execute(statement)
    ]

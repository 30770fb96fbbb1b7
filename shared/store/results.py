"""Results and artifacts of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from shared.errors import NotFound
from shared.store import mapping
from shared.store.transaction import transactional
from shared.tables import ArtifactRow, JobRow, JobRunRow, ResultRow, RunRow, VideoRow
from shared.values import Artifact, Clock, Result, RunState, TimeRange


@dataclass(frozen=True, slots=True)
class RunResult:
    """A result, the run that found it, and the run's position in the job."""

    run_id: str
    model: str
    position: int
    result: Result

    @property
    def cursor(self) -> tuple[int, str, int]:
        """Where a page that ends here is continued."""
        return self.position, self.result.kind, self.result.seq


@transactional
def list_results(
    session: Session,
    job_id: str,
    *,
    model: str | None = None,
    kind: str | None = None,
    run_id: str | None = None,
    limit: int,
    after: tuple[int, str, int] | None = None,
) -> list[RunResult]:
    """Results of the job's finished runs in order of run, kind and seq; NotFound."""
    statement = (
        select(ResultRow, RunRow.model, JobRunRow.position)
        .join(RunRow, RunRow.id == ResultRow.run_id)
        .join(JobRunRow, JobRunRow.run_id == RunRow.id)
        .where(JobRunRow.job_id == job_id, RunRow.state == RunState.DONE)
        .order_by(JobRunRow.position, ResultRow.kind, ResultRow.seq)
        .limit(limit)
    )
    if model is not None:
        statement = statement.where(RunRow.model == model)
    if kind is not None:
        statement = statement.where(ResultRow.kind == kind)
    if run_id is not None:
        statement = statement.where(RunRow.id == run_id)
    if after is not None:
        statement = statement.where(tuple_(JobRunRow.position, ResultRow.kind, ResultRow.seq) > after)
    clock = _load_clock(session, job_id)
    return [
        RunResult(row.run_id, name, position, mapping.to_result(row, clock))
        for row, name, position in session.execute(statement)
    ]


@transactional
def load_score_curve(
    session: Session, job_id: str, run_id: str, kind: str, max_points: int
) -> list[tuple[TimeRange, float]]:
    """Scores of a finished run over time, at most so many: neighbours are joined, with the mean of their scores.

    Rows without times or score are left out; NotFound for no such job.
    """
    clock = _load_clock(session, job_id)
    scored = [ResultRow.run_id == run_id, ResultRow.kind == kind]
    scored += [ResultRow.score.is_not(None), ResultRow.start_pts.is_not(None)]
    count = session.scalars(select(func.count()).where(*scored)).one()
    group = ResultRow.seq // max(1, -(-count // max_points))
    statement = (
        select(
            func.min(ResultRow.start_frame).label("start_frame"),
            func.min(ResultRow.start_pts).label("start_pts"),
            func.max(ResultRow.end_frame).label("end_frame"),
            func.max(ResultRow.end_pts).label("end_pts"),
            func.avg(ResultRow.score).label("score"),
        )
        .where(*scored)
        .group_by(group)
        .order_by(group)
    )
    points = [(mapping.to_time_range(row, clock), row.score) for row in session.execute(statement)]
    return [(span, float(score)) for span, score in points if span is not None]


def _load_clock(session: Session, job_id: str) -> Clock:
    statement = select(VideoRow.probe).join(JobRow, JobRow.video_id == VideoRow.id).where(JobRow.id == job_id)
    probe = session.scalars(statement).one_or_none()
    if probe is None:
        raise NotFound("There is no such job.")
    return Clock.from_dict(probe)


@transactional
def list_artifacts(session: Session, job_id: str) -> list[tuple[str, str, Artifact]]:
    """(run id, model, artifact) of the job's finished runs; NotFound."""
    _load_clock(session, job_id)
    statement = (
        select(RunRow.id, RunRow.model, ArtifactRow)
        .join(RunRow, RunRow.id == ArtifactRow.run_id)
        .join(JobRunRow, JobRunRow.run_id == RunRow.id)
        .where(JobRunRow.job_id == job_id, RunRow.state == RunState.DONE)
        .order_by(JobRunRow.position, ArtifactRow.name)
    )
    return [(run_id, model, mapping.to_artifact(row)) for run_id, model, row in session.execute(statement)]


@transactional
def get_artifact(session: Session, artifact_id: str) -> Artifact:
    """One artifact; NotFound."""
    row = session.get(ArtifactRow, artifact_id)
    if row is None:
        raise NotFound("There is no such artifact.")
    return mapping.to_artifact(row)


@transactional
def find_reusable_artifacts(session: Session, run_id: str) -> list[Artifact]:
    """Find the artifacts of the latest finished run that encoded the same video in the same way; empty without one."""
    encode_key = select(RunRow.encode_key).where(RunRow.id == run_id).scalar_subquery()
    twin = (
        select(RunRow.id)
        .where(RunRow.encode_key == encode_key, RunRow.state == RunState.DONE, RunRow.id != run_id)
        .order_by(RunRow.finished_at.desc())
        .limit(1)
    )
    rows = session.scalars(select(ArtifactRow).where(ArtifactRow.run_id.in_(twin)))
    return [mapping.to_artifact(row) for row in rows]


@transactional
def load_run_outputs(session: Session, run_ids: Sequence[str]) -> dict[str, tuple[list[Result], list[Artifact]]]:
    """What finished runs yielded, by model: the inputs of a run that needs them."""
    outputs: dict[str, tuple[list[Result], list[Artifact]]] = {}
    for run_id in run_ids:
        model, probe = session.execute(
            select(RunRow.model, VideoRow.probe).join(VideoRow).where(RunRow.id == run_id)
        ).one()
        clock = Clock.from_dict(probe)
        rows = select(ResultRow).where(ResultRow.run_id == run_id).order_by(ResultRow.kind, ResultRow.seq)
        files = select(ArtifactRow).where(ArtifactRow.run_id == run_id)
        outputs[model] = (
            [mapping.to_result(row, clock) for row in session.scalars(rows)],
            [mapping.to_artifact(row) for row in session.scalars(files)],
        )
    return outputs


def find_current_runs(session: Session, video_id: str, models: Sequence[str]) -> dict[str, str]:
    """The latest finished run of each model on a video: what is shown of it, until another one is done."""
    statement = (
        select(RunRow.model, RunRow.id)
        .where(RunRow.video_id == video_id, RunRow.model.in_(models), RunRow.state == RunState.DONE)
        .ext(distinct_on(RunRow.model))
        .order_by(RunRow.model, RunRow.finished_at.desc(), RunRow.id.desc())
    )
    return {row[0]: row[1] for row in session.execute(statement)}

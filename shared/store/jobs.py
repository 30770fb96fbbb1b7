"""Jobs: created once per Idempotency-Key, listed, cancelled, retried, deleted. Their state is that of their runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, delete as delete_rows, false, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.catalog import model
from shared.errors import Conflict, IdempotencyMismatch, NotFound
from shared.store import views
from shared.store.archive import standing
from shared.store.plan import Analysis, Planner
from shared.store.transaction import verb
from shared.store.videos import row_of
from shared.tables import BatchItemRow, JobRow, JobRunRow, RunRow
from shared.values import LIVE, Job, JobState, RunState, Wake, new_id

SCAN = 200


@dataclass(frozen=True, slots=True)
class NewJob:
    """A checked request."""

    video_id: str
    analyses: tuple[Analysis, ...]
    priority: str = "normal"
    external_id: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    key_scope: str = ""
    idempotency_key: str | None = None
    request_sha256: str = ""
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Created:
    """A job, what to send after the commit, and whether it was there already."""

    job: Job
    wakes: tuple[Wake, ...]
    replayed: bool


@verb
def create(session: Session, request: NewJob) -> Created:
    """Job and runs in one transaction. The same key and request: the same job; NotFound, IdempotencyMismatch."""
    return made(session, request)


def made(session: Session, request: NewJob) -> Created:
    """The same inside a transaction."""
    job_id = _insert(session, request)
    if job_id is None:
        if replayed := _replay(session, request):
            return replayed
        raise Conflict("The job of this Idempotency-Key was deleted at this moment.")
    video = row_of(session, request.video_id)
    planner = Planner(session, video, views.PRIORITIES[request.priority], request.max_attempts)
    session.add_all(planner.links(job_id, request.analyses))
    session.flush()
    return Created(_read(session, job_id), tuple(planner.wakes), replayed=False)


def _insert(session: Session, request: NewJob) -> str | None:
    row_of(session, request.video_id)
    statement = (
        insert(JobRow)
        .values(
            id=new_id("job"),
            video_id=request.video_id,
            priority=views.PRIORITIES[request.priority],
            external_id=request.external_id,
            labels=request.labels,
            key_scope=request.key_scope,
            idempotency_key=request.idempotency_key,
            request_sha256=request.request_sha256,
        )
        .on_conflict_do_nothing(index_elements=[JobRow.key_scope, JobRow.idempotency_key])
        .returning(JobRow.id)
    )
    return session.scalars(statement).one_or_none()


@verb
def replay(session: Session, request: NewJob) -> Created | None:
    """The job that this request's Idempotency-Key made before, if any; IdempotencyMismatch."""
    return _replay(session, request)


def _replay(session: Session, request: NewJob) -> Created | None:
    statement = select(JobRow).where(
        JobRow.key_scope == request.key_scope, JobRow.idempotency_key == request.idempotency_key
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != request.request_sha256:
        raise IdempotencyMismatch("This Idempotency-Key belongs to a job with another request.")
    return Created(views.jobs(session, [row])[0], (), replayed=True)


@verb
def get(session: Session, job_id: str) -> Job:
    """One job; NotFound."""
    return _read(session, job_id)


def _read(session: Session, job_id: str) -> Job:
    return views.jobs(session, [_row(session, job_id)])[0]


def _row(session: Session, job_id: str, *, lock: bool = False) -> JobRow:
    row = session.get(JobRow, job_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such job.")
    return row


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a list shows."""

    states: frozenset[JobState] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    video_id: str | None = None
    external_id: str | None = None


@verb
def page(
    session: Session, *, limit: int, after: tuple[datetime, str] | None = None, wanted: Filter | None = None
) -> list[Job]:
    """Jobs, newest first, that come after the (created_at, id) given.

    The state is derived, by Postgres for the filter and here for the answer; a job that moves on in between is left
    out, and the list reads on until the page is full.
    """
    wanted = wanted or Filter()
    found: list[Job] = []
    while True:
        batch = views.jobs(session, list(session.scalars(_list(wanted, after, limit))))
        found += [job for job in batch if wanted.states is None or job.state in wanted.states]
        if len(found) >= limit or len(batch) < limit:
            return found[:limit]
        after = (batch[-1].created_at, batch[-1].id)


def _list(wanted: Filter, after: tuple[datetime, str] | None, limit: int) -> Select[JobRow]:
    statement = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    if after:
        statement = statement.where(tuple_(JobRow.created_at, JobRow.id) < after)
    if wanted.states is not None:
        statement = statement.where(or_(false(), *(_stands(state) for state in sorted(wanted.states))))
    if wanted.labels:
        statement = statement.where(JobRow.labels.contains(wanted.labels))
    if wanted.created_after:
        statement = statement.where(JobRow.created_at > wanted.created_after)
    if wanted.video_id:
        statement = statement.where(JobRow.video_id == wanted.video_id)
    if wanted.external_id:
        statement = statement.where(JobRow.external_id == wanted.external_id)
    return statement


def _stands(state: JobState) -> ColumnElement[bool]:
    """Whether a job is in that state: the rule of `shared.values.job_state`, which a test compares."""
    kept = JobRow.cancelled_at.is_(None)
    live, undone = _any_run(RunRow.state.in_(LIVE)), _any_run(RunRow.state != RunState.DONE)
    begun = _any_run(RunRow.state.not_in([RunState.WAITING, RunState.QUEUED]))
    failed = _any_run(RunRow.state == RunState.FAILED)
    stopping = _any_run(and_(RunRow.state == RunState.RUNNING, RunRow.cancel_requested))
    match state:
        case JobState.QUEUED:
            return and_(kept, live, ~begun)
        case JobState.RUNNING:
            return and_(kept, live, begun)
        case JobState.CANCELLING:
            return and_(~kept, stopping)
        case JobState.SUCCEEDED:
            return and_(kept, ~undone)
        case JobState.FAILED:
            return and_(kept, ~live, failed)
        case JobState.CANCELLED:
            return or_(and_(~kept, ~stopping), and_(kept, undone, ~live, ~failed))


def _any_run(which: ColumnElement[bool]) -> ColumnElement[bool]:
    mine = select(JobRunRow.run_id).join(RunRow, RunRow.id == JobRunRow.run_id)
    return mine.where(JobRunRow.job_id == JobRow.id, which).exists()


@verb
def cancel(session: Session, job_id: str) -> Job:
    """Let go of every run of the job; a run that no other job wants stops. Conflict when the job has ended."""
    row = _row(session, job_id, lock=True)
    state = views.jobs(session, [row])[0].state
    if row.cancelled_at is None:
        if state.ended:
            raise Conflict(f"The job has already {state.value}.")
        row.cancelled_at = session.scalars(select(func.now())).one()
        let_go(session, job_id)
    return _read(session, job_id)


def let_go(session: Session, job_id: str) -> None:
    """Release the job's runs, inside a transaction. In order of id, so that two cancels cannot lock each other out."""
    session.execute(update(JobRunRow).where(JobRunRow.job_id == job_id).values(released=True))
    mine = select(JobRunRow.run_id).where(JobRunRow.job_id == job_id)
    locked = select(RunRow).where(RunRow.id.in_(mine), RunRow.state.in_(LIVE)).order_by(RunRow.id).with_for_update()
    for run in session.scalars(locked):
        others = (
            select(func.max(JobRow.priority))
            .join(JobRunRow, JobRunRow.job_id == JobRow.id)
            .where(JobRunRow.run_id == run.id, ~JobRunRow.released)
        )
        priority: int | None = session.scalars(others).one()
        if priority is not None:
            run.priority = priority
        elif run.state == RunState.RUNNING:
            run.cancel_requested = True
        else:
            run.state = RunState.CANCELLED
            run.finished_at = run.updated_at = session.scalars(select(func.now())).one()
    session.flush()


@verb
def retry(session: Session, job_id: str, max_attempts: int) -> tuple[Job, list[Wake]]:
    """Plan the runs that did not end well once more; what is done stays. Conflict unless failed or cancelled."""
    return again(session, job_id, max_attempts)


def again(session: Session, job_id: str, max_attempts: int) -> tuple[Job, list[Wake]]:
    """The same inside a transaction."""
    standing.reopen(session, BatchItemRow.job_id == job_id)
    row = _row(session, job_id, lock=True)
    job = views.jobs(session, [row])[0]
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise Conflict(f"The job is {job.state.value}: only a failed or cancelled one can be retried.")
    analyses = tuple(Analysis(run.model, model(run.model).read_params(run.params)) for run in job.runs if run.asked)
    session.execute(delete_rows(JobRunRow).where(JobRunRow.job_id == job_id))
    row.cancelled_at = None
    planner = Planner(session, row_of(session, row.video_id), row.priority, max_attempts)
    session.add_all(planner.links(job_id, analyses))
    session.flush()
    return _read(session, job_id), planner.wakes


@verb
def delete(session: Session, job_id: str) -> None:
    """Forget a job. Runs that no job refers to any more stop, and go with their results once they have stopped."""
    standing.reopen(session, BatchItemRow.job_id == job_id)
    row = _row(session, job_id, lock=True)
    if row.cancelled_at is None:
        let_go(session, job_id)
    session.delete(row)
    session.flush()
    forget_orphans(session)


def forget_orphans(session: Session) -> int:
    """Delete ended runs that no job refers to; how many.

    They are locked first and looked at again after: a job that shares one meanwhile keeps it.
    """
    unwanted = ~select(JobRunRow.run_id).where(JobRunRow.run_id == RunRow.id).exists()
    ended = select(RunRow.id).where(RunRow.state.not_in(LIVE), unwanted).order_by(RunRow.id).limit(SCAN)
    locked = session.scalars(ended.with_for_update(skip_locked=True)).all()
    gone = session.execute(delete_rows(RunRow).where(RunRow.id.in_(locked), unwanted).returning(RunRow.id))
    return len(gone.all())


@verb
def unfinished(session: Session) -> int:
    """Number of runs that wait, are queued or run."""
    return session.scalars(select(func.count()).select_from(RunRow).where(RunRow.state.in_(LIVE))).one()

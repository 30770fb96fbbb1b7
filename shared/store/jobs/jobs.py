"""Jobs: created once per Idempotency-Key, listed, cancelled, retried, deleted. Their state is that of their runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Select, delete as delete_rows, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.catalog import get_model_spec
from shared.errors import Conflict, IdempotencyMismatch, NotFound
from shared.store import batch_outcome, mapping
from shared.store.jobs.planner import Analysis, RunPlanner
from shared.store.jobs.state import build_state_filter
from shared.store.transaction import transactional
from shared.store.videos.videos import get_video_row
from shared.tables import BatchItemRow, JobRow, JobRunRow, RunRow
from shared.values import LIVE_STATES, Job, JobState, RunState, WakeUp, new_id
from shared.values.jobs import PRIORITIES

ORPHAN_SCAN_LIMIT = 200


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated request for a job."""

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
class CreatedJob:
    """A job, the messages to send after the commit, and whether an earlier request created it."""

    job: Job
    wakeups: tuple[WakeUp, ...]
    replayed: bool


@transactional
def create_job(session: Session, request: NewJob) -> CreatedJob:
    """Create a job and its runs in one transaction, or return the job of the same Idempotency-Key and request."""
    return create_in(session, request)


def create_in(session: Session, request: NewJob) -> CreatedJob:
    """Create a job inside the caller's transaction."""
    job_id = _insert_job(session, request)
    if job_id is None:
        if replayed := _find_replay_in(session, request):
            return replayed
        raise Conflict("The job of this Idempotency-Key was deleted at this moment.")
    video = get_video_row(session, request.video_id)
    planner = RunPlanner(session, video, PRIORITIES[request.priority], request.max_attempts)
    session.add_all(planner.plan_runs(job_id, request.analyses))
    session.flush()
    return CreatedJob(_load_job(session, job_id), tuple(planner.wakeups), replayed=False)


def _insert_job(session: Session, request: NewJob) -> str | None:
    get_video_row(session, request.video_id)
    statement = (
        insert(JobRow)
        .values(
            id=new_id("job"),
            video_id=request.video_id,
            priority=PRIORITIES[request.priority],
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


@transactional
def find_replay(session: Session, request: NewJob) -> CreatedJob | None:
    """Find the job that an earlier request with this Idempotency-Key created; IdempotencyMismatch."""
    return _find_replay_in(session, request)


def _find_replay_in(session: Session, request: NewJob) -> CreatedJob | None:
    statement = select(JobRow).where(
        JobRow.key_scope == request.key_scope, JobRow.idempotency_key == request.idempotency_key
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != request.request_sha256:
        raise IdempotencyMismatch("This Idempotency-Key belongs to a job with another request.")
    return CreatedJob(mapping.load_jobs(session, [row])[0], (), replayed=True)


@transactional
def get_job(session: Session, job_id: str) -> Job:
    """Get a job; NotFound."""
    return _load_job(session, job_id)


def _load_job(session: Session, job_id: str) -> Job:
    return mapping.load_jobs(session, [_get_row(session, job_id)])[0]


def _get_row(session: Session, job_id: str, *, lock: bool = False) -> JobRow:
    row = session.get(JobRow, job_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such job.")
    return row


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs a list shows."""

    states: frozenset[JobState] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    video_id: str | None = None
    external_id: str | None = None


@transactional
def list_jobs(
    session: Session, *, limit: int, after: tuple[datetime, str] | None = None, job_filter: JobFilter | None = None
) -> list[Job]:
    """List jobs, newest first, that come after the given (created_at, id).

    The state is derived, by Postgres for the filter and here for the answer; a job that moves on in between is left
    out, and the list reads on until the page is full.
    """
    job_filter = job_filter or JobFilter()
    jobs: list[Job] = []
    while True:
        chunk = mapping.load_jobs(session, list(session.scalars(_build_list_query(job_filter, after, limit))))
        jobs += [job for job in chunk if job_filter.states is None or job.state in job_filter.states]
        if len(jobs) >= limit or len(chunk) < limit:
            return jobs[:limit]
        after = (chunk[-1].created_at, chunk[-1].id)


def _build_list_query(job_filter: JobFilter, after: tuple[datetime, str] | None, limit: int) -> Select[JobRow]:
    statement = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    if after:
        statement = statement.where(tuple_(JobRow.created_at, JobRow.id) < after)
    if job_filter.states is not None:
        statement = statement.where(build_state_filter(job_filter.states))
    if job_filter.labels:
        statement = statement.where(JobRow.labels.contains(job_filter.labels))
    if job_filter.created_after:
        statement = statement.where(JobRow.created_at > job_filter.created_after)
    if job_filter.video_id:
        statement = statement.where(JobRow.video_id == job_filter.video_id)
    if job_filter.external_id:
        statement = statement.where(JobRow.external_id == job_filter.external_id)
    return statement


@transactional
def cancel_job(session: Session, job_id: str) -> Job:
    """Cancel a job. Runs that no other job refers to stop. Conflict when the job has ended."""
    row = _get_row(session, job_id, lock=True)
    state = mapping.load_jobs(session, [row])[0].state
    if row.cancelled_at is None:
        if state.has_ended:
            raise Conflict(f"The job has already {state.value}.")
        row.cancelled_at = session.scalars(select(func.now())).one()
        release_runs(session, job_id)
    return _load_job(session, job_id)


def release_runs(session: Session, job_id: str) -> None:
    """Release the job's runs, inside a transaction. In order of id, so that two cancels cannot lock each other out."""
    session.execute(update(JobRunRow).where(JobRunRow.job_id == job_id).values(released=True))
    job_run_ids = select(JobRunRow.run_id).where(JobRunRow.job_id == job_id)
    locked = (
        select(RunRow)
        .where(RunRow.id.in_(job_run_ids), RunRow.state.in_(LIVE_STATES))
        .order_by(RunRow.id)
        .with_for_update()
    )
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


@transactional
def retry_job(session: Session, job_id: str, max_attempts: int) -> tuple[Job, list[WakeUp]]:
    """Plan the runs that did not end well once more; what is done stays. Conflict unless failed or cancelled."""
    return retry_in(session, job_id, max_attempts)


def retry_in(session: Session, job_id: str, max_attempts: int) -> tuple[Job, list[WakeUp]]:
    """Retry a job inside the caller's transaction."""
    batch_outcome.invalidate_outcomes(session, BatchItemRow.job_id == job_id)
    row = _get_row(session, job_id, lock=True)
    job = mapping.load_jobs(session, [row])[0]
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise Conflict(f"The job is {job.state.value}: only a failed or cancelled one can be retried.")
    analyses = tuple(
        Analysis(run.model, get_model_spec(run.model).read_params(run.params)) for run in job.runs if run.requested
    )
    session.execute(delete_rows(JobRunRow).where(JobRunRow.job_id == job_id))
    row.cancelled_at = None
    planner = RunPlanner(session, get_video_row(session, row.video_id), row.priority, max_attempts)
    session.add_all(planner.plan_runs(job_id, analyses))
    session.flush()
    return _load_job(session, job_id), planner.wakeups


@transactional
def delete_job(session: Session, job_id: str) -> None:
    """Delete a job. Runs that no other job refers to stop, and are deleted with their results after that."""
    batch_outcome.invalidate_outcomes(session, BatchItemRow.job_id == job_id)
    row = _get_row(session, job_id, lock=True)
    if row.cancelled_at is None:
        release_runs(session, job_id)
    session.delete(row)
    session.flush()
    delete_orphan_runs(session)


def delete_orphan_runs(session: Session) -> int:
    """Delete ended runs that no job refers to; how many.

    They are locked first and looked at again after: a job that shares one meanwhile keeps it.
    """
    unreferenced = ~select(JobRunRow.run_id).where(JobRunRow.run_id == RunRow.id).exists()
    ended = (
        select(RunRow.id)
        .where(RunRow.state.not_in(LIVE_STATES), unreferenced)
        .order_by(RunRow.id)
        .limit(ORPHAN_SCAN_LIMIT)
    )
    locked = session.scalars(ended.with_for_update(skip_locked=True)).all()
    deleted = session.execute(delete_rows(RunRow).where(RunRow.id.in_(locked), unreferenced).returning(RunRow.id))
    return len(deleted.all())


@transactional
def count_unfinished_runs(session: Session) -> int:
    """Count the runs that are waiting, queued or running."""
    return session.scalars(select(func.count()).select_from(RunRow).where(RunRow.state.in_(LIVE_STATES))).one()

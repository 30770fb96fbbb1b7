"""Batches: created from a selection, dispatched to the queues a few jobs at a time, paused, cancelled, retried.

A batch is its rows: each video is an item, and an item without `started_at` has no job yet. Beat feeds: it gives the
next items a job while the batch is neither paused nor cancelled, its hours are open and fewer jobs than its cap are
unfinished. Whatever dies, the next tick goes on from the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session

from shared.errors import Conflict, InvalidRequest, NotFound
from shared.store import results
from shared.store.batches import progress
from shared.store.batches.selection import parse_analyses, plan_in
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.jobs.planner import expand_needs
from shared.store.runs import queues
from shared.store.transaction import transactional
from shared.tables import BatchItemRow, BatchRow, JobRow, JobRunRow, RunRow, SourceFileRow, SourceRow
from shared.values import LIVE_STATES, WakeUp, new_id
from shared.values.batches import Batch, BatchItem, BatchState, Workload
from shared.values.jobs import PRIORITIES

CHUNK = 1000
MAX_JOBS_PER_TICK = 25
"""Jobs that one tick makes for one batch at most: a tick stays short."""
MAX_FREEZES_PER_TICK = 5
"""Batches whose end one tick writes down at most."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A validated request for a batch.

    Args:
        name: for people.
        work: what is to be done with which videos.
        kind: `batch`: every video that is meant gets a job, and finished runs are shared; `reprocess`, `schedule`: only
            videos with something left to do.
        schedule_id, due_at: of the slot that it is for.
    """

    name: str
    work: Workload
    kind: str = "batch"
    schedule_id: str | None = None
    due_at: datetime | None = None


@transactional
def create_batch(session: Session, request: NewBatch) -> Batch:
    """Create a batch and its items in one transaction. InvalidRequest when the selection matches no video."""
    row, items = create_in(session, request)
    if not items:
        raise InvalidRequest("No video is meant by this selection, or nothing is left to do for any.")
    return progress.load_batches(session, [row])[0]


def create_in(session: Session, request: NewBatch) -> tuple[BatchRow, int]:
    """Create a batch inside the caller's transaction; returns its row and the number of its items."""
    batch_plan = plan_in(session, request.work)
    video_ids = batch_plan.selected if request.kind == "batch" else batch_plan.to_do
    row = BatchRow(
        id=new_id("bat"),
        name=request.name,
        kind=request.kind,
        schedule_id=request.schedule_id,
        due_at=request.due_at,
        work=request.work.to_dict(),
        priority=PRIORITIES[request.work.priority],
        cap=request.work.cap,
    )
    session.add(row)
    session.flush()
    for first in range(0, len(video_ids), CHUNK):
        chunk = enumerate(video_ids[first : first + CHUNK], first)
        session.execute(
            insert(BatchItemRow), [{"batch_id": row.id, "position": at, "video_id": video_id} for at, video_id in chunk]
        )
    return row, len(video_ids)


@transactional
def get_batch(session: Session, batch_id: str) -> Batch:
    """Get a batch with its present counts; NotFound."""
    return progress.load_batches(session, [_get_row(session, batch_id)])[0]


@transactional
def list_batches(
    session: Session,
    *,
    limit: int,
    after: tuple[datetime, str] | None = None,
    schedule_id: str | None = None,
    states: Collection[BatchState] | None = None,
) -> list[Batch]:
    """List batches, newest first, that come after the given (created_at, id).

    The state is derived, so a filter on it reads on, some batches at a time, until the page is full.
    """
    matching: list[Batch] = []
    while True:
        rows = list(session.scalars(_build_list_query(limit, after, schedule_id)))
        matching += [batch for batch in progress.load_batches(session, rows) if states is None or batch.state in states]
        if len(matching) >= limit or len(rows) < limit:
            return matching[:limit]
        after = (rows[-1].created_at, rows[-1].id)


def _build_list_query(limit: int, after: tuple[datetime, str] | None, schedule_id: str | None) -> Select[BatchRow]:
    statement = select(BatchRow).order_by(BatchRow.created_at.desc(), BatchRow.id.desc()).limit(limit)
    if after:
        statement = statement.where(tuple_(BatchRow.created_at, BatchRow.id) < after)
    if schedule_id:
        statement = statement.where(BatchRow.schedule_id == schedule_id)
    return statement


@transactional
def list_items(
    session: Session, batch_id: str, *, limit: int, after: int | None = None, states: Sequence[str] | None = None
) -> list[BatchItem]:
    """List the videos of a batch in order, each with its state; NotFound."""
    _get_row(session, batch_id)
    return progress.load_items(session, batch_id, limit=limit, after=after, states=states)


@transactional
def pause_batch(session: Session, batch_id: str) -> Batch:
    """Start no more jobs of a batch; started jobs continue. Conflict when it has ended."""
    row = _get_row(session, batch_id, lock=True)
    state = progress.load_batches(session, [row])[0].state
    if state.has_ended or state is BatchState.CANCELLING:
        raise Conflict(f"The batch is {state.value}: there is nothing to pause.")
    row.paused_at = row.paused_at or session.scalars(select(func.now())).one()
    session.flush()
    return progress.load_batches(session, [row])[0]


@transactional
def resume_batch(session: Session, batch_id: str) -> Batch:
    """Start jobs of a paused batch again. Conflict when it was cancelled."""
    row = _get_row(session, batch_id, lock=True)
    if row.cancelled_at is not None:
        raise Conflict("The batch was cancelled.")
    row.paused_at = None
    session.flush()
    return progress.load_batches(session, [row])[0]


@transactional
def cancel_batch(session: Session, batch_id: str) -> Batch:
    """Cancel every unfinished job of a batch; finished runs stay. Conflict when it has ended."""
    row = _get_row(session, batch_id, lock=True)
    state = progress.load_batches(session, [row])[0].state
    if row.cancelled_at is None:
        if state.has_ended:
            raise Conflict(f"The batch has already {state.value}.")
        row.cancelled_at = now = session.scalars(select(func.now())).one()
        for job in session.scalars(_unfinished_jobs_query(batch_id)):
            job.cancelled_at = now
            jobs.release_runs(session, job.id)
        session.flush()
    return progress.load_batches(session, [row])[0]


@transactional
def retry_batch(session: Session, batch_id: str) -> Batch:
    """Put every failed or refused video of a batch back to waiting; dispatch retries its job, under the same cap.

    Conflict when nothing has failed, or the batch was cancelled.
    """
    row = _get_row(session, batch_id, lock=True)
    if row.cancelled_at is not None:
        raise Conflict("The batch was cancelled.")
    failed = [
        item.position for item in progress.load_items(session, batch_id, limit=None, states=("failed", "refused"))
    ]
    if not failed:
        raise Conflict("Nothing of this batch has failed.")
    for first in range(0, len(failed), CHUNK):
        session.execute(
            update(BatchItemRow)
            .where(BatchItemRow.batch_id == batch_id, BatchItemRow.position.in_(failed[first : first + CHUNK]))
            .values(started_at=None, error=None)
        )
    row.fed_at = row.outcome = None
    session.flush()
    return progress.load_batches(session, [row])[0]


def _get_row(session: Session, batch_id: str, *, lock: bool = False) -> BatchRow:
    row = session.get(BatchRow, batch_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such batch.")
    return row


def _unfinished_jobs_query(batch_id: str) -> Select[JobRow]:
    """Select the jobs of a batch with an unfinished run, locked in order of id."""
    live = (
        select(JobRunRow.job_id)
        .join(RunRow, RunRow.id == JobRunRow.run_id)
        .where(JobRunRow.job_id == JobRow.id, RunRow.state.in_(LIVE_STATES))
    )
    batch_job_ids = select(BatchItemRow.job_id).where(BatchItemRow.batch_id == batch_id)
    statement = select(JobRow).where(JobRow.id.in_(batch_job_ids), JobRow.cancelled_at.is_(None), live.exists())
    return statement.order_by(JobRow.id).with_for_update()


# Feeding --------------------------------------------------------------------------------------------------------------


@transactional
def list_pending_batches(session: Session) -> list[str]:
    """List batches that may have a video without a job, the most urgent first."""
    statement = (
        select(BatchRow.id)
        .where(BatchRow.fed_at.is_(None), BatchRow.paused_at.is_(None), BatchRow.cancelled_at.is_(None))
        .order_by(BatchRow.priority.desc(), BatchRow.created_at, BatchRow.id)
    )
    return list(session.scalars(statement))


@transactional
def dispatch_jobs(session: Session, batch_id: str, now: datetime, max_attempts: int) -> list[WakeUp]:
    """Create jobs for the next videos of a batch, up to its cap; returns the messages to send.

    Locked meanwhile: two beats take turns, and a pause or cancel comes before or after.
    """
    statement = select(BatchRow).where(BatchRow.id == batch_id).with_for_update(skip_locked=True)
    row = session.scalars(statement).one_or_none()
    if row is None or row.fed_at or row.paused_at or row.cancelled_at:
        return []
    work = Workload.from_dict(row.work)
    if (work.hours is not None and not work.hours.is_open(now)) or _is_held_by_drain(session, work):
        return []
    free_slots = (
        MAX_JOBS_PER_TICK
        if row.cap is None
        else min(MAX_JOBS_PER_TICK, row.cap - progress.count_unfinished_jobs(session, batch_id))
    )
    waiting = (
        select(BatchItemRow)
        .where(BatchItemRow.batch_id == batch_id, BatchItemRow.started_at.is_(None))
        .order_by(BatchItemRow.position)
        .limit(max(0, free_slots))
    )
    next_items = list(session.scalars(waiting))
    wakeups = [wakeup for item in next_items for wakeup in _start_item(session, work, item, max_attempts)]
    if free_slots > len(next_items):
        row.fed_at = session.scalars(select(func.now())).one()
    return wakeups


def _is_held_by_drain(session: Session, work: Workload) -> bool:
    """Whether one of the queues that the batch uses is being drained."""
    try:
        models = {analysis.model for analysis, _ in expand_needs(parse_analyses(work))}
    except InvalidRequest:
        return False  # what is no longer on the catalog is written down video by video
    return bool(queues.list_draining_in(session, models))


def _start_item(session: Session, work: Workload, item: BatchItemRow, max_attempts: int) -> tuple[WakeUp, ...]:
    """Create or retry the job of one video. An error of the request is stored with the item: it is refused."""
    item.started_at = session.scalars(select(func.now())).one()
    try:
        if item.job_id is not None:
            return tuple(jobs.retry_in(session, item.job_id, max_attempts)[1])
        analyses = tuple(parse_analyses(work))
    except InvalidRequest as error:
        item.error = error.to_problem()
        return ()
    except Conflict:
        return ()  # somebody has tried this job again already
    item.before = results.find_current_runs(session, item.video_id, [analysis.model for analysis in analyses])
    labels = _load_source_labels(session, item.video_id) | dict(work.labels)
    created = jobs.create_in(
        session, NewJob(item.video_id, analyses, work.priority, labels=labels, max_attempts=max_attempts)
    )
    item.job_id = created.job.id
    return created.wakeups


def _load_source_labels(session: Session, video_id: str) -> dict[str, str]:
    statement = (
        select(SourceRow.labels)
        .join(SourceFileRow, SourceFileRow.source_id == SourceRow.id)
        .where(SourceFileRow.video_id == video_id)
        .order_by(SourceRow.created_at)
    )
    return {name: value for labels in session.scalars(statement) for name, value in labels.items()}


# The end --------------------------------------------------------------------------------------------------------------


@transactional
def freeze_outcomes(session: Session) -> list[str]:
    """Freeze the counts of some batches whose videos have all ended; returns their ids."""
    live = (
        select(RunRow.id)
        .join(JobRunRow, JobRunRow.run_id == RunRow.id)
        .join(BatchItemRow, BatchItemRow.job_id == JobRunRow.job_id)
        .where(BatchItemRow.batch_id == BatchRow.id, RunRow.state.in_(LIVE_STATES))
    )
    statement = (
        select(BatchRow)
        .where(BatchRow.outcome.is_(None), or_(BatchRow.fed_at.is_not(None), BatchRow.cancelled_at.is_not(None)))
        .where(~live.exists())
        .order_by(BatchRow.created_at, BatchRow.id)
        .limit(MAX_FREEZES_PER_TICK)
        .with_for_update(skip_locked=True)
    )
    return [row.id for row in session.scalars(statement).all() if progress.freeze_outcome(session, row)]

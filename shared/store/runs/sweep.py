"""The sweep of beat: frees runs with an expired lease, resends runs without a message, deletes stale rows.

Any number of beats may sweep at once: rows are taken with SKIP LOCKED, and each statement holds its own condition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete as delete_rows, func, or_, select, union, update
from sqlalchemy.orm import Session

from shared.errors import PoisonRun, WorkerLost
from shared.store import counters
from shared.store.jobs import jobs
from shared.store.runs.queues import is_queue_open
from shared.store.runs.runs import skip_dependants
from shared.store.transaction import transactional
from shared.tables import ArtifactRow, RunRow, VideoRow, WorkerRow
from shared.values import RunState, WakeUp

SWEEP_LIMIT = 1000
FORGET_WORKER_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class FreedRun:
    """A run whose lease had expired, and its new state."""

    run_id: str
    model: str
    owner: str | None
    attempt: int
    state: RunState


@transactional
def free_expired_runs(session: Session) -> list[FreedRun]:
    """Free runs with an expired lease: cancelled on request, failed after the last attempt, else queued."""
    expired = select(RunRow).where(RunRow.state == RunState.RUNNING, RunRow.lease_until < func.now())
    rows = session.scalars(expired.order_by(RunRow.id).limit(SWEEP_LIMIT).with_for_update(skip_locked=True)).all()
    now = session.scalars(select(func.now())).one()
    freed = []
    for row in rows:
        row.state, row.error = _next_state(row)
        row.lease_until = row.dispatched_at = row.eta_s = None
        row.updated_at = now
        row.finished_at = None if row.state == RunState.QUEUED else now
        if row.state == RunState.FAILED and row.error:
            skip_dependants(session, row.id, row.error)
        freed.append(FreedRun(row.id, row.model, row.owner, row.attempt, RunState(row.state)))
    for model, lost_count in sorted(Counter(freed_run.model for freed_run in freed).items()):
        counters.increment_counter(session, counters.LEASES_LOST, lost_count, model=model)
    return freed


def _next_state(row: RunRow) -> tuple[RunState, dict[str, Any] | None]:
    if row.cancel_requested:
        return RunState.CANCELLED, None
    lost = WorkerLost("The worker fell silent in the middle of the run.").to_problem() | {"attempt": row.attempt}
    if row.attempt < row.max_attempts:
        return RunState.QUEUED, lost
    poison = PoisonRun(f"The run was set aside: its worker was lost on each of {row.attempt} attempts.")
    return RunState.FAILED, poison.to_problem() | {"attempt": row.attempt}


@transactional
def count_expected_messages(session: Session) -> dict[str, int]:
    """Count, by model, the runs for which the broker should hold a message."""
    statement = (
        select(RunRow.model, func.count())
        .where(RunRow.state == RunState.QUEUED, RunRow.dispatched_at.is_not(None), is_queue_open())
        .group_by(RunRow.model)
    )
    return {row[0]: row[1] for row in session.execute(statement)}


@transactional
def take_runs_to_send(
    session: Session, depths: Mapping[str, int], expected: Mapping[str, int], resend_s: float
) -> list[WakeUp]:
    """Take queued runs to send: runs never sent, and old ones of a queue with fewer messages than runs."""
    short = [name for name, count in expected.items() if depths.get(name, 0) < count]
    stale = RunRow.dispatched_at < func.now() - timedelta(seconds=resend_s)
    waiting = (
        select(RunRow.id)
        .where(
            RunRow.state == RunState.QUEUED,
            RunRow.available_at <= func.now(),
            is_queue_open(),
            or_(RunRow.dispatched_at.is_(None), stale & RunRow.model.in_(short)),
        )
        .order_by(RunRow.priority.desc(), RunRow.created_at)
        .limit(SWEEP_LIMIT)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(RunRow)
        .where(RunRow.id.in_(waiting))
        .values(dispatched_at=func.now())
        .returning(RunRow.id, RunRow.model, RunRow.priority, RunRow.video_id)
    )
    return [WakeUp(*row) for row in session.execute(statement)]


@transactional
def delete_stale_rows(session: Session) -> int:
    """Delete old workers and ended runs that no job refers to; returns the number of rows."""
    deleted = session.execute(
        delete_rows(WorkerRow).where(WorkerRow.heartbeat_at < func.now() - FORGET_WORKER_AFTER).returning(WorkerRow.id)
    )
    return len(deleted.all()) + jobs.delete_orphan_runs(session)


@transactional
def find_unreferenced(session: Session, hashes: Iterable[str]) -> list[str]:
    """Find those of the files that no video and no artifact refers to."""
    candidates = list(hashes)
    known = union(
        select(VideoRow.sha256).where(VideoRow.sha256.in_(candidates)),
        select(ArtifactRow.sha256).where(ArtifactRow.sha256.in_(candidates)),
    )
    return sorted(set(candidates) - set(session.scalars(known)))

"""Workers as they announce themselves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.store.transaction import transactional
from shared.tables import JobRunRow, RunRow, VideoRow, WorkerRow
from shared.values import Worker
from shared.values.workers import ModelOffer

HEARTBEAT_TIMEOUT = timedelta(seconds=15)
"""Three missed heartbeats of five seconds."""


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that a worker is at: of which model on which video, for which job, and how far it is (0..1)."""

    run_id: str
    model: str
    video_name: str
    job_id: str | None
    fraction: float


@transactional
def announce_worker(
    session: Session,
    worker_id: str,
    *,
    state: str,
    reason: str | None,
    models: list[dict[str, Any]],
    device: str,
    precision: str,
) -> None:
    """Insert or update the row of a worker (or of its new child process)."""
    values: dict[str, Any] = {
        "state": state,
        "reason": reason,
        "models": models,
        "device": device,
        "precision": precision,
        "heartbeat_at": func.now(),
    }
    if state == "starting":  # a new child: what was asked of the one before is over
        values |= {"run_id": None, "stopping": False}
    statement = insert(WorkerRow).values(id=worker_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[WorkerRow.id], set_=values))


@transactional
def record_heartbeat(session: Session, worker_id: str, *, state: str, run_id: str | None) -> bool:
    """Record a heartbeat with the present state. True when the worker is to stop."""
    statement = (
        update(WorkerRow)
        .where(WorkerRow.id == worker_id)
        .values(state=case((WorkerRow.stopping, "stopping"), else_=state), run_id=run_id, heartbeat_at=func.now())
        .returning(WorkerRow.stopping)
    )
    return bool(session.scalars(statement).one_or_none())


@transactional
def request_stop(session: Session, worker_id: str) -> None:
    """Ask a worker to hand its run back; it sees it at its next touch."""
    session.execute(update(WorkerRow).where(WorkerRow.id == worker_id).values(stopping=True, state="stopping"))


@transactional
def delete_worker(session: Session, worker_id: str) -> None:
    """Delete the row of a worker that ended regularly."""
    row = session.get(WorkerRow, worker_id)
    if row is not None:
        session.delete(row)


def find_announced_weights(session: Session, model: str) -> str | None:
    """Fingerprint of a model's weights, as the worker heard of last announces it; None when no worker has them."""
    for models in session.scalars(select(WorkerRow.models).order_by(WorkerRow.heartbeat_at.desc())):
        for offer in models:
            if offer["model"] == model and offer["weights"]:
                return str(offer["weights"])
    return None


@transactional
def list_workers(session: Session) -> list[Worker]:
    """List every worker with a heartbeat in the last day, oldest first."""
    now = session.scalars(select(func.now())).one()
    return [
        Worker(
            id=row.id,
            state=row.state,
            reason=row.reason,
            models=cast("tuple[ModelOffer, ...]", tuple(row.models)),
            device=row.device,
            precision=row.precision,
            run_id=row.run_id,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            live=now - row.heartbeat_at < HEARTBEAT_TIMEOUT,
        )
        for row in session.scalars(select(WorkerRow).order_by(WorkerRow.number))
    ]


@transactional
def get_active_runs(session: Session, run_ids: Collection[str]) -> dict[str, ActiveRun]:
    """Get runs by id; unknown ids are left out."""
    job = select(func.min(JobRunRow.job_id)).where(JobRunRow.run_id == RunRow.id).scalar_subquery()
    statement = (
        select(RunRow.id, RunRow.model, VideoRow.name, job, RunRow.fraction)
        .join(VideoRow, VideoRow.id == RunRow.video_id)
        .where(RunRow.id.in_(run_ids))
    )
    return {row[0]: ActiveRun(*row) for row in session.execute(statement)}

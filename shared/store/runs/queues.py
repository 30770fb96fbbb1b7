"""Queues by model: open, paused or draining, with the number of runs in each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.catalog import CATALOG
from shared.store.transaction import transactional
from shared.tables import QueueRow, RunRow
from shared.values import RunState, format_timestamp

QueueMode = Literal["open", "paused", "draining"]
ENDED_STATES = tuple(state for state in RunState if state.has_ended)


@dataclass(frozen=True, slots=True)
class ModelQueue:
    """The queue of one model.

    Args:
        mode: `open`; `paused`: no run starts; `draining`: queued runs are finished, new jobs are refused, and batches
            create no jobs.
        depth: runs that are queued; running: runs that run; waiting: runs that wait for another model.
        oldest_at: since when the oldest queued run has waited.
        wait_s: how long the runs that started in the last hour had waited: the median; None when there were none.
    """

    model: str
    mode: QueueMode
    since: datetime | None
    depth: int
    running: int
    waiting: int
    oldest_at: datetime | None
    wait_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "model": self.model,
            "mode": self.mode,
            "since": format_timestamp(self.since),
            "depth": self.depth,
            "running": self.running,
            "waiting": self.waiting,
            "oldest_at": format_timestamp(self.oldest_at),
            "wait_s": None if self.wait_s is None else round(self.wait_s, 3),
        }


@transactional
def set_queue_mode(session: Session, model: str, mode: QueueMode) -> ModelQueue:
    """Pause, drain or open the queue of a model."""
    if mode == "open":
        session.execute(delete(QueueRow).where(QueueRow.model == model))
    else:
        statement = insert(QueueRow).values(model=model, mode=mode)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[QueueRow.model], set_={"mode": mode, "since": func.now()}, where=QueueRow.mode != mode
            )
        )
    return next(queue for queue in _load_queues(session) if queue.model == model)


@transactional
def list_queues(session: Session) -> list[ModelQueue]:
    """List the queue of each model, in the order of the catalog."""
    return _load_queues(session)


def is_queue_open() -> ColumnElement[bool]:
    """Build the condition that runs of the run's model may start: its queue is not paused."""
    # A drained queue is open here: what was accepted is finished.
    return ~exists().where(QueueRow.model == RunRow.model, QueueRow.mode == "paused")


@transactional
def list_draining_models(session: Session, models: Collection[str]) -> list[str]:
    """List those of the models whose queue is being drained: they take no new jobs."""
    return list_draining_in(session, models)


def list_draining_in(session: Session, models: Collection[str]) -> list[str]:
    """List draining models inside the caller's transaction."""
    statement = select(QueueRow.model).where(QueueRow.model.in_(models), QueueRow.mode == "draining")
    return sorted(session.scalars(statement))


def _load_queues(session: Session) -> list[ModelQueue]:
    overrides = {row.model: row for row in session.scalars(select(QueueRow))}
    queued = (
        select(RunRow.model, RunRow.state, func.count(), func.min(RunRow.created_at))
        .where(RunRow.state.in_([RunState.QUEUED, RunState.RUNNING, RunState.WAITING]))
        .group_by(RunRow.model, RunRow.state)
    )
    state_counts = {(row[0], row[1]): (row[2], row[3]) for row in session.execute(queued)}
    hour = func.now() - func.make_interval(0, 0, 0, 0, 1)
    median_wait = func.percentile_cont(0.5).within_group(RunRow.started_at - RunRow.created_at)
    # What started in the last hour still runs or has ended in it: both are few, and each has an index.
    lately = or_(RunRow.state == RunState.RUNNING, and_(RunRow.state.in_(ENDED_STATES), RunRow.finished_at > hour))
    recent = select(RunRow.model, median_wait).where(RunRow.started_at > hour, lately).group_by(RunRow.model)
    waits: dict[str, float] = {row[0]: row[1].total_seconds() for row in session.execute(recent)}
    return [_build_queue(model, overrides.get(model), state_counts, waits.get(model)) for model in CATALOG]


def _build_queue(
    model: str, override: QueueRow | None, state_counts: dict[Any, Any], wait_s: float | None
) -> ModelQueue:
    depth, oldest = state_counts.get((model, RunState.QUEUED), (0, None))
    running, waiting = (
        state_counts.get((model, state), (0, None))[0] for state in (RunState.RUNNING, RunState.WAITING)
    )
    mode: QueueMode = "open" if override is None else "paused" if override.mode == "paused" else "draining"
    since = override.since if override else None
    return ModelQueue(model, mode, since, depth, running, waiting, oldest, wait_s)

"""What operators decide about a model's queue, and how the queues stand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.catalog import MENU
from shared.store.transaction import verb
from shared.tables import QueueRow, RunRow
from shared.values import RunState, stamp

Mode = Literal["open", "paused", "draining"]
ENDED = tuple(state for state in RunState if state.ended)


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue of one model.

    Args:
        mode: `open`; `paused`: no run of it starts; `draining`: what is queued is done, new jobs are refused, and
            batches give no film a job.
        depth: runs that are queued; running: runs that run; waiting: runs that wait for another model.
        oldest_at: since when the oldest queued run has waited.
        wait_s: how long the runs that started in the last hour had waited: the median; None when there were none.
    """

    model: str
    mode: Mode
    since: datetime | None
    depth: int
    running: int
    waiting: int
    oldest_at: datetime | None
    wait_s: float | None

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "model": self.model,
            "mode": self.mode,
            "since": stamp(self.since),
            "depth": self.depth,
            "running": self.running,
            "waiting": self.waiting,
            "oldest_at": stamp(self.oldest_at),
            "wait_s": None if self.wait_s is None else round(self.wait_s, 3),
        }


@verb
def set_mode(session: Session, model: str, mode: Mode) -> Queue:
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
    return next(queue for queue in _all(session) if queue.model == model)


@verb
def all(session: Session) -> list[Queue]:  # noqa: A001 (queues.all() says what it gives)
    """The queue of each model on the menu, in its order."""
    return _all(session)


@verb
def draining(session: Session, models: Collection[str]) -> list[str]:
    """Those of the models that take no new jobs."""
    return closed(session, models)


def closed(session: Session, models: Collection[str]) -> list[str]:
    """The same inside a transaction."""
    statement = select(QueueRow.model).where(QueueRow.model.in_(models), QueueRow.mode == "draining")
    return sorted(session.scalars(statement))


def _all(session: Session) -> list[Queue]:
    decided = {row.model: row for row in session.scalars(select(QueueRow))}
    queued = (
        select(RunRow.model, RunRow.state, func.count(), func.min(RunRow.created_at))
        .where(RunRow.state.in_([RunState.QUEUED, RunState.RUNNING, RunState.WAITING]))
        .group_by(RunRow.model, RunRow.state)
    )
    told = {(row[0], row[1]): (row[2], row[3]) for row in session.execute(queued)}
    hour = func.now() - func.make_interval(0, 0, 0, 0, 1)
    waited = func.percentile_cont(0.5).within_group(RunRow.started_at - RunRow.created_at)
    # What started in the last hour still runs or has ended in it: both are few, and each has an index.
    lately = or_(RunRow.state == RunState.RUNNING, and_(RunRow.state.in_(ENDED), RunRow.finished_at > hour))
    recent = select(RunRow.model, waited).where(RunRow.started_at > hour, lately).group_by(RunRow.model)
    waits: dict[str, float] = {row[0]: row[1].total_seconds() for row in session.execute(recent)}
    return [_queue(model, decided.get(model), told, waits.get(model)) for model in MENU]


def _queue(model: str, decided: QueueRow | None, told: dict[Any, Any], wait_s: float | None) -> Queue:
    depth, oldest = told.get((model, RunState.QUEUED), (0, None))
    running, waiting = (told.get((model, state), (0, None))[0] for state in (RunState.RUNNING, RunState.WAITING))
    mode: Mode = "open" if decided is None else "paused" if decided.mode == "paused" else "draining"
    since = decided.since if decided else None
    return Queue(model, mode, since, depth, running, waiting, oldest, wait_s)

"""How batches stand: the state of each film from its job, by one statement however many there are.

Once all films of a batch have ended, beat writes down what they came to (`settle`), and nobody counts them again; what
could change it takes that back first (`reopen`). An archive has many such batches, of ten thousand films each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from shared.tables import BatchItemRow, BatchRow, JobRunRow, RunRow
from shared.values import LIVE, RunState
from shared.values.archive.batches import LIVE_JOBS, Batch, Item, Work, batch_state

ITEMS = """
    SELECT i.batch_id, i.position, i.video_id, i.job_id, i.before, i.error, i.started_at, told.updated_at,
           CASE WHEN i.error IS NULL THEN coalesce(j.cancelled_at, told.finished_at) ELSE i.started_at END AS ended_at,
           coalesce(i.error->>'code', told.code) AS code,
           CASE WHEN i.started_at IS NULL OR i.job_id IS NULL THEN 0 ELSE coalesce(told.fraction, 0) END AS fraction,
           CASE WHEN i.started_at IS NULL THEN 'waiting'
                WHEN i.error IS NOT NULL THEN 'refused'
                WHEN i.job_id IS NULL THEN 'forgotten'
                WHEN j.cancelled_at IS NOT NULL THEN CASE WHEN told.stopping THEN 'cancelling' ELSE 'cancelled' END
                WHEN told.done THEN 'succeeded'
                WHEN told.live THEN CASE WHEN told.begun THEN 'running' ELSE 'queued' END
                WHEN told.failed THEN 'failed'
                ELSE 'cancelled' END AS state
    FROM batch_items i
    LEFT JOIN jobs j ON j.id = i.job_id AND j.cancelled_at IS NOT NULL
    LEFT JOIN (
        SELECT m.batch_id, m.position, max(r.updated_at) AS updated_at, max(r.finished_at) AS finished_at,
               min(r.error->>'code') FILTER (WHERE r.state = 'failed') AS code,
               avg(CASE r.state WHEN 'done' THEN 1 ELSE r.fraction END) AS fraction,
               bool_and(r.state = 'done') AS done,
               bool_or(r.state IN ('waiting', 'queued', 'running')) AS live,
               bool_or(r.state NOT IN ('waiting', 'queued')) AS begun,
               bool_or(r.state = 'failed') AS failed,
               bool_or(r.state = 'running' AND r.cancel_requested) AS stopping
        FROM batch_items m JOIN job_runs l ON l.job_id = m.job_id JOIN runs r ON r.id = l.run_id
        WHERE m.batch_id IN :batches
        GROUP BY m.batch_id, m.position
    ) AS told ON told.batch_id = i.batch_id AND told.position = i.position
    WHERE i.batch_id IN :batches
"""
"""The films of some batches; the same rule as `shared.values.job_state`, which a test compares."""

COUNTS = text(
    f"""
    SELECT batch_id, state, count(*) AS films, sum(fraction) AS fraction,
           min(started_at) AS started_at, max(updated_at) AS updated_at
    FROM ({ITEMS}) AS items GROUP BY batch_id, state
    """  # noqa: S608 (only our own constant goes in)
).bindparams(bindparam("batches", expanding=True))
PAGE = text(
    f"""
    SELECT * FROM ({ITEMS}) AS items
    WHERE position > :after AND (:every OR state IN :states) ORDER BY position LIMIT :most
    """  # noqa: S608 (only our own constant goes in)
).bindparams(bindparam("batches", expanding=True), bindparam("states", expanding=True))


@dataclass(frozen=True, slots=True)
class Told:
    """The films of a batch that are in one state.

    Args:
        films: how many.
        fraction: their parts of the work that are done, added up.
        started_at, updated_at: when the first of them got its job, and when the last of their runs was heard of.
    """

    state: str
    films: int
    fraction: float
    started_at: datetime | None
    updated_at: datetime | None

    def record(self) -> dict[str, Any]:
        """JSON form; read back by `Told.read`."""
        times = {name: getattr(self, name) for name in ("started_at", "updated_at")}
        exact = {name: time.isoformat() if time else None for name, time in times.items()}
        return {"state": self.state, "films": self.films, "fraction": self.fraction, **exact}

    @staticmethod
    def read(record: Mapping[str, Any]) -> Told:
        """Inverse of `record`."""
        times = (record["started_at"], record["updated_at"])
        started, updated = (datetime.fromisoformat(time) if time else None for time in times)
        return Told(record["state"], record["films"], record["fraction"], started, updated)


def batches(session: Session, rows: Sequence[BatchRow]) -> list[Batch]:
    """Batches as they stand, by one statement."""
    told = {row.id: [Told.read(one) for one in row.outcome["films"]] for row in rows if row.outcome is not None}
    told |= _count(session, [row.id for row in rows if row.outcome is None])
    now = session.scalars(select(func.now())).one()
    return [_batch(row, told[row.id], now) for row in rows]


def _count(session: Session, batch_ids: Sequence[str]) -> dict[str, list[Told]]:
    """The films of each batch by state."""
    told: dict[str, list[Told]] = {batch_id: [] for batch_id in batch_ids}
    if batch_ids:
        for one in session.execute(COUNTS, {"batches": batch_ids}):
            films = Told(one.state, one.films, float(one.fraction), one.started_at, one.updated_at)
            told[one.batch_id].append(films)
    return told


def settle(session: Session, row: BatchRow) -> bool:
    """Write down what the films of a batch, whose row is locked, have come to; False: it has not ended."""
    told = _count(session, [row.id])[row.id]
    counts = {one.state: one.films for one in told}
    ended = batch_state(counts, paused=row.paused_at is not None, cancelled=row.cancelled_at is not None).ended
    if ended:
        row.outcome = {"films": [one.record() for one in told]}
        session.flush()
    return ended


def reopen(session: Session, which: ColumnElement[bool]) -> None:
    """Let the batches of some films be counted again, before a job of them changes or goes.

    Locked whether or not they have ended, so that nobody counts them at this moment; before jobs are locked.
    """
    mine = select(BatchItemRow.batch_id).where(which)
    rows = session.scalars(select(BatchRow).where(BatchRow.id.in_(mine)).order_by(BatchRow.id).with_for_update())
    for row in rows:
        row.outcome = None


def _batch(row: BatchRow, told: Sequence[Told], now: datetime) -> Batch:
    films = sum(one.films for one in told)
    fraction = sum(one.fraction for one in told) / films if films else 1.0
    started = min((one.started_at for one in told if one.started_at), default=None)
    updated = max((one.updated_at for one in told if one.updated_at), default=row.created_at)
    counts = {one.state: one.films for one in sorted(told, key=lambda one: one.state)}
    going = any(counts.get(state) for state in (*LIVE_JOBS, "waiting"))
    live = going and row.paused_at is None and row.cancelled_at is None
    eta = (now - started).total_seconds() * (1 - fraction) / fraction if live and started and fraction else None
    return Batch(
        id=row.id,
        name=row.name,
        kind=row.kind,
        schedule_id=row.schedule_id,
        due_at=row.due_at,
        work=Work.read(row.work),
        counts=counts,
        fraction=fraction,
        eta_s=eta,
        paused_at=row.paused_at,
        cancelled_at=row.cancelled_at,
        created_at=row.created_at,
        started_at=started,
        updated_at=max(updated, row.created_at),
    )


def items(
    session: Session, batch_id: str, *, limit: int | None, after: int | None = None, states: Sequence[str] | None = None
) -> list[Item]:
    """Films of a batch in order, of some states or all."""
    given: Mapping[str, Any] = {
        "batches": [batch_id],
        "after": -1 if after is None else after,
        "every": states is None,
        "states": list(states or ("",)),
        "most": limit,
    }
    return [
        Item(row.position, row.video_id, row.state, row.job_id, row.before, row.error)
        for row in session.execute(PAGE, given)
    ]


def unfinished(session: Session, batch_id: str) -> int:
    """Jobs of a batch that have a run which has not ended."""
    statement = (
        select(func.count(JobRunRow.job_id.distinct()))
        .join(RunRow, RunRow.id == JobRunRow.run_id)
        .join(BatchItemRow, BatchItemRow.job_id == JobRunRow.job_id)
        .where(BatchItemRow.batch_id == batch_id, RunRow.state.in_(LIVE))
    )
    return session.scalars(statement).one()


def current(session: Session, video_id: str, models: Sequence[str]) -> dict[str, str]:
    """The latest finished run of each model on a film: what is shown of it, until another one is done."""
    statement = (
        select(RunRow.model, RunRow.id)
        .where(RunRow.video_id == video_id, RunRow.model.in_(models), RunRow.state == RunState.DONE)
        .ext(distinct_on(RunRow.model))
        .order_by(RunRow.model, RunRow.finished_at.desc(), RunRow.id.desc())
    )
    return {row[0]: row[1] for row in session.execute(statement)}

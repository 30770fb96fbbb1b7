"""How batches stand: the state of each film from its job, by one statement however many there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from shared.tables import BatchItemRow, BatchRow, JobRunRow, RunRow
from shared.values import LIVE, RunState
from shared.values.archive.batches import LIVE_JOBS, Batch, Item, Work

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
    LEFT JOIN jobs j ON j.id = i.job_id
    LEFT JOIN (
        SELECT l.job_id, max(r.updated_at) AS updated_at, max(r.finished_at) AS finished_at,
               min(r.error->>'code') FILTER (WHERE r.state = 'failed') AS code,
               avg(CASE r.state WHEN 'done' THEN 1 ELSE r.fraction END) AS fraction,
               bool_and(r.state = 'done') AS done,
               bool_or(r.state IN ('waiting', 'queued', 'running')) AS live,
               bool_or(r.state NOT IN ('waiting', 'queued')) AS begun,
               bool_or(r.state = 'failed') AS failed,
               bool_or(r.state = 'running' AND r.cancel_requested) AS stopping
        FROM job_runs l JOIN runs r ON r.id = l.run_id
        WHERE l.job_id IN (SELECT job_id FROM batch_items WHERE batch_id IN :batches)
        GROUP BY l.job_id
    ) AS told ON told.job_id = i.job_id
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


def batches(session: Session, rows: Sequence[BatchRow]) -> list[Batch]:
    """Batches as they stand, by one statement."""
    told: dict[str, list[Any]] = defaultdict(list)
    if rows:
        for one in session.execute(COUNTS, {"batches": [row.id for row in rows]}):
            told[one.batch_id].append(one)
    now = session.scalars(select(func.now())).one()
    return [_batch(row, told[row.id], now) for row in rows]


def _batch(row: BatchRow, told: Sequence[Any], now: datetime) -> Batch:
    films = sum(one.films for one in told)
    fraction = float(sum(one.fraction for one in told)) / films if films else 1.0
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

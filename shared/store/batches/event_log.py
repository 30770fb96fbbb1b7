"""Numbered events of a batch, one for each job that ends, so that a client can resume after any event.

No worker writes them. Whoever looks at a batch writes down the ends that nobody has noticed yet, under a lock of the
batch; from then on each has its number. A time stamp would not do: of two transactions, the one that began first may be
seen last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session

from shared.errors import NotFound
from shared.store.batches import progress
from shared.store.transaction import transactional
from shared.tables import BatchEventRow, BatchRow
from shared.values.batches import Batch, BatchEvent

MAX_EVENTS = 500
"""Ends that one look brings for each batch at most; the next look brings the rest."""

INSERT_EVENTS = text(
    f"""
    INSERT INTO batch_ends (batch_id, seq, position, video_id, job_id, state, code, ended_at)
    SELECT batch_id,
           (SELECT coalesce(max(seq), 0) FROM batch_ends WHERE batch_id = items.batch_id)
               + row_number() OVER (PARTITION BY batch_id ORDER BY ended_at, position),
           position, video_id, job_id, state, CASE WHEN state IN ('failed', 'refused') THEN code END, ended_at
    FROM ({progress.ITEM_STATES_SQL}) AS items
    WHERE state IN ('succeeded', 'failed', 'cancelled', 'refused')
      AND NOT EXISTS (SELECT 1 FROM batch_ends e
                      WHERE e.batch_id = items.batch_id AND e.position = items.position
                        AND e.state = items.state AND e.ended_at = items.ended_at)
    """  # noqa: S608 (only our own constant goes in)
).bindparams(bindparam("batches", expanding=True))


@dataclass(frozen=True, slots=True)
class BatchSnapshot:
    """A batch and some of its events in order. Every end that is counted in the batch already has its event."""

    batch: Batch
    events: tuple[BatchEvent, ...]
    last_seq: int


@transactional
def poll_batches(session: Session, since: Mapping[str, int]) -> dict[str, BatchSnapshot]:
    """Read batches, each with its events after the given number; unknown ids are left out."""
    rows = list(session.scalars(select(BatchRow).where(BatchRow.id.in_(since)).order_by(BatchRow.id)))
    batches = progress.load_batches(session, rows)  # before the ends: what the state counts is among them
    for row in rows:
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(row.id, 0))))
    if rows:
        session.execute(INSERT_EVENTS, {"batches": [row.id for row in rows]})
    return {batch.id: _build_snapshot(session, batch, since[batch.id]) for batch in batches}


def _build_snapshot(session: Session, batch: Batch, after: int) -> BatchSnapshot:
    last = session.scalars(select(func.max(BatchEventRow.seq)).where(BatchEventRow.batch_id == batch.id)).one()
    events = _list_events_in(session, batch.id, after) if (last or 0) > after else ()
    return BatchSnapshot(batch, events, last or 0)


@transactional
def list_events(session: Session, batch_id: str, seq: int) -> tuple[BatchEvent, ...]:
    """List the events of a batch after a number, at most `MAX_EVENTS`; NotFound."""
    if session.get(BatchRow, batch_id) is None:
        raise NotFound("There is no such batch.")
    return _list_events_in(session, batch_id, seq)


def _list_events_in(session: Session, batch_id: str, seq: int) -> tuple[BatchEvent, ...]:
    statement = (
        select(BatchEventRow)
        .where(BatchEventRow.batch_id == batch_id, BatchEventRow.seq > seq)
        .order_by(BatchEventRow.seq)
        .limit(MAX_EVENTS)
    )
    return tuple(
        BatchEvent(row.seq, row.position, row.video_id, row.job_id, row.state, row.code, row.ended_at)
        for row in session.scalars(statement)
    )

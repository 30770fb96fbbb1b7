"""Progress of batches: the state of each video from its job, in one statement for any number of batches.

Once all videos of a batch have ended, beat stores their counts (`freeze_outcome`), and nobody counts them again, as
there may be many such batches of ten thousand videos. Whatever could change the counts deletes them first
(`invalidate_outcomes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session

from shared.store.jobs.state import AGGREGATED_FLAGS, build_state_case
from shared.tables import BatchItemRow, BatchRow, JobRunRow, RunRow
from shared.values import LIVE_STATES
from shared.values.batches import LIVE_JOB_STATES, Batch, BatchItem, Workload, derive_batch_state

ITEM_STATES_SQL = f"""
    SELECT i.batch_id, i.position, i.video_id, i.job_id, i.before, i.error, i.started_at, totals.updated_at,
           CASE WHEN i.error IS NULL THEN coalesce(j.cancelled_at, totals.finished_at)
                ELSE i.started_at END AS ended_at,
           coalesce(i.error->>'code', totals.code) AS code,
           CASE WHEN i.started_at IS NULL OR i.job_id IS NULL THEN 0 ELSE coalesce(totals.fraction, 0) END AS fraction,
           CASE WHEN i.started_at IS NULL THEN 'waiting'
                WHEN i.error IS NOT NULL THEN 'refused'
                WHEN i.job_id IS NULL THEN 'forgotten'
                ELSE {build_state_case("totals", "j.cancelled_at")} END AS state
    FROM batch_items i
    LEFT JOIN jobs j ON j.id = i.job_id AND j.cancelled_at IS NOT NULL
    LEFT JOIN (
        SELECT m.batch_id, m.position, max(runs.updated_at) AS updated_at, max(runs.finished_at) AS finished_at,
               min(runs.error->>'code') FILTER (WHERE runs.state = 'failed') AS code,
               avg(CASE runs.state WHEN 'done' THEN 1 ELSE runs.fraction END) AS fraction,
               {AGGREGATED_FLAGS}
        FROM batch_items m JOIN job_runs l ON l.job_id = m.job_id JOIN runs ON runs.id = l.run_id
        WHERE m.batch_id IN :batches
        GROUP BY m.batch_id, m.position
    ) AS totals ON totals.batch_id = i.batch_id AND totals.position = i.position
    WHERE i.batch_id IN :batches
"""  # noqa: S608 (only our own constants go in)
"""The videos of some batches: `waiting`, `refused` and `forgotten` are states of the item, all others of its job."""

STATE_COUNTS = text(
    f"""
    SELECT batch_id, state, count(*) AS videos, sum(fraction) AS fraction,
           min(started_at) AS started_at, max(updated_at) AS updated_at
    FROM ({ITEM_STATES_SQL}) AS items GROUP BY batch_id, state
    """  # noqa: S608 (only our own constant goes in)
).bindparams(bindparam("batches", expanding=True))
ITEM_PAGE = text(
    f"""
    SELECT * FROM ({ITEM_STATES_SQL}) AS items
    WHERE position > :after AND (:every OR state IN :states) ORDER BY position LIMIT :most
    """  # noqa: S608 (only our own constant goes in)
).bindparams(bindparam("batches", expanding=True), bindparam("states", expanding=True))


@dataclass(frozen=True, slots=True)
class StateCount:
    """Totals over the videos of a batch that are in one state.

    Args:
        videos: how many.
        fraction: their parts of the work that are done, added up.
        started_at, updated_at: when the first of them got its job, and when the last of their runs was heard of.
    """

    state: str
    videos: int
    fraction: float
    started_at: datetime | None
    updated_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form; read back by `from_dict`."""
        times = {name: getattr(self, name) for name in ("started_at", "updated_at")}
        exact = {name: time.isoformat() if time else None for name, time in times.items()}
        return {"state": self.state, "videos": self.videos, "fraction": self.fraction, **exact}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> StateCount:
        """Inverse of `to_dict`."""
        times = (record["started_at"], record["updated_at"])
        started, updated = (datetime.fromisoformat(time) if time else None for time in times)
        return StateCount(record["state"], record["videos"], record["fraction"], started, updated)


def load_batches(session: Session, rows: Sequence[BatchRow]) -> list[Batch]:
    """Build batches from their rows, with counts from the frozen outcome or from the present states."""
    state_counts = {
        row.id: [StateCount.from_dict(record) for record in row.outcome["videos"]]
        for row in rows
        if row.outcome is not None
    }
    state_counts |= _count_states(session, [row.id for row in rows if row.outcome is None])
    now = session.scalars(select(func.now())).one()
    return [_build_batch(row, state_counts[row.id], now) for row in rows]


def _count_states(session: Session, batch_ids: Sequence[str]) -> dict[str, list[StateCount]]:
    """Count the videos of each batch by state."""
    state_counts: dict[str, list[StateCount]] = {batch_id: [] for batch_id in batch_ids}
    if batch_ids:
        for row in session.execute(STATE_COUNTS, {"batches": batch_ids}):
            state_count = StateCount(row.state, row.videos, float(row.fraction), row.started_at, row.updated_at)
            state_counts[row.batch_id].append(state_count)
    return state_counts


def freeze_outcome(session: Session, row: BatchRow) -> bool:
    """Store the final counts of a batch whose row is locked. False: it has not ended."""
    state_counts = _count_states(session, [row.id])[row.id]
    counts = {state_count.state: state_count.videos for state_count in state_counts}
    ended = derive_batch_state(
        counts, paused=row.paused_at is not None, cancelled=row.cancelled_at is not None
    ).has_ended
    if ended:
        row.outcome = {"videos": [state_count.to_dict() for state_count in state_counts]}
        session.flush()
    return ended


def _build_batch(row: BatchRow, state_counts: Sequence[StateCount], now: datetime) -> Batch:
    video_count = sum(state_count.videos for state_count in state_counts)
    fraction = sum(state_count.fraction for state_count in state_counts) / video_count if video_count else 1.0
    started = min((state_count.started_at for state_count in state_counts if state_count.started_at), default=None)
    updated = max(
        (state_count.updated_at for state_count in state_counts if state_count.updated_at), default=row.created_at
    )
    counts = {state_count.state: state_count.videos for state_count in sorted(state_counts, key=lambda one: one.state)}
    unfinished = any(counts.get(state) for state in (*LIVE_JOB_STATES, "waiting"))
    live = unfinished and row.paused_at is None and row.cancelled_at is None
    eta = (now - started).total_seconds() * (1 - fraction) / fraction if live and started and fraction else None
    return Batch(
        id=row.id,
        name=row.name,
        kind=row.kind,
        schedule_id=row.schedule_id,
        due_at=row.due_at,
        work=Workload.from_dict(row.work),
        counts=counts,
        fraction=fraction,
        eta_s=eta,
        paused_at=row.paused_at,
        cancelled_at=row.cancelled_at,
        created_at=row.created_at,
        started_at=started,
        updated_at=max(updated, row.created_at),
    )


def load_items(
    session: Session, batch_id: str, *, limit: int | None, after: int | None = None, states: Sequence[str] | None = None
) -> list[BatchItem]:
    """Load the videos of a batch in order, of some states or of all."""
    parameters: Mapping[str, Any] = {
        "batches": [batch_id],
        "after": -1 if after is None else after,
        "every": states is None,
        "states": list(states or ("",)),
        "most": limit,
    }
    return [
        BatchItem(row.position, row.video_id, row.state, row.job_id, row.before, row.error)
        for row in session.execute(ITEM_PAGE, parameters)
    ]


def count_unfinished_jobs(session: Session, batch_id: str) -> int:
    """Count the jobs of a batch with an unfinished run."""
    statement = (
        select(func.count(JobRunRow.job_id.distinct()))
        .join(RunRow, RunRow.id == JobRunRow.run_id)
        .join(BatchItemRow, BatchItemRow.job_id == JobRunRow.job_id)
        .where(BatchItemRow.batch_id == batch_id, RunRow.state.in_(LIVE_STATES))
    )
    return session.scalars(statement).one()

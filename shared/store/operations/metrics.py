"""Metrics for monitoring: counted events, and numbers read from the present rows.

What leaves a row behind is read from the rows, and goes down when they are deleted. What leaves none (a lease that was
lost, a message or results that came in vain) is counted in the transaction in which it happens: with its effect, and
never without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.store.batches import progress
from shared.store.jobs.state import AGGREGATED_FLAGS, build_state_case
from shared.store.transaction import transactional
from shared.tables import BatchRow, CounterRow, RunRow, ScheduleRow
from shared.values import RunState
from shared.values.jobs import PRIORITY_NAMES

RUN_COUNTS = text(
    """
    SELECT model, state, '' AS code, count(*) AS runs FROM runs
    WHERE state IN ('waiting', 'queued', 'running') GROUP BY model, state
    UNION ALL
    SELECT model, state, '', count(*) FROM runs WHERE state IN ('done', 'cancelled', 'skipped') GROUP BY model, state
    UNION ALL
    SELECT model, state, coalesce(error->>'code', ''), count(*) FROM runs WHERE state = 'failed' GROUP BY 1, 2, 3
    """
)
JOB_COUNTS = text(
    f"""
    WITH totals AS (
        SELECT l.job_id, {AGGREGATED_FLAGS}
        FROM job_runs l JOIN runs ON runs.id = l.run_id
        WHERE l.job_id IN (SELECT u.job_id FROM job_runs u JOIN runs v ON v.id = u.run_id WHERE v.state <> 'done')
        GROUP BY l.job_id
    )
    SELECT {build_state_case("totals", "jobs.cancelled_at")} AS state, count(*) AS jobs
    FROM jobs LEFT JOIN totals ON totals.job_id = jobs.id GROUP BY 1
    """  # noqa: S608 (only our own constants go in)
)
"""Jobs by state. Jobs whose runs are all done, most of a long history, are counted without reading their runs."""
STAGE_RATES = text(
    """
    SELECT r.model, s->>'name' AS stage, s->>'unit' AS unit,
           sum((s->>'done')::float) / sum((s->>'seconds')::float) AS per_second
    FROM runs r, jsonb_array_elements(r.stages) AS s
    WHERE (r.state = 'running' OR (r.state = 'done' AND r.finished_at > now() - interval '1 hour'))
      AND (s->>'done')::float > 0 AND (s->>'seconds')::float > 0
    GROUP BY r.model, stage, unit
    """
)


@dataclass(frozen=True, slots=True)
class StoreMetrics:
    """The metrics of one moment.

    Args:
        depths: (model, priority) -> runs that are queued.
        oldest_s: the same -> seconds since the oldest of them was made.
        runs: (model, state, code of its error or "") -> runs.
        per_second: (model, stage, unit) -> units a second, over what runs now and what was done in the last hour.
        jobs, batches: by state.
        next_s: schedule -> seconds until its next slot, less than 0 when it is late; without those that are paused.
        counters: (name, labels) -> how often it has happened so far.
    """

    depths: Mapping[tuple[str, str], int]
    oldest_s: Mapping[tuple[str, str], float]
    runs: Mapping[tuple[str, str, str], int]
    per_second: Mapping[tuple[str, str, str], float]
    jobs: Mapping[str, int]
    batches: Mapping[str, int]
    next_s: Mapping[str, float]
    counters: Mapping[tuple[str, tuple[tuple[str, str], ...]], int]


@transactional
def read_metrics(session: Session) -> StoreMetrics:
    """Read all metrics in one transaction."""
    now = session.scalars(select(func.now())).one()
    queued = _read_queues(session)
    return StoreMetrics(
        depths={key: runs for key, (runs, _) in queued.items()},
        oldest_s={key: (now - oldest).total_seconds() for key, (_, oldest) in queued.items()},
        runs={(row.model, row.state, row.code): row.runs for row in session.execute(RUN_COUNTS)},
        per_second={(row.model, row.stage, row.unit): row.per_second for row in session.execute(STAGE_RATES)},
        jobs={row.state: row.jobs for row in session.execute(JOB_COUNTS)},
        batches=Counter(
            batch.state.value for batch in progress.load_batches(session, list(session.scalars(select(BatchRow))))
        ),
        next_s={schedule: (due - now).total_seconds() for schedule, due in _read_next_slots(session)},
        counters=_read_counters(session),
    )


def _read_queues(session: Session) -> dict[tuple[str, str], tuple[int, datetime]]:
    """Runs by model and priority, and when the oldest was made."""
    statement = (
        select(RunRow.model, RunRow.priority, func.count(), func.min(RunRow.created_at))
        .where(RunRow.state == RunState.QUEUED)
        .group_by(RunRow.model, RunRow.priority)
    )
    return {(row[0], PRIORITY_NAMES[row[1]]): (row[2], row[3]) for row in session.execute(statement)}


def _read_next_slots(session: Session) -> list[tuple[str, datetime]]:
    statement = select(ScheduleRow.id, ScheduleRow.next_at).where(ScheduleRow.paused_at.is_(None))
    return [(row[0], row[1]) for row in session.execute(statement)]


def _read_counters(session: Session) -> dict[tuple[str, tuple[tuple[str, str], ...]], int]:
    rows = session.execute(select(CounterRow.name, CounterRow.labels, CounterRow.value))
    return {(name, tuple(sorted(labels.items()))): value for name, labels, value in rows}

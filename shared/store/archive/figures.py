"""Figures for those who watch from outside: events that were counted, and how the rows stand at the moment.

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
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.store.archive import standing
from shared.store.transaction import verb
from shared.store.views import PRIORITY_NAMES
from shared.tables import BatchRow, CounterRow, RunRow, ScheduleRow
from shared.values import RunState

LEASES_LOST = "leases_lost"
"""By model: claims of a worker that fell silent."""
MESSAGES_DROPPED = "messages_dropped"
"""By model and reason: messages that started nothing. Those of a run that runs or has ended were duplicates."""
RESULTS_DROPPED = "results_dropped"
"""By model: runs that a worker finished after another had been given them."""
REASONS = ("running", "ended", "waiting", "paused", "early", "gone")

RUNS = text(
    """
    SELECT model, state, '' AS code, count(*) AS runs FROM runs
    WHERE state IN ('waiting', 'queued', 'running') GROUP BY model, state
    UNION ALL
    SELECT model, state, '', count(*) FROM runs WHERE state IN ('done', 'cancelled', 'skipped') GROUP BY model, state
    UNION ALL
    SELECT model, state, coalesce(error->>'code', ''), count(*) FROM runs WHERE state = 'failed' GROUP BY 1, 2, 3
    """
)
JOBS = text(
    """
    WITH told AS (
        SELECT l.job_id, bool_or(r.state IN ('waiting', 'queued', 'running')) AS live,
               bool_or(r.state NOT IN ('waiting', 'queued')) AS begun, bool_or(r.state = 'failed') AS failed,
               bool_or(r.state = 'running' AND r.cancel_requested) AS stopping
        FROM job_runs l JOIN runs r ON r.id = l.run_id
        WHERE l.job_id IN (SELECT u.job_id FROM job_runs u JOIN runs v ON v.id = u.run_id WHERE v.state <> 'done')
        GROUP BY l.job_id
    )
    SELECT CASE WHEN j.cancelled_at IS NOT NULL THEN CASE WHEN told.stopping THEN 'cancelling' ELSE 'cancelled' END
                WHEN told.job_id IS NULL THEN 'succeeded'
                WHEN told.live THEN CASE WHEN told.begun THEN 'running' ELSE 'queued' END
                WHEN told.failed THEN 'failed'
                ELSE 'cancelled' END AS state,
           count(*) AS jobs
    FROM jobs j LEFT JOIN told ON told.job_id = j.id GROUP BY 1
    """
)
"""The same rule as `shared.values.job_state`, which a test compares; jobs whose runs are all done are only counted."""
RATES = text(
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
class Figures:
    """The ledger in numbers.

    Args:
        depths: (model, priority) -> runs that are queued.
        oldest_s: the same -> seconds since the oldest of them was made.
        runs: (model, state, code of its error or "") -> runs.
        per_second: (model, stage, unit) -> units a second, over what runs now and what was done in the last hour.
        jobs, batches: by state.
        next_s: schedule -> seconds until its next slot, less than 0 when it is late; without those that are paused.
        counted: (name, labels) -> how often it has happened so far.
    """

    depths: Mapping[tuple[str, str], int]
    oldest_s: Mapping[tuple[str, str], float]
    runs: Mapping[tuple[str, str, str], int]
    per_second: Mapping[tuple[str, str, str], float]
    jobs: Mapping[str, int]
    batches: Mapping[str, int]
    next_s: Mapping[str, float]
    counted: Mapping[tuple[str, tuple[tuple[str, str], ...]], int]


def count(session: Session, name: str, by: int = 1, **labels: str) -> None:
    """Something has happened; inside the transaction in which it did."""
    new = insert(CounterRow).values(name=name, labels=labels, value=by)
    session.execute(
        new.on_conflict_do_update(
            index_elements=[CounterRow.name, CounterRow.labels], set_={"value": CounterRow.value + new.excluded.value}
        )
    )


@verb
def read(session: Session) -> Figures:
    """The figures of this moment."""
    now = session.scalars(select(func.now())).one()
    queued = _queued(session)
    return Figures(
        depths={key: runs for key, (runs, _) in queued.items()},
        oldest_s={key: (now - oldest).total_seconds() for key, (_, oldest) in queued.items()},
        runs={(row.model, row.state, row.code): row.runs for row in session.execute(RUNS)},
        per_second={(row.model, row.stage, row.unit): row.per_second for row in session.execute(RATES)},
        jobs={row.state: row.jobs for row in session.execute(JOBS)},
        batches=Counter(one.state.value for one in standing.batches(session, list(session.scalars(select(BatchRow))))),
        next_s={schedule: (due - now).total_seconds() for schedule, due in _schedules(session)},
        counted=_counted(session),
    )


def _queued(session: Session) -> dict[tuple[str, str], tuple[int, datetime]]:
    """Runs by model and priority, and when the oldest was made."""
    statement = (
        select(RunRow.model, RunRow.priority, func.count(), func.min(RunRow.created_at))
        .where(RunRow.state == RunState.QUEUED)
        .group_by(RunRow.model, RunRow.priority)
    )
    return {(row[0], PRIORITY_NAMES[row[1]]): (row[2], row[3]) for row in session.execute(statement)}


def _schedules(session: Session) -> list[tuple[str, datetime]]:
    statement = select(ScheduleRow.id, ScheduleRow.next_at).where(ScheduleRow.paused_at.is_(None))
    return [(row[0], row[1]) for row in session.execute(statement)]


def _counted(session: Session) -> dict[tuple[str, tuple[tuple[str, str], ...]], int]:
    rows = session.execute(select(CounterRow.name, CounterRow.labels, CounterRow.value))
    return {(name, tuple(sorted(labels.items()))): value for name, labels, value in rows}

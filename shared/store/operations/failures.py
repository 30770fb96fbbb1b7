"""Failed runs of all jobs by error code and model, and their retry.

A failed run counts while a job stands failed by it; once the job is tried again it refers to another run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound
from shared.store import batch_outcome
from shared.store.jobs import jobs
from shared.store.transaction import transactional
from shared.tables import BatchItemRow, JobRow, JobRunRow, RunRow
from shared.values import LIVE_STATES, RunState, WakeUp, format_timestamp

MAX_RUN_IDS = 20
"""Runs of a group that are named: the newest."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Runs of one model that failed with one code.

    Args:
        runs: how many.
        newest_at, oldest_at: when the last and the first of them failed.
        detail: what the newest says.
        run_ids: the newest, newest first.
    """

    code: str
    model: str
    runs: int
    newest_at: datetime
    oldest_at: datetime
    detail: str
    run_ids: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "code": self.code,
            "model": self.model,
            "runs": self.runs,
            "newest_at": format_timestamp(self.newest_at),
            "oldest_at": format_timestamp(self.oldest_at),
            "detail": self.detail,
            "run_ids": list(self.run_ids),
        }


@transactional
def list_failure_groups(session: Session) -> list[FailureGroup]:
    """List groups of failed runs, the largest first."""
    code = RunRow.error["code"].as_string()
    newest = RunRow.finished_at.desc()
    statement = (
        select(
            code.label("code"),
            RunRow.model,
            func.count().label("runs"),
            func.max(RunRow.finished_at).label("newest_at"),
            func.min(RunRow.finished_at).label("oldest_at"),
            func.array_agg(aggregate_order_by(RunRow.id, newest, RunRow.id.desc()))[1:MAX_RUN_IDS].label("run_ids"),
            func.array_agg(aggregate_order_by(RunRow.error["detail"].as_string(), newest))[1].label("detail"),
        )
        .where(RunRow.state == RunState.FAILED, _is_wanted_by_job())
        .group_by(code, RunRow.model)
        .order_by(func.count().desc(), code, RunRow.model)
    )
    return [
        FailureGroup(row.code, row.model, row.runs, row.newest_at, row.oldest_at, row.detail, tuple(row.run_ids))
        for row in session.execute(statement)
    ]


def _is_wanted_by_job() -> ColumnElement[bool]:
    """Whether a job that nobody has let go of refers to the run."""
    return exists().where(JobRunRow.run_id == RunRow.id, JobRow.id == JobRunRow.job_id, JobRow.cancelled_at.is_(None))


@dataclass(frozen=True, slots=True)
class RetryResult:
    """Some jobs that are tried again.

    Args:
        has_more: there may be more of them.
        wakeups: what to send for them after the commit.
        failed_by: what failed until then was looked at; given to the next call, it finds the rest.
    """

    jobs: int
    has_more: bool
    wakeups: tuple[WakeUp, ...]
    failed_by: datetime


@transactional
def retry_failed_jobs(
    session: Session, code: str, model: str, *, limit: int, max_attempts: int, failed_by: datetime | None = None
) -> RetryResult:
    """Plan some of the jobs once more that stand failed by such a run, in one transaction.

    A job that still has work going on is left alone, and so is what has failed since `failed_by` (None: since now).
    """
    failed_by = failed_by or session.scalars(select(func.now())).one()
    ids = list(session.scalars(_failed_jobs_query(code, model, failed_by).limit(limit)))
    batch_outcome.invalidate_outcomes(session, BatchItemRow.job_id.in_(ids))  # batches are locked before jobs
    retried, wakeups = 0, []
    for job_id in ids:
        try:
            wakeups += jobs.retry_in(session, job_id, max_attempts)[1]
        except (Conflict, NotFound):
            continue  # somebody else has tried it again, or deleted it, since we looked
        retried += 1
    return RetryResult(retried, len(ids) == limit, tuple(wakeups), failed_by)


@transactional
def count_failed_jobs(session: Session, code: str, model: str, *, failed_by: datetime) -> int:
    """How many jobs such a call would still find."""
    return session.scalars(
        select(func.count()).select_from(_failed_jobs_query(code, model, failed_by).subquery())
    ).one()


def _failed_jobs_query(code: str, model: str, failed_by: datetime) -> Select[str]:
    """Jobs without work going on, with a run of the model that failed with the code."""
    job_runs = select(JobRunRow.job_id).join(RunRow, RunRow.id == JobRunRow.run_id).where(JobRunRow.job_id == JobRow.id)
    failed = job_runs.where(
        RunRow.state == RunState.FAILED,
        RunRow.model == model,
        RunRow.error["code"].as_string() == code,
        RunRow.finished_at <= failed_by,
    )
    live = job_runs.where(RunRow.state.in_(LIVE_STATES))
    return select(JobRow.id).where(JobRow.cancelled_at.is_(None), failed.exists(), ~live.exists()).order_by(JobRow.id)

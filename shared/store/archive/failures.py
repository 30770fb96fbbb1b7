"""What has failed, by code and model, and trying it again.

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
from shared.store import jobs
from shared.store.archive import standing
from shared.store.transaction import verb
from shared.tables import BatchItemRow, JobRow, JobRunRow, RunRow
from shared.values import LIVE, RunState, Wake, stamp

NAMED = 20
"""Runs of a group that are named: the newest."""


@dataclass(frozen=True, slots=True)
class Failures:
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

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "code": self.code,
            "model": self.model,
            "runs": self.runs,
            "newest_at": stamp(self.newest_at),
            "oldest_at": stamp(self.oldest_at),
            "detail": self.detail,
            "run_ids": list(self.run_ids),
        }


@verb
def all(session: Session) -> list[Failures]:  # noqa: A001 (failures.all() says what it gives)
    """What has failed, the most frequent first."""
    code = RunRow.error["code"].as_string()
    newest = RunRow.finished_at.desc()
    statement = (
        select(
            code.label("code"),
            RunRow.model,
            func.count().label("runs"),
            func.max(RunRow.finished_at).label("newest_at"),
            func.min(RunRow.finished_at).label("oldest_at"),
            func.array_agg(aggregate_order_by(RunRow.id, newest, RunRow.id.desc()))[1:NAMED].label("run_ids"),
            func.array_agg(aggregate_order_by(RunRow.error["detail"].as_string(), newest))[1].label("detail"),
        )
        .where(RunRow.state == RunState.FAILED, _wanted())
        .group_by(code, RunRow.model)
        .order_by(func.count().desc(), code, RunRow.model)
    )
    return [
        Failures(row.code, row.model, row.runs, row.newest_at, row.oldest_at, row.detail, tuple(row.run_ids))
        for row in session.execute(statement)
    ]


def _wanted() -> ColumnElement[bool]:
    """Whether a job that nobody has let go of refers to the run."""
    return exists().where(JobRunRow.run_id == RunRow.id, JobRow.id == JobRunRow.job_id, JobRow.cancelled_at.is_(None))


@dataclass(frozen=True, slots=True)
class Retried:
    """Some jobs that are tried again.

    Args:
        more: there may be more of them.
        wakes: what to send for them after the commit.
        failed_by: what failed until then was looked at; given to the next call, it finds the rest.
    """

    jobs: int
    more: bool
    wakes: tuple[Wake, ...]
    failed_by: datetime


@verb
def retry(
    session: Session, code: str, model: str, *, limit: int, max_attempts: int, failed_by: datetime | None = None
) -> Retried:
    """Plan some of the jobs once more that stand failed by such a run, in one transaction.

    A job that still has work going on is left alone, and so is what has failed since `failed_by` (None: since now).
    """
    failed_by = failed_by or session.scalars(select(func.now())).one()
    ids = list(session.scalars(_failed(code, model, failed_by).limit(limit)))
    standing.reopen(session, BatchItemRow.job_id.in_(ids))  # batches are locked before jobs
    again, wakes = 0, []
    for job_id in ids:
        try:
            wakes += jobs.again(session, job_id, max_attempts)[1]
        except (Conflict, NotFound):
            continue  # somebody else has tried it again, or deleted it, since we looked
        again += 1
    return Retried(again, len(ids) == limit, tuple(wakes), failed_by)


@verb
def left(session: Session, code: str, model: str, *, failed_by: datetime) -> int:
    """How many jobs such a call would still find."""
    return session.scalars(select(func.count()).select_from(_failed(code, model, failed_by).subquery())).one()


def _failed(code: str, model: str, failed_by: datetime) -> Select[str]:
    """Jobs without work going on, with a run of the model that failed with the code."""
    mine = select(JobRunRow.job_id).join(RunRow, RunRow.id == JobRunRow.run_id).where(JobRunRow.job_id == JobRow.id)
    such = mine.where(
        RunRow.state == RunState.FAILED,
        RunRow.model == model,
        RunRow.error["code"].as_string() == code,
        RunRow.finished_at <= failed_by,
    )
    live = mine.where(RunRow.state.in_(LIVE))
    return select(JobRow.id).where(JobRow.cancelled_at.is_(None), such.exists(), ~live.exists()).order_by(JobRow.id)

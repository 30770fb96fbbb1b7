"""What has failed, by code and model, and trying it again."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.http.context import get_services
from api.http.problems import document_problems
from api.http.schemas import Body, Record
from api.operations.models import check_model_queues_open
from shared import catalog
from shared.errors import FieldError, InvalidRequest, ModelUnavailable, errors_by_code
from shared.log import get_logger
from shared.store.operations import failures

log = get_logger(__name__)
bp = APIBlueprint("failures", __name__, url_prefix="/v1/failures", tag="Jobs")

CHUNK_JOBS = 50
"""Jobs that are planned again in one transaction."""
BUDGET_S = 10.0
"""After so long an answer says how much is left."""


class FailureGroupRecord(Record):
    """Runs of one model that failed with one code, and that jobs stand failed by."""

    code: str
    model: str
    runs: int
    newest_at: datetime
    oldest_at: datetime
    detail: str = Field(description="What the newest says.")
    run_ids: list[str] = Field(description="The newest, newest first; 20 at most.")


class FailureGroupList(Record):
    """What has failed, the most frequent first."""

    items: list[FailureGroupRecord]


class RetryFailuresBody(Body):
    """Which failures."""

    code: str
    model: str


class RetryFailuresRecord(Record):
    """What is tried again."""

    jobs: int = Field(description="Jobs that are tried again.")
    runs: int = Field(description="Runs that are queued for them.")
    left: int = Field(description="Jobs that another such call would try again; the time of this one was over.")


@bp.get("")
@bp.output(FailureGroupList)
def list_failures() -> dict[str, Any]:
    """List failed runs by code and model."""
    return {"items": [group.to_dict() for group in failures.list_failure_groups(get_services().engine)]}


@bp.post("/retry")
@bp.input(RetryFailuresBody, arg_name="body")
@bp.output(RetryFailuresRecord, 202)
@bp.doc(responses=document_problems(InvalidRequest, ModelUnavailable))
def retry_failures(body: RetryFailuresBody) -> tuple[dict[str, Any], int]:
    """Try every job again that stands failed by a run of this model with this code.

    What is done stays done. Jobs with work going on are left alone. What failed after this call was made waits for the
    next. Many jobs take several calls: `left` says whether.
    """
    return retry_failed_jobs(body.code, body.model), 202


def retry_failed_jobs(code: str, model: str) -> dict[str, int]:
    """The same: how many jobs and runs, and how many jobs are left; InvalidRequest, ModelUnavailable."""
    if code not in errors_by_code():
        detail = f"Codes are: {', '.join(sorted(errors_by_code()))}."
        raise InvalidRequest(detail, errors=(FieldError("/code", "unknown_code", detail),))
    catalog.get_model_spec(model)
    get_services().backlog.check_capacity()
    check_model_queues_open(get_services().engine, [model])
    return _retry_in_chunks(code, model)


def _retry_in_chunks(code: str, model: str) -> dict[str, int]:
    engine, attempts = get_services().engine, get_services().settings.max_attempts
    jobs, runs, failed_by, deadline = 0, 0, None, time.monotonic() + BUDGET_S
    while True:
        chunk = failures.retry_failed_jobs(
            engine, code, model, limit=CHUNK_JOBS, max_attempts=attempts, failed_by=failed_by
        )
        get_services().notifier.notify_workers(chunk.wakeups)
        jobs, runs, failed_by = jobs + chunk.jobs, runs + len(chunk.wakeups), chunk.failed_by
        if not chunk.has_more or time.monotonic() > deadline:
            break
    log.info("failures.retried", code=code, model=model, jobs=jobs, runs=runs)
    return {"jobs": jobs, "runs": runs, "left": failures.count_failed_jobs(engine, code, model, failed_by=failed_by)}

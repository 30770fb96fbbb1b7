"""Routes of failures: list failed runs by code and model, retry them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.http.context import get_services
from api.http.problems import document_problems
from api.http.schemas import Body, Record
from api.operations import service
from shared.errors import InvalidRequest, ModelUnavailable
from shared.store.operations import failures

bp = APIBlueprint("failures", __name__, url_prefix="/v1/failures", tag="Jobs")


class FailureGroupRecord(Record):
    """Runs of one model that failed with one code and by which jobs are failed."""

    code: str
    model: str
    runs: int
    newest_at: datetime
    oldest_at: datetime
    detail: str = Field(description="Detail of the newest.")
    run_ids: list[str] = Field(description="The newest, newest first; 20 at most.")


class FailureGroupList(Record):
    """Groups of failures, the most frequent first."""

    items: list[FailureGroupRecord]


class RetryFailuresBody(Body):
    """Which failures."""

    code: str
    model: str


class RetryFailuresRecord(Record):
    """What is retried."""

    jobs: int = Field(description="Jobs that are retried.")
    runs: int = Field(description="Runs that are queued for them.")
    left: int = Field(description="Jobs that another call would retry; the time of this one was over.")


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
    """Retry every job that failed because a run of this model failed with this code.

    What is done stays done. Jobs with unfinished runs are left alone. What fails after the start of this call waits for
    the next. Many jobs take several calls: `left` says whether.
    """
    return service.retry_failures(body.code, body.model), 202

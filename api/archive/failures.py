"""What has failed, by code and model, and trying it again."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.errors import Body, Record, problems
from api.service.catalog import check_models_open
from api.service.health import services
from shared import catalog
from shared.errors import FieldError, InvalidRequest, ModelUnavailable, leaves
from shared.log import logger
from shared.store.archive import failures

log = logger(__name__)
bp = APIBlueprint("failures", __name__, url_prefix="/v1/failures", tag="Jobs")

CHUNK = 50
"""Jobs that are planned again in one transaction."""
BUDGET_S = 10.0
"""After so long an answer says how much is left."""


class FailuresRecord(Record):
    """Runs of one model that failed with one code, and that jobs stand failed by."""

    code: str
    model: str
    runs: int
    newest_at: datetime
    oldest_at: datetime
    detail: str = Field(description="What the newest says.")
    run_ids: list[str] = Field(description="The newest, newest first; 20 at most.")


class FailuresList(Record):
    """What has failed, the most frequent first."""

    items: list[FailuresRecord]


class AgainBody(Body):
    """Which failures."""

    code: str
    model: str


class AgainRecord(Record):
    """What is tried again."""

    jobs: int = Field(description="Jobs that are tried again.")
    runs: int = Field(description="Runs that are queued for them.")
    left: int = Field(description="Jobs that another such call would try again; the time of this one was over.")


@bp.get("")
@bp.output(FailuresList)
def index() -> dict[str, Any]:
    """List failed runs by code and model."""
    return {"items": [group.record() for group in failures.all(services().engine)]}


@bp.post("/retry")
@bp.input(AgainBody, arg_name="body")
@bp.output(AgainRecord, 202)
@bp.doc(responses=problems(InvalidRequest, ModelUnavailable))
def again(body: AgainBody) -> tuple[dict[str, Any], int]:
    """Try every job again that stands failed by a run of this model with this code.

    What is done stays done. Jobs with work going on are left alone. What failed after this call was made waits for the
    next. Many jobs take several calls: `left` says whether.
    """
    return retried(body.code, body.model), 202


def retried(code: str, model: str) -> dict[str, int]:
    """The same: how many jobs and runs, and how many jobs are left; InvalidRequest, ModelUnavailable."""
    if code not in leaves():
        detail = f"Codes are: {', '.join(sorted(leaves()))}."
        raise InvalidRequest(detail, errors=(FieldError("/code", "unknown_code", detail),))
    catalog.model(model)
    services().backlog.check()
    check_models_open(services().engine, [model])
    return _again(code, model)


def _again(code: str, model: str) -> dict[str, int]:
    engine, attempts = services().engine, services().settings.max_attempts
    jobs, runs, failed_by, until = 0, 0, None, time.monotonic() + BUDGET_S
    while True:
        done = failures.retry(engine, code, model, limit=CHUNK, max_attempts=attempts, failed_by=failed_by)
        services().doorbell.ring(done.wakes)
        jobs, runs, failed_by = jobs + done.jobs, runs + len(done.wakes), done.failed_by
        if not done.more or time.monotonic() > until:
            break
    log.info("failures.retried", code=code, model=model, jobs=jobs, runs=runs)
    return {"jobs": jobs, "runs": runs, "left": failures.left(engine, code, model, failed_by=failed_by)}

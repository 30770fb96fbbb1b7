"""Use cases of the operator: change the mode of a queue, retry failures. JSON routes and pages both call them."""

from __future__ import annotations

import time

from api.admission import admit_retry
from api.http.context import get_services
from shared import catalog
from shared.catalog import CATALOG
from shared.errors import InvalidRequest, NotFound, errors_by_code
from shared.log import get_logger
from shared.store.operations import failures
from shared.store.runs import queues
from shared.store.runs.queues import ModelQueue, QueueMode

log = get_logger(__name__)

CHUNK_JOBS = 50
"""Jobs that are planned again in one transaction: a longer one would hold its locks for too long."""
BUDGET_S = 10.0
"""Seconds after which the answer says how many jobs are left, before a proxy gives the request up."""


def change_queue_mode(model: str, mode: QueueMode) -> ModelQueue:
    """Set the mode of a model's queue; NotFound."""
    if model not in CATALOG:
        raise NotFound(f"There is no model of that name. Models: {', '.join(CATALOG)}.")
    queue = queues.set_queue_mode(get_services().engine, model, mode)
    log.info("queue.mode_changed", model=model, mode=mode)
    return queue


def retry_failures(code: str, model: str) -> dict[str, int]:
    """Retry every job that failed because a run of this model failed with this code.

    Returns:
        `jobs` and `runs` that are tried again, and the number of jobs that are `left` for another call.

    Raises:
        InvalidRequest: unknown code or model. ModelUnavailable: the work may not be accepted now.
    """
    if code not in errors_by_code():
        raise InvalidRequest.at("/code", "unknown_code", f"Codes are: {', '.join(sorted(errors_by_code()))}.")
    catalog.get_model_spec(model)
    admit_retry([model])
    return _retry_in_chunks(code, model)


def _retry_in_chunks(code: str, model: str) -> dict[str, int]:
    engine, max_attempts = get_services().engine, get_services().settings.max_attempts
    jobs, runs, failed_by, deadline = 0, 0, None, time.monotonic() + BUDGET_S
    while True:
        # `failed_by` is the moment of the first chunk: what fails again meanwhile is not retried without end.
        chunk = failures.retry_failed_jobs(
            engine, code, model, limit=CHUNK_JOBS, max_attempts=max_attempts, failed_by=failed_by
        )
        get_services().notifier.notify_workers(chunk.wakeups)
        jobs, runs, failed_by = jobs + chunk.jobs, runs + len(chunk.wakeups), chunk.failed_by
        if not chunk.has_more or time.monotonic() > deadline:
            break
    log.info("failures.retried", code=code, model=model, jobs=jobs, runs=runs)
    return {"jobs": jobs, "runs": runs, "left": failures.count_failed_jobs(engine, code, model, failed_by=failed_by)}

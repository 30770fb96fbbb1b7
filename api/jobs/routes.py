"""Jobs: checked against the menu, written in one transaction, then the doorbell; read, listed, cancelled, retried."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, g, jsonify, request
from pydantic import AwareDatetime, Field

from api.errors import Query, bad_query, page, problems, read_token
from api.jobs.asked import CreateHeaders, CreateQuery, JobBody, analyses_of, check_ranges, has_range
from api.jobs.records import CheckedRecord, JobPage, JobRecord
from api.service.catalog import check_models_open, check_open, check_served
from api.service.health import services
from api.service.waiting import MAX_WAIT_S, until_ended
from shared.errors import (
    Conflict,
    FieldError,
    IdempotencyMismatch,
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    SceneworksError,
    WeightsCorrupt,
    WeightsMissing,
)
from shared.log import logger
from shared.store import jobs, videos, workers
from shared.store.jobs import Filter, NewJob
from shared.store.plan import Analysis
from shared.values import Job, JobState, RunState, Video, labels_of

log = logger(__name__)
bp = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", tag="Jobs")


class ShowQuery(Query):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end of the job.")


class JobsQuery(Query):
    """Which jobs."""

    state: str | None = Field(None, description="States, comma separated, such as `failed,running`.")
    label: str | None = Field(None, description="`name:value`; may be given again.")
    external_id: str | None = None
    video_id: str | None = None
    created_after: AwareDatetime | None = None
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


def record(job: Job) -> dict[str, Any]:
    """JSON form with links."""
    place = f"{bp.url_prefix}/{job.id}"
    urls = {name: f"{place}/{name}" for name in ("cancel", "retry", "results", "artifacts")}
    return job.record() | {"urls": {"self": place, "video": f"/v1/videos/{job.video_id}", **urls}}


def _headers(job: Job) -> dict[str, str]:
    """`Retry-After` while there is something to come back for."""
    if job.state.ended:
        return {}
    return {"Retry-After": str(round(min(30.0, max(1.0, job.eta_s or 1.0))))}


CHECKED_DOC = {"description": "`validate_only`: the request is good.", "content": {
    "application/json": {"schema": CheckedRecord.model_json_schema()}}}  # fmt: skip


@bp.post("")
@bp.input(JobBody, arg_name="body")
@bp.input(CreateQuery, location="query", arg_name="query")
@bp.input(CreateHeaders, location="headers", arg_name="headers")
@bp.output(JobRecord, 202, description="Queued; `Location` says where, `Idempotency-Replayed` whether it was before.")
@bp.doc(
    responses=problems(
        InvalidRequest, NotFound, IdempotencyMismatch, ModelUnavailable, WeightsMissing, WeightsCorrupt,
        also={200: CHECKED_DOC},
    )
)  # fmt: skip
def create(body: JobBody, query: CreateQuery, headers: CreateHeaders) -> Any:
    """Ask for models on a video.

    The job is in the ledger before the answer leaves. With an `Idempotency-Key`, the same request again is the same
    job.
    """
    analyses = analyses_of(body)
    if query.validate_only:
        return _checked(body, analyses)
    made = _create(body, _new_job(body, analyses, headers.idempotency_key))
    services().doorbell.ring(made.wakes)
    log.info("job.created", job=made.job.id, video=made.job.video_id, runs=len(made.job.runs), replayed=made.replayed)
    said = _headers(made.job) | {"Location": record(made.job)["urls"]["self"]}
    if made.replayed:
        said["Idempotency-Replayed"] = "true"
    return record(made.job), 202, said


@bp.get("")
@bp.input(JobsQuery, location="query", arg_name="query")
@bp.output(JobPage)
def index(query: JobsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List jobs, newest first."""
    wanted = Filter(
        states=_states(",".join(request.args.getlist("state")) or None),
        labels=read_labels(request.args.getlist("label")),
        created_after=query.created_after,
        video_id=query.video_id,
        external_id=query.external_id,
    )
    after = read_token("jobs", query.page_token, (datetime, str))
    found = jobs.page(services().engine, limit=query.limit + 1, after=after, wanted=wanted)
    items, token, headers = page("jobs", found, query.limit, lambda job: (job.created_at, job.id))
    return {"items": [record(job) for job in items], "next_page_token": token}, headers


@bp.get("/<job_id>")
@bp.input(ShowQuery, location="query", arg_name="query")
@bp.output(JobRecord)
@bp.doc(responses=problems(NotFound, also={304: {"description": "Not modified since the ETag sent."}}))
def show(job_id: str, query: ShowQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """One job with its runs, stages and progress.

    With `wait`, the answer comes when the job has ended or the time is over. When too many callers wait already, it
    comes at once: heed `Retry-After`.
    """
    job = jobs.get(services().engine, job_id)
    if query.wait and not job.state.ended:
        job = until_ended(job, query.wait, lambda: jobs.get(services().engine, job_id))
    return record(job), _headers(job)


@bp.post("/<job_id>/cancel")
@bp.output(JobRecord)
@bp.doc(responses=problems(NotFound, Conflict))
def cancel(job_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Let go of a job.

    `cancelled` is said only once the work has stopped, `cancelling` before. 409 when the job has ended.
    """
    job = jobs.cancel(services().engine, job_id)
    log.info("job.cancelled", job=job.id, state=job.state.value)
    return record(job), _headers(job)


@bp.post("/<job_id>/retry")
@bp.output(JobRecord, 202)
@bp.doc(responses=problems(NotFound, Conflict, ModelUnavailable))
def retry(job_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Run what failed or was cancelled once more; what is done stays done. 409 unless failed or cancelled."""
    services().backlog.check()
    unfinished = [run.model for run in jobs.get(services().engine, job_id).runs if run.state is not RunState.DONE]
    check_models_open(services().engine, unfinished)
    job, wakes = jobs.retry(services().engine, job_id, services().settings.max_attempts)
    services().doorbell.ring(wakes)
    log.info("job.retried", job=job.id, runs=len(wakes))
    return record(job), 202, _headers(job) | {"Location": record(job)["urls"]["self"]}


@bp.delete("/<job_id>")
@bp.doc(responses=problems(NotFound, also={204: {"description": "Gone; what still ran stops."}}))
def delete(job_id: str) -> tuple[str, int]:
    """Forget a job. Results that no other job refers to go with it."""
    jobs.delete(services().engine, job_id)
    log.info("job.deleted", job=job_id)
    return "", 204


def _new_job(body: JobBody, analyses: tuple[Analysis, ...], key: str | None) -> NewJob:
    sent = json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True, separators=(",", ":"))
    return NewJob(
        video_id=body.video_id,
        analyses=analyses,
        priority=body.priority,
        external_id=body.external_id,
        labels=dict(body.labels),
        key_scope=g.key,
        idempotency_key=key,
        request_sha256=hashlib.sha256(sent.encode()).hexdigest(),
        max_attempts=services().settings.max_attempts,
    )


def _create(body: JobBody, new: NewJob) -> jobs.Created:
    """Into the ledger, unless the service is full or the models cannot run; a request known by its key always is."""
    engine = services().engine
    known = jobs.replay(engine, new) if new.idempotency_key else None
    if known:
        return known
    if has_range(new.analyses):
        check_ranges(body, new.analyses, _video(new.video_id))
    _check_room(new.analyses)
    try:
        return jobs.create(engine, new)
    except NotFound as error:
        raise _no_video(error) from None


def _checked(body: JobBody, analyses: tuple[Analysis, ...]) -> Response:
    check_ranges(body, analyses, _video(body.video_id))
    _check_room(analyses)
    read = [{"model": one.model, "params": one.params.model_dump(mode="json")} for one in analyses]
    return jsonify(CheckedRecord(valid=True, video_id=body.video_id, analyses=read).model_dump())


def _video(video_id: str) -> Video:
    try:
        return videos.get(services().engine, video_id).video
    except NotFound as error:
        raise _no_video(error) from None


def _no_video(error: SceneworksError) -> NotFound:
    return NotFound(error.detail, errors=(FieldError("/video_id", "not_found", error.detail),))


def _check_room(analyses: tuple[Analysis, ...]) -> None:
    """ModelUnavailable when the queue is full or drained, or no worker can serve; WeightsMissing, WeightsCorrupt."""
    services().backlog.check()
    check_served(analyses, workers.all(services().engine))
    check_open(services().engine, analyses)


def _states(text: str | None) -> frozenset[JobState] | None:
    if text is None:
        return None
    try:
        return frozenset(JobState(name) for name in text.split(","))
    except ValueError:
        known = ", ".join(state.value for state in JobState)
        raise bad_query("state", "unknown_state", f"States are: {known}.") from None


def read_labels(pairs: list[str]) -> dict[str, str]:
    """The labels of a query, written `name:value`; InvalidRequest."""
    try:
        return labels_of(pairs)
    except ValueError:
        raise bad_query("label", "bad_label", "A label is written name:value.") from None

"""Routes of jobs: create, list, show, cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, jsonify, request
from pydantic import AwareDatetime, Field

from api.http.context import get_services
from api.http.long_poll import MAX_WAIT_S, wait_until_ended
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Query
from api.jobs import service
from api.jobs.records import JobPage, JobRecord, ValidatedJobRecord
from api.jobs.schemas import CreateHeaders, CreateQuery, JobBody, parse_analyses, read_label_query
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    WeightsCorrupt,
    WeightsMissing,
)
from shared.store.jobs import jobs
from shared.store.jobs.jobs import JobFilter
from shared.store.jobs.planner import Analysis
from shared.values import Job, JobState

bp = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", tag="Jobs")


class JobQuery(Query):
    """How long to wait."""

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


def build_job_record(job: Job) -> dict[str, Any]:
    """Build the JSON form with links."""
    path = f"{bp.url_prefix}/{job.id}"
    urls = {name: f"{path}/{name}" for name in ("cancel", "retry", "results", "artifacts")}
    return job.to_dict() | {"urls": {"self": path, "video": f"/v1/videos/{job.video_id}", **urls}}


def _build_poll_headers(job: Job) -> dict[str, str]:
    """Build `Retry-After` for a job that has not ended."""
    if job.state.has_ended:
        return {}
    return {"Retry-After": str(round(min(30.0, max(1.0, job.eta_s or 1.0))))}


VALIDATED_DOC = {"description": "`validate_only`: the request is good.", "content": {
    "application/json": {"schema": ValidatedJobRecord.model_json_schema()}}}  # fmt: skip


@bp.post("")
@bp.input(JobBody, arg_name="body")
@bp.input(CreateQuery, location="query", arg_name="query")
@bp.input(CreateHeaders, location="headers", arg_name="headers")
@bp.output(
    JobRecord, 202, description="Queued; `Location` says where, `Idempotency-Replayed` whether it existed before."
)
@bp.doc(
    responses=document_problems(
        InvalidRequest, NotFound, IdempotencyMismatch, ModelUnavailable, WeightsMissing, WeightsCorrupt,
        extra={200: VALIDATED_DOC},
    )
)  # fmt: skip
def create_job(body: JobBody, query: CreateQuery, headers: CreateHeaders) -> Any:
    """Run models on a video.

    The job is stored before the answer leaves. With an `Idempotency-Key`, the same request again is the same
    job.
    """
    analyses = parse_analyses(body)
    if query.validate_only:
        service.check_job(body, analyses)
        return _build_validated_answer(body, analyses)
    created = service.create_job(body, analyses, headers.idempotency_key)
    response_headers = _build_poll_headers(created.job) | {"Location": build_job_record(created.job)["urls"]["self"]}
    if created.replayed:
        response_headers["Idempotency-Replayed"] = "true"
    return build_job_record(created.job), 202, response_headers


@bp.get("")
@bp.input(JobsQuery, location="query", arg_name="query")
@bp.output(JobPage)
def list_jobs(query: JobsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List jobs, newest first."""
    job_filter = JobFilter(
        states=_parse_states(",".join(request.args.getlist("state")) or None),
        labels=read_label_query(request.args.getlist("label")),
        created_after=query.created_after,
        video_id=query.video_id,
        external_id=query.external_id,
    )
    after = read_page_token("jobs", query.page_token, (datetime, str))
    job_rows = jobs.list_jobs(get_services().engine, limit=query.limit + 1, after=after, job_filter=job_filter)
    items, token, headers = paginate_items("jobs", job_rows, query.limit, lambda job: (job.created_at, job.id))
    return {"items": [build_job_record(job) for job in items], "next_page_token": token}, headers


@bp.get("/<job_id>")
@bp.input(JobQuery, location="query", arg_name="query")
@bp.output(JobRecord)
@bp.doc(responses=document_problems(NotFound, extra={304: {"description": "Not modified since the ETag sent."}}))
def show_job(job_id: str, query: JobQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """One job with its runs, stages and progress.

    With `wait`, the answer comes when the job has ended or the time is over. When too many callers wait already, it
    comes at once: heed `Retry-After`.
    """
    job = jobs.get_job(get_services().engine, job_id)
    if query.wait and not job.state.has_ended:
        job = wait_until_ended(job, query.wait, lambda: jobs.get_job(get_services().engine, job_id))
    return build_job_record(job), _build_poll_headers(job)


@bp.post("/<job_id>/cancel")
@bp.output(JobRecord)
@bp.doc(responses=document_problems(NotFound, Conflict))
def cancel_job(job_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Cancel a job.

    Its state is `cancelling` until the work has stopped, then `cancelled`. 409 when the job has ended.
    """
    job = service.cancel_job(job_id)
    return build_job_record(job), _build_poll_headers(job)


@bp.post("/<job_id>/retry")
@bp.output(JobRecord, 202)
@bp.doc(responses=document_problems(NotFound, Conflict, ModelUnavailable))
def retry_job(job_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Queue what failed or was cancelled again; what is done stays done. 409 unless failed or cancelled."""
    job = service.retry_job(job_id)
    return build_job_record(job), 202, _build_poll_headers(job) | {"Location": build_job_record(job)["urls"]["self"]}


@bp.delete("/<job_id>")
@bp.doc(responses=document_problems(NotFound, extra={204: {"description": "Gone; what still ran stops."}}))
def delete_job(job_id: str) -> tuple[str, int]:
    """Delete a job. Results that no other job refers to go with it."""
    service.delete_job(job_id)
    return "", 204


def _build_validated_answer(body: JobBody, analyses: Sequence[Analysis]) -> Response:
    resolved = [{"model": analysis.model, "params": analysis.params.model_dump(mode="json")} for analysis in analyses]
    # A response, not a record: the route documents its record for 202 alone, and APIFlask would check this against it.
    return jsonify(ValidatedJobRecord(valid=True, video_id=body.video_id, analyses=resolved).model_dump())


def _parse_states(text: str | None) -> frozenset[JobState] | None:
    if text is None:
        return None
    try:
        return frozenset(JobState(name) for name in text.split(","))
    except ValueError:
        valid_states = ", ".join(state.value for state in JobState)
        raise bad_query("state", "unknown_state", f"States are: {valid_states}.") from None

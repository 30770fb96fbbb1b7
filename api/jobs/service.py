"""Use cases of jobs: create, cancel, retry, delete. JSON routes and pages both call them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from flask import g

from api.admission import admit_job, admit_retry
from api.http.context import get_services
from api.jobs.schemas import JobBody, check_ranges_in_video, has_range
from shared.errors import NotFound
from shared.log import get_logger
from shared.store.jobs import jobs
from shared.store.jobs.jobs import CreatedJob, NewJob
from shared.store.jobs.planner import Analysis
from shared.store.videos import videos
from shared.values import Job, RunState, VideoFacts

log = get_logger(__name__)


def create_job(body: JobBody, analyses: Sequence[Analysis], idempotency_key: str | None) -> CreatedJob:
    """Store a job and wake the workers; a known idempotency key gives the job that was created with it.

    Raises:
        InvalidRequest, NotFound: the video, or a range in it.
        IdempotencyMismatch: the key came with another body before.
        ModelUnavailable, WeightsMissing, WeightsCorrupt: the work may not be accepted now.
    """
    created = _create_or_replay(body, _build_new_job(body, analyses, idempotency_key))
    # After the commit: a worker that wakes earlier would find no row.
    get_services().notifier.notify_workers(created.wakeups)
    log.info(
        "job.created",
        job=created.job.id,
        video=created.job.video_id,
        runs=len(created.job.runs),
        replayed=created.replayed,
    )
    return created


def check_job(body: JobBody, analyses: Sequence[Analysis]) -> None:
    """Check everything that `create_job` checks, and store nothing."""
    check_ranges_in_video(body, analyses, _load_video_facts(body.video_id))
    admit_job(analyses)


def cancel_job(job_id: str) -> Job:
    """Cancel a job; NotFound, Conflict when it has ended."""
    job = jobs.cancel_job(get_services().engine, job_id)
    log.info("job.cancelled", job=job.id, state=job.state.value)
    return job


def retry_job(job_id: str) -> Job:
    """Queue the failed and cancelled runs of a job again; NotFound, Conflict, ModelUnavailable."""
    services = get_services()
    unfinished_models = [
        run.model for run in jobs.get_job(services.engine, job_id).runs if run.state is not RunState.DONE
    ]
    admit_retry(unfinished_models)
    job, wakeups = jobs.retry_job(services.engine, job_id, services.settings.max_attempts)
    services.notifier.notify_workers(wakeups)
    log.info("job.retried", job=job.id, runs=len(wakeups))
    return job


def delete_job(job_id: str) -> None:
    """Delete a job, and the results that no other job refers to; NotFound."""
    jobs.delete_job(get_services().engine, job_id)
    log.info("job.deleted", job=job_id)


def _build_new_job(body: JobBody, analyses: Sequence[Analysis], idempotency_key: str | None) -> NewJob:
    request_json = json.dumps(body.model_dump(mode="json", exclude_unset=True), sort_keys=True, separators=(",", ":"))
    return NewJob(
        video_id=body.video_id,
        analyses=tuple(analyses),
        priority=body.priority,
        external_id=body.external_id,
        labels=dict(body.labels),
        # An idempotency key belongs to the API key that sent it: another caller cannot reach this job by guessing it.
        key_scope=g.key,
        idempotency_key=idempotency_key,
        request_sha256=hashlib.sha256(request_json.encode()).hexdigest(),
        max_attempts=get_services().settings.max_attempts,
    )


def _create_or_replay(body: JobBody, new_job: NewJob) -> CreatedJob:
    engine = get_services().engine
    # Before any check: a request that was accepted once is answered again, even while the backlog is full.
    replayed = jobs.find_replay(engine, new_job) if new_job.idempotency_key else None
    if replayed:
        return replayed
    if has_range(new_job.analyses):
        check_ranges_in_video(body, new_job.analyses, _load_video_facts(new_job.video_id))
    admit_job(new_job.analyses)
    try:
        return jobs.create_job(engine, new_job)
    except NotFound as error:
        raise NotFound.at("/video_id", "not_found", error.detail) from None


def _load_video_facts(video_id: str) -> VideoFacts:
    try:
        return videos.get_video(get_services().engine, video_id).facts
    except NotFound as error:
        raise NotFound.at("/video_id", "not_found", error.detail) from None

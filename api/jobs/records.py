"""JSON answers about jobs: the job, its runs, their stages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.http.schemas import Record


class StageRecord(Record):
    """One stage of a run."""

    name: str
    state: str
    done: int
    of: int | None
    unit: str
    per_second: float | None
    seconds: float


class ProgressRecord(Record):
    """Progress of a run or job, 0..1."""

    fraction: float
    eta_s: float | None
    updated_at: datetime


class RunBaseRecord(Record):
    """One model on one video with one set of parameters, whichever jobs refer to it."""

    id: str
    model: str
    params: dict[str, Any]
    state: Literal["waiting", "queued", "running", "done", "failed", "cancelled", "skipped"]
    attempt: int
    max_attempts: int
    progress: ProgressRecord
    stages: list[StageRecord]
    device: str | None
    precision: str | None
    weights: dict[str, str] | None
    version: str | None
    decode_failures: int | None
    error: dict[str, Any] | None = Field(description="A problem document, with `stage` and `attempt`.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunRecord(RunBaseRecord):
    """A run as a job refers to it."""

    requested: bool = Field(description="Named in the request; otherwise added because another model needs it.")
    reused: bool = Field(description="It existed before this job.")


class JobUrls(Record):
    """Links."""

    self: str
    cancel: str
    retry: str
    results: str
    artifacts: str
    video: str


class JobRecord(Record):
    """A job; its state follows from its runs."""

    id: str
    video_id: str
    state: Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
    priority: str
    external_id: str | None
    labels: dict[str, str]
    progress: ProgressRecord
    runs: list[RunRecord]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None
    urls: JobUrls


class JobPage(Record):
    """Jobs, newest first."""

    items: list[JobRecord]
    next_page_token: str | None


class ValidatedJobRecord(Record):
    """What would be queued."""

    valid: Literal[True]
    video_id: str
    analyses: list[dict[str, Any]]

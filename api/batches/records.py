"""JSON answers about batches: the batch, its videos, schedules, plans."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import Field

from api.http.schemas import Record
from shared.values.batches import Batch, CatchUpPolicy, SelectionFilter


class AnalysisRecord(Record):
    """One model, with its parameters in full."""

    model: str
    params: dict[str, Any]


class SelectionRecord(Record):
    """Which videos are selected."""

    sources: list[str]
    videos: list[str]
    labels: dict[str, str]
    only: SelectionFilter
    code: str | None


class HoursRecord(Record):
    """A window of hours each day."""

    since: str
    until: str
    timezone: str


class WorkRecord(Record):
    """The models to run, on which videos, and how many at a time."""

    analyses: list[AnalysisRecord]
    selection: SelectionRecord
    priority: Literal["low", "normal", "high"]
    cap: int | None
    hours: HoursRecord | None
    labels: dict[str, str]


class BatchProgressRecord(Record):
    """Progress of a batch, 0..1."""

    fraction: float
    eta_s: float | None
    updated_at: datetime


BatchStateName = Literal["queued", "running", "paused", "cancelling", "succeeded", "failed", "cancelled"]
ItemState = Literal[
    "waiting", "queued", "running", "cancelling", "succeeded", "failed", "cancelled", "refused", "forgotten"
]
ITEM_STATES: tuple[ItemState, ...] = get_args(ItemState)
"""States of a video of a batch: those of its job, and three of a video without one."""


class BatchUrls(Record):
    """Links."""

    self: str
    items: str
    events: str
    diff: str
    pause: str
    resume: str
    cancel: str
    retry: str


class BatchRecord(WorkRecord):
    """A batch; its state follows from its jobs."""

    id: str
    name: str
    kind: Literal["batch", "schedule", "reprocess"]
    state: BatchStateName
    schedule_id: str | None
    due_at: datetime | None = Field(description="The slot of the schedule that it is for.")
    videos: int
    counts: dict[ItemState, int] = Field(description="Videos by the state of their job; `waiting`: none yet.")
    progress: BatchProgressRecord
    created_at: datetime
    started_at: datetime | None
    paused_at: datetime | None
    cancelled_at: datetime | None
    urls: BatchUrls


class BatchPage(Record):
    """Batches, newest first."""

    items: list[BatchRecord]
    next_page_token: str | None


class ItemUrls(Record):
    """Links."""

    video: str
    job: str | None


class ItemRecord(Record):
    """One video of a batch."""

    position: int
    video_id: str
    name: str
    state: ItemState
    job_id: str | None
    before: dict[str, str] = Field(description="The runs that were current when its job was created, by model.")
    error: dict[str, Any] | None = Field(description="Why it could have no job.")
    urls: ItemUrls


class ItemPage(Record):
    """Videos of a batch, in order."""

    items: list[ItemRecord]
    next_page_token: str | None


class SlotRecord(Record):
    """A moment at which a schedule was due."""

    due_at: datetime
    outcome: Literal["fired", "skipped"]
    reason: str | None
    batch_id: str | None
    fired_at: datetime


class ScheduleUrls(Record):
    """Links."""

    self: str
    pause: str
    resume: str
    run: str
    batches: str


class ScheduleRecord(WorkRecord):
    """A schedule."""

    id: str
    name: str
    cron: str | None
    every_s: int | None
    timezone: str
    catch_up: CatchUpPolicy
    catch_up_rule: str = Field(description="What that means, in words.")
    paused_at: datetime | None
    next_at: datetime | None = Field(description="Null while paused.")
    next_slots: list[datetime] = Field(description="The next five slots; none while paused.")
    last_slots: list[SlotRecord] = Field(description="Newest first.")
    created_at: datetime
    updated_at: datetime
    urls: ScheduleUrls


class SchedulePage(Record):
    """Schedules, newest first."""

    items: list[ScheduleRecord]
    next_page_token: str | None


class VideoTotalsRecord(Record):
    """A number of videos, and their length."""

    videos: int
    hours: float


class PercentilesRecord(Record):
    """Seconds of work: by the tenth, the half and nine tenths of the finished runs that were measured."""

    low: float
    usual: float
    high: float


class EstimateRecord(Record):
    """What the runs of one model that are left will take on one device."""

    model: str
    runs: int
    video_s: float
    device: str | None = Field(description="Null where no finished run has been measured.")
    precision: str | None
    measured_runs: int
    seconds: PercentilesRecord | None


class PlanRecord(Record):
    """What a piece of work comes to."""

    selected: VideoTotalsRecord
    to_do: VideoTotalsRecord
    skipped: dict[Literal["done", "running", "unreachable"], int] = Field(description="Videos left out, by reason.")
    estimates: list[EstimateRecord]


def build_batch_record(batch: Batch) -> dict[str, Any]:
    """JSON form with links."""
    path = f"/v1/batches/{batch.id}"
    names = ("items", "events", "diff", "pause", "resume", "cancel", "retry")
    return batch.to_dict() | {"urls": {"self": path} | {name: f"{path}/{name}" for name in names}}

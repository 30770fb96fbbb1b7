"""Batches: the selection of videos, the workload, the state and the events of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, get_args

from shared.errors import Problem
from shared.values.time import format_timestamp
from shared.values.timetable import DailyHours

SelectionFilter = Literal["all", "missing", "outdated", "missing_or_outdated", "failed"]
CatchUpPolicy = Literal["skip", "once", "all"]
SELECTION_FILTERS: tuple[str, ...] = get_args(SelectionFilter)
DEFAULT_CAP = 32


@dataclass(frozen=True, slots=True)
class Selection:
    """Which videos a batch is about.

    Args:
        sources, videos: ids; none: any. A video that is in one of either is meant.
        labels: those of a source that the video lies in, or of a job on it; all of them.
        only: `all`; `missing`: no run of the model is done (one that found nothing is); `outdated`: runs are done, but
            none with the weights and the parameters of now; `failed`: the last run failed. A video is meant where this
            holds for one of the models asked for.
        code: with `failed`, with this error code.
    """

    sources: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    only: SelectionFilter = "all"
    code: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form; read back by `from_dict`."""
        return {
            "sources": list(self.sources),
            "videos": list(self.videos),
            "labels": dict(self.labels),
            "only": self.only,
            "code": self.code,
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Selection:
        """Inverse of `to_dict`."""
        plain = {name: record[name] for name in ("labels", "only", "code")}
        return Selection(sources=tuple(record["sources"]), videos=tuple(record["videos"]), **plain)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is done with each video of a batch, and how many at a time.

    Args:
        analyses: (model, checked parameters in full) in the order of the request.
        selection: which videos.
        priority: of the jobs: `low`, below those that people wait for, unless said otherwise.
        cap: jobs that are unfinished at once at most; None: no limit.
        hours: when jobs may start; None: always.
        labels: of the jobs.
    """

    analyses: tuple[tuple[str, Mapping[str, Any]], ...]
    selection: Selection = field(default_factory=Selection)
    priority: str = "low"
    cap: int | None = DEFAULT_CAP
    hours: DailyHours | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; read back by `from_dict`."""
        return {
            "analyses": [{"model": model, "params": dict(params)} for model, params in self.analyses],
            "selection": self.selection.to_dict(),
            "priority": self.priority,
            "cap": self.cap,
            "hours": self.hours.to_dict() if self.hours else None,
            "labels": dict(self.labels),
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Workload:
        """Inverse of `to_dict`."""
        return Workload(
            analyses=tuple((analysis["model"], analysis["params"]) for analysis in record["analyses"]),
            selection=Selection.from_dict(record["selection"]),
            priority=record["priority"],
            cap=record["cap"],
            hours=DailyHours.from_dict(record["hours"]) if record["hours"] else None,
            labels=record["labels"],
        )


class BatchState(StrEnum):
    """What a caller sees of a batch; never stored."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in {BatchState.SUCCEEDED, BatchState.FAILED, BatchState.CANCELLED}


LIVE_JOB_STATES = ("queued", "running", "cancelling")


def derive_batch_state(counts: Mapping[str, int], *, paused: bool, cancelled: bool) -> BatchState:
    """State of a batch from how many of its videos are in which state.

    Args:
        counts: by state of the video's job; `waiting` for videos without one yet, `refused` for those that cannot have
            one.
        paused, cancelled: what was decided.
    """
    live = sum(counts.get(state, 0) for state in LIVE_JOB_STATES)
    if cancelled:
        return BatchState.CANCELLING if live else BatchState.CANCELLED
    if counts.get("waiting"):
        if paused:
            return BatchState.PAUSED
        return BatchState.RUNNING if sum(counts.values()) > counts["waiting"] else BatchState.QUEUED
    if live:
        return BatchState.RUNNING
    return BatchState.FAILED if counts.get("failed") or counts.get("refused") else BatchState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Batch:
    """The same work on many videos, with its present counts.

    Args:
        counts: videos by the state of their job, `waiting` without one, `refused` where none could be made.
        fraction: part of the work that is done, 0..1.
        eta_s: seconds to go at the rate so far; None while it is unknown.
    """

    id: str
    name: str
    kind: str
    schedule_id: str | None
    due_at: datetime | None
    work: Workload
    counts: Mapping[str, int]
    fraction: float
    eta_s: float | None
    paused_at: datetime | None
    cancelled_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime

    @property
    def state(self) -> BatchState:
        """Derived, never stored."""
        return derive_batch_state(
            self.counts, paused=self.paused_at is not None, cancelled=self.cancelled_at is not None
        )

    @property
    def videos(self) -> int:
        """How many videos."""
        return sum(self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "state": self.state.value,
            "schedule_id": self.schedule_id,
            "due_at": format_timestamp(self.due_at),
            **self.work.to_dict(),
            "videos": self.videos,
            "counts": dict(self.counts),
            "progress": {
                "fraction": round(self.fraction, 4),
                "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
                "updated_at": format_timestamp(self.updated_at),
            },
            "created_at": format_timestamp(self.created_at),
            "started_at": format_timestamp(self.started_at),
            "paused_at": format_timestamp(self.paused_at),
            "cancelled_at": format_timestamp(self.cancelled_at),
        }


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One video of a batch: its job once it has one, and the runs that were current before, by model."""

    position: int
    video_id: str
    state: str
    job_id: str | None
    before: Mapping[str, str]
    error: Problem | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "position": self.position,
            "video_id": self.video_id,
            "state": self.state,
            "job_id": self.job_id,
            "before": dict(self.before),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """An event of a batch: the job of one video has ended.

    Args:
        seq: its number in the batch, from 1 in the order in which ends were noticed.
        job_id: None for a video that could have no job.
        state: `succeeded`, `failed`, `cancelled`, or `refused` for a video that could have no job.
        code: of the error, where there is one.
    """

    seq: int
    position: int
    video_id: str
    job_id: str | None
    state: str
    code: str | None
    ended_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "position": self.position,
            "video_id": self.video_id,
            "job_id": self.job_id,
            "state": self.state,
            "code": self.code,
            "ended_at": format_timestamp(self.ended_at),
        }

"""A job and its state, which is derived from the states of its runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from shared.errors import Problem
from shared.values.runs import LIVE_STATES, Run, RunState
from shared.values.time import format_timestamp

PRIORITIES = {"low": 0, "normal": 1, "high": 2}
"""Name of a priority -> its number in the database: the larger one goes first."""
PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}


@dataclass(frozen=True, slots=True)
class Job:
    """A request to run some models on one video. Its state, progress and times are derived from its runs."""

    id: str
    video_id: str
    priority: str
    external_id: str | None
    labels: dict[str, Any]
    created_at: datetime
    cancelled_at: datetime | None
    runs: tuple[Run, ...]

    @property
    def state(self) -> JobState:
        """Derived, never stored."""
        return derive_job_state(((run.state, run.cancel_requested) for run in self.runs), self.cancelled_at is not None)

    @property
    def fraction(self) -> float:
        """Part of the work that is done, 0..1."""
        return sum(1.0 if run.state is RunState.DONE else run.fraction for run in self.runs) / len(self.runs)

    @property
    def eta_s(self) -> float | None:
        """Seconds to go; None unless every unfinished run can tell."""
        etas = [run.eta_s for run in self.runs if not run.state.has_ended]
        known = [eta for eta in etas if eta is not None]
        return sum(known) if known and len(known) == len(etas) else None

    @property
    def started_at(self) -> datetime | None:
        """When the first of its runs started."""
        return min((run.started_at for run in self.runs if run.started_at), default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When the last of its runs ended; None before."""
        if not self.state.has_ended:
            return None
        return max((run.finished_at for run in self.runs if run.finished_at), default=self.cancelled_at)

    @property
    def error(self) -> Problem | None:
        """The error of its first failed run."""
        return next((run.error for run in self.runs if run.state is RunState.FAILED), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "video_id": self.video_id,
            "state": self.state.value,
            "priority": self.priority,
            "external_id": self.external_id,
            "labels": self.labels,
            "progress": {
                "fraction": round(self.fraction, 4),
                "eta_s": round(self.eta_s, 1) if self.eta_s is not None else None,
                "updated_at": format_timestamp(max((run.updated_at for run in self.runs), default=self.created_at)),
            },
            "runs": [run.to_dict() for run in self.runs],
            "created_at": format_timestamp(self.created_at),
            "started_at": format_timestamp(self.started_at),
            "finished_at": format_timestamp(self.finished_at),
            "error": self.error,
        }


def parse_labels(pairs: Iterable[str]) -> dict[str, str]:
    """`show:x` -> {"show": "x"}; ValueError on a pair without a colon."""
    labels = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not name:
            raise ValueError(pair)
        labels[name] = value
    return labels


class JobState(StrEnum):
    """What a caller sees; never stored."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more can happen to the job."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


def derive_job_state(runs: Iterable[tuple[RunState, bool]], cancelled: bool) -> JobState:
    """State of a job from the (state, cancel requested) of its runs and whether its owner let go of it."""
    pairs = list(runs)
    states = {state for state, _ in pairs}
    if cancelled:
        stopping = any(state is RunState.RUNNING and cancel_requested for state, cancel_requested in pairs)
        return JobState.CANCELLING if stopping else JobState.CANCELLED
    if states <= {RunState.DONE}:
        return JobState.SUCCEEDED
    if states & LIVE_STATES:
        started = states - {RunState.WAITING, RunState.QUEUED}
        return JobState.RUNNING if started else JobState.QUEUED
    return JobState.FAILED if RunState.FAILED in states else JobState.CANCELLED

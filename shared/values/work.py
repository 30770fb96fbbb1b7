"""What work yields and how it stands: results, artifacts, stages, and the states of runs and jobs."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import uuid_utils

from shared.values.time import TimeRange


def new_id(prefix: str) -> str:
    """A sortable id: `prefix_` and the 32 hex digits of a UUIDv7."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


class RunState(StrEnum):
    """waiting -> queued -> running -> done | failed | cancelled; a dependant of a failed run becomes skipped."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to the run."""
        return self not in LIVE


LIVE = frozenset({RunState.WAITING, RunState.QUEUED, RunState.RUNNING})


class JobState(StrEnum):
    """What a caller sees; never stored."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to the job."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


def job_state(runs: Iterable[tuple[RunState, bool]], cancelled: bool) -> JobState:
    """State of a job from the (state, cancel requested) of its runs and whether its owner let go of it."""
    pairs = list(runs)
    states = {state for state, _ in pairs}
    if cancelled:
        stopping = any(state is RunState.RUNNING and asked for state, asked in pairs)
        return JobState.CANCELLING if stopping else JobState.CANCELLED
    if states <= {RunState.DONE}:
        return JobState.SUCCEEDED
    if states & LIVE:
        started = states - {RunState.WAITING, RunState.QUEUED}
        return JobState.RUNNING if started else JobState.QUEUED
    return JobState.FAILED if RunState.FAILED in states else JobState.CANCELLED


@dataclass(frozen=True, slots=True)
class Result:
    """One typed row of what a run found.

    Args:
        kind: `shot`, `scene`, `highlight` ...
        seq: position among the run's results of this kind, from 0.
        range: where in the film; None for a result about the whole.
        score: the model's confidence in 0..1; None where it has none.
        data: anything more, JSON.
    """

    kind: str
    seq: int
    range: TimeRange | None = None
    score: float | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """JSON form, the same in the API and on the command line."""
        return {
            "kind": self.kind,
            "seq": self.seq,
            "start": self.range.start.record() if self.range else None,
            "end": self.range.end.record() if self.range else None,
            "score": self.score,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True)
class Shot:
    """A stretch between two cuts.

    Args:
        range: frames of the shot, end exclusive.
        transition: frames of a gradual change between the shot before and this one, in neither; 0 for a hard cut.
        score: confidence of the boundary that opens the shot; None for the first.
    """

    range: TimeRange
    transition: int = 0
    score: float | None = None

    def result(self, seq: int) -> Result:
        """As a row."""
        return Result("shot", seq, self.range, self.score, {"transition_frames": self.transition})


@dataclass(frozen=True, slots=True)
class Embedding:
    """A vector that stands for a film or a part of it, to be searched by.

    Args:
        seq: of the result of kind `embedding` that it belongs to.
        range: where in the film; None for the whole.
        vector: as the network gave it, not normalised: float32 (type code `f`).
    """

    seq: int
    range: TimeRange | None
    vector: array[float]


@dataclass(frozen=True, slots=True)
class FileMade:
    """A file that a run made, before it is stored.

    Args:
        kind: what it is for, such as `keyframes`.
        name: file name a user would see.
        media_type: MIME type.
        path: where it lies now.
    """

    kind: str
    name: str
    media_type: str
    path: Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run yields, stored under its hash."""

    id: str
    kind: str
    name: str
    media_type: str
    sha256: str
    size: int

    def record(self) -> dict[str, Any]:
        """JSON form, the same in the API and on the command line."""
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "media_type": self.media_type,
            "sha256": self.sha256,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Stage:
    """How far one stage of a run is.

    Args:
        name: `plan`, `encode`, `infer`, `decode` or `store`.
        state: `waiting`, `running` or `done`.
        done: units finished.
        of: units in all; None while unknown.
        unit: such as `frame`.
        seconds: time spent in it.
    """

    name: str
    state: str = "waiting"
    done: int = 0
    of: int | None = None
    unit: str = "step"
    seconds: float = 0.0

    @property
    def per_second(self) -> float | None:
        """Units per second; None before there is anything to divide."""
        return self.done / self.seconds if self.seconds > 0 and self.done else None

    def record(self) -> dict[str, Any]:
        """JSON form; read back by `Stage.read`."""
        rate = self.per_second
        return {
            "name": self.name,
            "state": self.state,
            "done": self.done,
            "of": self.of,
            "unit": self.unit,
            "per_second": round(rate, 1) if rate else None,
            "seconds": round(self.seconds, 3),
        }

    @staticmethod
    def read(record: dict[str, Any]) -> Stage:
        """Inverse of `record`."""
        return Stage(**{name: record[name] for name in ("name", "state", "done", "of", "unit", "seconds")})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: its stages in order, and the part of the whole that is done (0..1)."""

    stages: tuple[Stage, ...] = ()
    fraction: float = 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to go by the rate of the running stage; None while it cannot be told."""
        for stage in self.stages:
            rate = stage.per_second
            if stage.state == "running" and stage.of is not None and rate:
                return max(0.0, (stage.of - stage.done) / rate)
        return None

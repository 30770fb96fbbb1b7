"""A run: one model on one video with one set of parameters; its state, stages and progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypedDict

from shared.errors import Problem
from shared.values.time import format_timestamp


@dataclass(frozen=True, slots=True)
class Run:
    """One model on one video with one set of parameters, as it stands.

    Two fields say how the job that was read refers to it. `requested`: the request names the model (otherwise it was
    added as a need). `reused`: the run existed before the job.
    """

    id: str
    video_id: str
    model: str
    params: dict[str, Any]
    weights: str | None
    state: RunState
    attempt: int
    max_attempts: int
    fraction: float
    eta_s: float | None
    stages: tuple[StageRecord, ...]
    device: str | None
    precision: str | None
    version: str | None
    decode_failures: int | None
    cancel_requested: bool
    error: Problem | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    requested: bool = True
    reused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "id": self.id,
            "model": self.model,
            "params": self.params,
            "state": self.state.value,
            "requested": self.requested,
            "reused": self.reused,
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "progress": {
                "fraction": round(self.fraction, 4),
                "eta_s": self.eta_s,
                "updated_at": format_timestamp(self.updated_at),
            },
            "stages": list(self.stages),
            "device": self.device,
            "precision": self.precision,
            "weights": {"fingerprint": self.weights} if self.weights else None,
            "version": self.version,
            "decode_failures": self.decode_failures,
            "error": self.error,
            "created_at": format_timestamp(self.created_at),
            "started_at": format_timestamp(self.started_at),
            "finished_at": format_timestamp(self.finished_at),
        }


class StageRecord(TypedDict):
    """A `Stage` as it is stored and shown.

    Not read back into a `Stage` to be shown: `per_second` was computed before `seconds` was rounded, so a new division
    would give another number.
    """

    name: str
    state: str
    done: int
    of: int | None
    unit: str
    per_second: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A message to be sent after the commit: this run may start. `video_id` is for whoever watches the queue."""

    run_id: str
    model: str
    priority: int
    video_id: str = field(default="", compare=False)


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
    def has_ended(self) -> bool:
        """Whether nothing more can happen to the run."""
        return self not in LIVE_STATES


LIVE_STATES = frozenset({RunState.WAITING, RunState.QUEUED, RunState.RUNNING})


@dataclass(frozen=True, slots=True)
class Stage:
    """How far one stage of a run is.

    Args:
        name: `plan`, `encode`, `infer`, `postprocess`, `render` or `store`.
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

    def to_dict(self) -> StageRecord:
        """JSON form; read back by `from_dict`."""
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
    def from_dict(record: StageRecord) -> Stage:
        """Inverse of `to_dict`, to the millisecond."""
        return Stage(record["name"], record["state"], record["done"], record["of"], record["unit"], record["seconds"])


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: its stages in order, and the part of the whole that is done (0..1)."""

    stages: tuple[Stage, ...] = ()
    fraction: float = 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go by the rate of the running stage; None while it is unknown."""
        for stage in self.stages:
            rate = stage.per_second
            if stage.state == "running" and stage.of is not None and rate:
                return max(0.0, (stage.of - stage.done) / rate)
        return None

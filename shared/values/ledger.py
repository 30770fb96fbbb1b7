"""What the ledger says: the values that the store hands out, with the JSON form of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.values.media import Video
from shared.values.work import JobState, RunState, job_state


def stamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video in the ledger: its name, its bytes, its facts.

    `stored`: its bytes are in the store; otherwise the film stays where it is, in a place of a source.
    """

    id: str
    sha256: str
    size: int
    name: str
    media_type: str
    video: Video
    created_at: datetime
    stored: bool = True

    def record(self) -> dict[str, Any]:
        """JSON form without links."""
        return {
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "stored": self.stored,
            "probe": self.video.record(),
            "created_at": stamp(self.created_at),
        }


@dataclass(frozen=True, slots=True)
class Run:
    """One model on one video with one set of parameters, as it stands.

    `asked` and `reused` say how the job at hand refers to it: named in the request (or added as a need), and whether
    it was there before the job.
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
    stages: list[dict[str, Any]]
    device: str | None
    precision: str | None
    version: str | None
    decode_failures: int | None
    cancel_requested: bool
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    asked: bool = True
    reused: bool = False

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "id": self.id,
            "model": self.model,
            "params": self.params,
            "state": self.state.value,
            "asked": self.asked,
            "reused": self.reused,
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "progress": {
                "fraction": round(self.fraction, 4),
                "eta_s": self.eta_s,
                "updated_at": stamp(self.updated_at),
            },
            "stages": self.stages,
            "device": self.device,
            "precision": self.precision,
            "weights": {"fingerprint": self.weights} if self.weights else None,
            "version": self.version,
            "decode_failures": self.decode_failures,
            "error": self.error,
            "created_at": stamp(self.created_at),
            "started_at": stamp(self.started_at),
            "finished_at": stamp(self.finished_at),
        }


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as it stands: everything about it follows from its runs."""

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
        return job_state(((run.state, run.cancel_requested) for run in self.runs), self.cancelled_at is not None)

    @property
    def fraction(self) -> float:
        """Part of the work that is done, 0..1."""
        return sum(1.0 if run.state is RunState.DONE else run.fraction for run in self.runs) / len(self.runs)

    @property
    def eta_s(self) -> float | None:
        """Seconds to go; None unless every unfinished run can tell."""
        etas = [run.eta_s for run in self.runs if not run.state.ended]
        known = [eta for eta in etas if eta is not None]
        return sum(known) if known and len(known) == len(etas) else None

    @property
    def started_at(self) -> datetime | None:
        """When the first of its runs started."""
        return min((run.started_at for run in self.runs if run.started_at), default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When the last of its runs ended; None before."""
        if not self.state.ended:
            return None
        return max((run.finished_at for run in self.runs if run.finished_at), default=self.cancelled_at)

    @property
    def error(self) -> dict[str, Any] | None:
        """The error of its first failed run."""
        return next((run.error for run in self.runs if run.state is RunState.FAILED), None)

    def record(self) -> dict[str, Any]:
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
                "updated_at": stamp(max((run.updated_at for run in self.runs), default=self.created_at)),
            },
            "runs": [run.record() for run in self.runs],
            "created_at": stamp(self.created_at),
            "started_at": stamp(self.started_at),
            "finished_at": stamp(self.finished_at),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it announces itself.

    Args:
        state: `starting`, `ready`, `busy`, `setup_failed` or `stopping`.
        models: for each model served: `{"model", "weights": fingerprint or None, "error": problem or None}`.
        live: whether it was heard of lately.
    """

    id: str
    state: str
    reason: str | None
    models: list[dict[str, Any]]
    device: str
    precision: str
    run_id: str | None
    started_at: datetime
    heartbeat_at: datetime
    live: bool

    def record(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "id": self.id,
            "state": self.state,
            "reason": self.reason,
            "models": self.models,
            "device": self.device,
            "precision": self.precision,
            "run_id": self.run_id,
            "live": self.live,
            "started_at": stamp(self.started_at),
            "heartbeat_at": stamp(self.heartbeat_at),
        }

    def serves(self, model: str) -> bool:
        """Whether it is live and has no complaint about that model."""
        return self.live and any(entry["model"] == model and not entry["error"] for entry in self.models)


@dataclass(frozen=True, slots=True)
class Wake:
    """A message to be sent after the commit: this run may start. The video is named for those who watch."""

    run_id: str
    model: str
    priority: int
    video_id: str = field(default="", compare=False)


def labels_of(pairs: Iterable[str]) -> dict[str, str]:
    """`show:x` -> {"show": "x"}; ValueError on a pair without a colon."""
    labels = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not name:
            raise ValueError(pair)
        labels[name] = value
    return labels

"""A worker process as it announced itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from shared.errors import Problem
from shared.values.time import format_timestamp


class ModelOffer(TypedDict):
    """A model that a worker serves, or cannot serve.

    `weights`: their fingerprint; None without weights. `error`: why the model cannot be served.
    """

    model: str
    weights: str | None
    error: Problem | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it announces itself.

    Args:
        state: `starting`, `ready`, `busy`, `setup_failed` or `stopping`.
        models: what it serves, or was asked to serve and cannot.
        live: whether its last heartbeat is recent.
    """

    id: str
    state: str
    reason: str | None
    models: tuple[ModelOffer, ...]
    device: str
    precision: str
    run_id: str | None
    started_at: datetime
    heartbeat_at: datetime
    live: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "id": self.id,
            "state": self.state,
            "reason": self.reason,
            "models": list(self.models),
            "device": self.device,
            "precision": self.precision,
            "run_id": self.run_id,
            "live": self.live,
            "started_at": format_timestamp(self.started_at),
            "heartbeat_at": format_timestamp(self.heartbeat_at),
        }

    def serves_model(self, model: str) -> bool:
        """Whether it is live and can serve that model."""
        return self.live and any(entry["model"] == model and not entry["error"] for entry in self.models)

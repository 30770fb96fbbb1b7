"""A worker process as it announced itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.values.time import format_timestamp


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

    def to_dict(self) -> dict[str, Any]:
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
            "started_at": format_timestamp(self.started_at),
            "heartbeat_at": format_timestamp(self.heartbeat_at),
        }

    def serves_model(self, model: str) -> bool:
        """Whether it is live and has no complaint about that model."""
        return self.live and any(entry["model"] == model and not entry["error"] for entry in self.models)

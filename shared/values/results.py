"""What a run yields: typed results, and artifacts (files)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.values.time import TimeRange


@dataclass(frozen=True, slots=True)
class Result:
    """One typed row of what a run found.

    Args:
        kind: `shot`, `scene`, `highlight` ...
        seq: position among the run's results of this kind, from 0.
        range: where in the video; None for a result about the whole.
        score: the model's confidence in 0..1; None where it has none.
        data: anything more, JSON.
    """

    kind: str
    seq: int
    range: TimeRange | None = None
    score: float | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, the same in the API and on the command line."""
        return {
            "kind": self.kind,
            "seq": self.seq,
            "start": self.range.start.to_dict() if self.range else None,
            "end": self.range.end.to_dict() if self.range else None,
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

    def to_result(self, seq: int) -> Result:
        """As a row."""
        return Result("shot", seq, self.range, self.score, {"transition_frames": self.transition})


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a run wrote, before it is stored.

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

    def to_dict(self) -> dict[str, Any]:
        """JSON form, the same in the API and on the command line."""
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "media_type": self.media_type,
            "sha256": self.sha256,
            "size": self.size,
        }

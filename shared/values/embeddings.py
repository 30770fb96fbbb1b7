"""An embedding: the vector of a video or of a part of it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from shared.values.time import TimeRange


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of a video or of a part of it, for similarity search.

    Args:
        seq: of the result of kind `embedding` that it belongs to.
        range: where in the video; None for the whole.
        vector: as the network gave it, not normalised: float32 (type code `f`).
    """

    seq: int
    range: TimeRange | None
    vector: array[float]

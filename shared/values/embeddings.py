"""Embeddings of films in the form of the published pipeline."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from shared.values.time import TimeRange


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

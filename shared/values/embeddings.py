"""Embeddings of films in the form of the published pipeline."""

from __future__ import annotations

from typing import Any

from shared.values.work import Embedding


def modelscope(embedding: Embedding) -> dict[str, Any]:
    """The answer of the published R(2+1)D pipeline on ModelScope: the vector of the whole film, not normalised.

    ValueError for the embedding of a shot: that pipeline knows none.
    """
    if embedding.range is not None:
        raise ValueError(f"embedding {embedding.seq} is that of a shot")
    return {"video_embedding": embedding.vector.tolist()}

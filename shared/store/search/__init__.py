"""Embeddings, and videos and shots ranked by them: what `ranking` offers is imported from here."""

from shared.store.search import embeddings
from shared.store.search.ranking import (
    EXACT_LIMIT,
    POOL_SIZE,
    ExcludedCounts,
    Neighbour,
    RankPosition,
    SearchFilter,
    count_excluded,
    find_neighbours,
)

__all__ = [
    "EXACT_LIMIT",
    "POOL_SIZE",
    "ExcludedCounts",
    "Neighbour",
    "RankPosition",
    "SearchFilter",
    "count_excluded",
    "embeddings",
    "find_neighbours",
]

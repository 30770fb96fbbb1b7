"""Embeddings, and films and shots ranked by them: what `ranking` offers is imported from here."""

from shared.store.likeness import embeddings
from shared.store.likeness.ranking import EXACT, POOL, LeftOut, Near, Place, Wanted, left_out, nearest

__all__ = ["EXACT", "POOL", "LeftOut", "Near", "Place", "Wanted", "embeddings", "left_out", "nearest"]

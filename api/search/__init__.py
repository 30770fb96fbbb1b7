"""Search by example: the neighbours of a video, a shot or a vector among stored embeddings."""

from api.search.routes import bp

__all__ = ["bp"]

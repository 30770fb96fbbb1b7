"""Videos and sources: uploads, files that stay where they are, thumbnails, the history of runs."""

from api.videos.routes import bp

__all__ = ["bp"]

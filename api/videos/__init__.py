"""Videos: taken in as a stream, hashed and counted on the way, probed in a process of their own, stored by content."""

from api.videos.routes import bp

__all__ = ["bp"]

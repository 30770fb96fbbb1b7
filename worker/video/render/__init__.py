"""Making films: one stretch (`clip`), several stretches (`cuts`), pictures of our own (`film`)."""

from worker.video.render.clips import clip
from worker.video.render.films import cuts, film

__all__ = ["clip", "cuts", "film"]

"""Write videos: one range (`cut_clip`), several ranges (`concatenate_ranges`), or computed images (`write_video`)."""

from worker.video.render.clips import cut_clip
from worker.video.render.videos import concatenate_ranges, write_video

__all__ = ["concatenate_ranges", "cut_clip", "write_video"]

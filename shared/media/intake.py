"""What is settled about a file before it becomes a video: its name, its type, and whether it is taken."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from shared.errors import VideoTooLong
from shared.media.sandbox import probe_video
from shared.settings import Settings
from shared.values import VideoFacts

MEDIA_TYPES = {
    "mov": "video/mp4",
    "mp4": "video/mp4",
    "matroska": "video/x-matroska",
    "webm": "video/webm",
    "mpegts": "video/mp2t",
    "mpeg": "video/mpeg",
    "avi": "video/x-msvideo",
    "ogg": "video/ogg",
    "flv": "video/x-flv",
    "asf": "video/x-ms-asf",
    "mxf": "application/mxf",
}
WEBM_CODECS = {"vp8", "vp9", "av1"}


def probe_accepted_video(path: Path, config: Settings, *, allow_damaged: bool = False) -> VideoFacts:
    """The facts of a new file; the error of the closed list that says why it is not taken."""
    video = probe_video(path, config.probe_timeout_s, allow_damaged=allow_damaged)
    if video.duration > config.max_video_s:
        raise VideoTooLong(
            f"The video lasts {float(video.duration):.0f} s; this service takes up to {config.max_video_s:g} s."
        )
    return video


def detect_media_type(video: VideoFacts) -> str:
    """From what the file is, never from what the sender calls it: it is served under this type."""
    if video.container == "matroska" and video.codec in WEBM_CODECS:
        return "video/webm"
    return MEDIA_TYPES.get(video.container, "application/octet-stream")


def clean_file_name(raw: str | None) -> str:
    """A file name that is safe to show and to offer: no folders, no control characters, at most 255 characters."""
    name = unicodedata.normalize("NFC", raw or "").replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if char.isprintable()).strip()
    if not name.strip("."):
        return "video"
    stem, dot, suffix = name.rpartition(".")
    if len(name) > 255 and dot and len(suffix) <= 10:
        return f"{stem[: 254 - len(suffix)]}.{suffix}"
    return name[:255]

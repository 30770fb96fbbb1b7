"""Masks as images: a PNG for each query and frame, in one archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import cv2

from shared.errors import Internal
from shared.values.tracks import TrackFrame
from worker.models.mttr.tracks.masks import decode_rle

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member (the earliest that ZIP has), so that the same masks make the same archive."""


def member_name(query: int, frame: int) -> str:
    """Of a member: `<query>/<frame>.png`, six digits at least, so that names sort as frames do."""
    return f"{query}/{frame:06d}.png"


def write_masks_zip(frames: Iterable[TrackFrame], target: Path) -> Path:
    """Write a ZIP, stored (PNG is compressed already): one grey image a mask, 0 outside and 255 inside.

    Args:
        frames: of all queries.
        target: the file.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zip_file:
        for track_frame in frames:
            succeeded, png = cv2.imencode(".png", decode_rle(track_frame.mask) * 255)
            if not succeeded:
                raise Internal("a mask could not be written as PNG")
            zip_file.writestr(
                zipfile.ZipInfo(member_name(track_frame.query, track_frame.frame), ZIP_EPOCH), png.tobytes()
            )
    return target

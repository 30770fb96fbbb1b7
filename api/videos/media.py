"""Find and send the bytes of a video: from the store, or from its place in a source."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

from flask import Response

from api.http.context import get_services
from api.http.files import find_stored_path, send_open_file, send_stored_file
from shared.errors import SourceUnreachable
from shared.log import get_logger
from shared.source_roots import parse_roots, resolve_within
from shared.storage import matches_stat
from shared.store.videos import sources
from shared.values import StoredVideo

log = get_logger(__name__)


def find_video_path(video: StoredVideo) -> Path:
    """Find the path at which the bytes of a video can be read now.

    Raises:
        NotFound: the store has lost them.
        SourceUnreachable: the video is gone from its sources, has changed, or lies outside the allowed folders.
    """
    app_services = get_services()
    if app_services.files.object_path(video.sha256).is_file():
        return find_stored_path(video.sha256)
    source_files = sources.find_video_files(app_services.engine, video.id)
    if video.stored and not source_files:
        return find_stored_path(video.sha256)
    path = resolve_within(
        app_services.files.locate_video(video.sha256, source_files, stored=video.stored),
        parse_roots(app_services.settings.source_roots),
    )
    if path is None:
        raise SourceUnreachable("The video lies outside the folders that the operator allows.")
    return path


def send_video(video: StoredVideo) -> Response:
    """Send the bytes of a video with Range and ETag (its hash); NotFound, SourceUnreachable."""
    path = find_video_path(video)
    if path == get_services().files.object_path(video.sha256).resolve():
        return send_stored_file(video.sha256, video.media_type, video.name, inline=True)
    try:
        source_file = SourceVideoFile(path)
    except OSError as error:
        raise SourceUnreachable(f"The video cannot be read: {error.strerror}.") from None
    try:
        check_path_unchanged(video, path)
        source_file.check_same_file(path)
        return send_open_file(source_file, video.sha256, video.media_type, video.name, inline=True)
    except BaseException:
        source_file.close()
        raise


def check_path_unchanged(video: StoredVideo, path: Path) -> None:
    """SourceUnreachable when the bytes of a video are no longer at `path`."""
    if find_video_path(video) != path:
        raise SourceUnreachable("The video was replaced or moved while it was read.")


class SourceVideoFile(io.FileIO):
    """A video in a source, opened to be sent with its hash as ETag.

    When the file is written to meanwhile, the connection is broken: the client must not take the bytes for the video
    of that hash. A file that replaces it does no harm, as this one stays open.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        self._opened_state = self._read_state()

    def check_same_file(self, path: Path) -> None:
        """SourceUnreachable when the file of that name is not the one that was opened."""
        if not matches_stat(str(path), *self._opened_state):
            raise SourceUnreachable("The video was replaced while it was opened.")

    def read(self, size: int | None = -1) -> Any:
        """Read bytes; ConnectionResetError when the file was written to since it was opened."""
        data = super().read(size)
        if self._read_state() != self._opened_state:
            log.warning("video.changed_while_sent")
            raise ConnectionResetError(errno.ECONNRESET, "the video was changed while it was sent")
        return data

    def _read_state(self) -> tuple[int, int]:
        facts = os.fstat(self.fileno())
        return (facts.st_size, facts.st_mtime_ns)

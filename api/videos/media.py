"""Where the bytes of a video are, and how they are sent: from the store, or from where the film lies in a source."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

from flask import Response

from api.results.files import send, send_stored, stored_path
from api.service.health import services
from shared.errors import SourceUnreachable
from shared.files import lies, roots, within
from shared.log import logger
from shared.store.archive import sources
from shared.values import StoredVideo

log = logger(__name__)


def film_path(video: StoredVideo) -> Path:
    """Where the bytes of a video can be read now.

    Raises:
        NotFound: the store has lost them.
        SourceUnreachable: the film has gone from its sources, or has changed, or lies where it is no longer allowed.
    """
    parts = services()
    if parts.files.path(video.sha256).is_file():
        return stored_path(video.sha256)
    places = sources.where(parts.engine, video.id)
    if video.stored and not places:
        return stored_path(video.sha256)
    path = within(parts.files.film(video.sha256, places, stored=video.stored), roots(parts.settings.archive_roots))
    if path is None:
        raise SourceUnreachable("The film lies outside the folders that the operator allows.")
    return path


def send_film(video: StoredVideo) -> Response:
    """The bytes of a video with Range and ETag (its hash). NotFound, SourceUnreachable."""
    path = film_path(video)
    if path == services().files.path(video.sha256).resolve():
        return send_stored(video.sha256, video.media_type, video.name, inline=True)
    try:
        film = FilmInPlace(path)
    except OSError as error:
        raise SourceUnreachable(f"The film cannot be read: {error.strerror}.") from None
    try:
        check_in_place(video, path)
        film.check(path)
        return send(film, video.sha256, video.media_type, video.name, inline=True)
    except BaseException:
        film.close()
        raise


def check_in_place(video: StoredVideo, path: Path) -> None:
    """SourceUnreachable when the bytes of a video are no longer there where they were."""
    if film_path(video) != path:
        raise SourceUnreachable("The film was replaced or moved while it was read.")


class FilmInPlace(io.FileIO):
    """A film in a source, opened to be sent under its hash: it ends with a broken connection when it is written to.

    A file put in its place does no harm: what was opened stays what it was.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        self._was = self._now()

    def check(self, path: Path) -> None:
        """SourceUnreachable when the file of that name is not the one that was opened."""
        if not lies(str(path), *self._was):
            raise SourceUnreachable("The film was replaced while it was opened.")

    def read(self, size: int | None = -1) -> Any:
        """So many bytes of the film as it was scanned; ConnectionResetError when it was written to since."""
        data = super().read(size)
        if self._now() != self._was:
            log.warning("film.changed_while_sent")
            raise ConnectionResetError(errno.ECONNRESET, "the film was changed while it was sent")
        return data

    def _now(self) -> tuple[int, int]:
        facts = os.fstat(self.fileno())
        return (facts.st_size, facts.st_mtime_ns)

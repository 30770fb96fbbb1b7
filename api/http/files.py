"""Send stored files: ranges, conditional requests, caching."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

from flask import Response, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import FileWrapper

from api.http.context import get_services
from shared.errors import NotFound
from shared.log import get_logger
from shared.storage import CHUNK

log = get_logger(__name__)

IMMUTABLE_CACHE = "private, max-age=31536000, immutable"
SANDBOX_CSP = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
"""For bytes that came from outside, or were derived from such: nothing in them may run."""
INLINE_TYPES = ("image/jpeg", "image/png", "image/webp", "video/")


FILE_DOC: dict[int | str, Any] = {
    200: {"description": "The bytes.", "content": {"*/*": {}}},
    206: {"description": "The requested range.", "content": {"*/*": {}}},
    304: {"description": "Not modified."},
    416: {"description": "No such range."},
}


def send_stored_file(sha256: str, media_type: str, name: str, *, inline: bool) -> Response:
    """Send a file of the store like `send_open_file`; NotFound when its bytes are gone."""
    return send_open_file(find_stored_path(sha256).open("rb"), sha256, media_type, name, inline=inline)


def send_open_file(file: IO[bytes], sha256: str, media_type: str, name: str, *, inline: bool) -> Response:
    """Send an open file with Range, ETag (its hash) and a name; it is closed after it was sent."""
    response = send_file(
        file, mimetype=media_type, as_attachment=not inline, download_name=name, etag=sha256, conditional=False
    )
    if inline:
        response.headers["Content-Disposition"] = response.headers["Content-Disposition"].replace(
            "attachment", "inline", 1
        )
    response.headers.update({"Cache-Control": IMMUTABLE_CACHE, "Content-Security-Policy": SANDBOX_CSP})
    facts = os.fstat(file.fileno())
    response.content_length, response.last_modified = facts.st_size, facts.st_mtime  # type: ignore[assignment]
    if request.range is not None:
        # gunicorn's own wrapper cannot seek: for the end of a long video it would read everything before it.
        response.response = FileWrapper(file, CHUNK)
    return _apply_conditions(response, facts.st_size)


def _apply_conditions(response: Response, size: int) -> Response:
    """Apply If-None-Match, then Range; RequestedRangeNotSatisfiable closes the file first."""
    etag, _ = response.get_etag()
    if request.if_none_match.contains_weak(etag or "") or _should_ignore_range(size):
        response.headers["Accept-Ranges"] = "bytes"
        response.make_conditional(request.environ)
        return response
    try:
        response.make_conditional(request.environ, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    return response


def _should_ignore_range(size: int) -> bool:
    """Whether the Range header is ignored: another unit, several ranges, or a suffix longer than the file."""
    requested_range = request.range
    if requested_range is None or requested_range.units != "bytes" or len(requested_range.ranges) != 1:
        return True
    start, _ = requested_range.ranges[0]
    return -start > size


def find_stored_path(sha256: str) -> Path:
    """Find the path of the bytes with that hash; NotFound when they are gone."""
    path = get_services().files.object_path(sha256).resolve()
    if not path.is_file():
        log.warning("file.missing", sha256=sha256)
        raise NotFound("The bytes of this file are no longer stored.")
    return path

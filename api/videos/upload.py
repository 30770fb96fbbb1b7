"""Read the body of an upload as a stream, count and hash it, and compare it with its headers."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from flask import request
from gunicorn.http.errors import ParseException
from streaming_form_data import ParseFailedException, StreamingFormDataParser
from streaming_form_data.targets import BaseTarget
from werkzeug.exceptions import ClientDisconnected

from api.http.context import Services
from shared.errors import InvalidRequest, SceneworksError, StorageFull, UnsupportedMedia, VideoTooLarge
from shared.storage import CHUNK

STALL_S = 60
"""Seconds without a byte after which an upload is given up: its thread is needed."""
DRAIN_S = 5
CHECK_DISK_EVERY = 64 * CHUNK


@dataclass(slots=True)
class Upload:
    """The body of the request as a stream of the file's bytes; memory does not grow with its size.

    The bytes are counted and compared with Content-Length: gunicorn ends the stream of a client that has disconnected
    without an exception, so the count is the only way to notice.
    """

    services: Services
    digest: bytes | None
    name: str | None = None
    received: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        request.max_content_length = sys.maxsize  # None would be the limit of the app, which is one for JSON
        self._check_free_space(request.content_length or 0)

    def iter_chunks(self) -> Iterator[bytes]:
        """Iterate over the file's bytes, sent raw or as a form; InvalidRequest, VideoTooLarge, StorageFull."""
        kind = request.mimetype
        if kind == "multipart/form-data":
            return self._iter_form()
        if kind.startswith(("video/", "audio/")) or kind in {"", "application/octet-stream"}:
            return self._iter_body()
        if kind == "application/json":
            raise InvalidRequest("This service takes uploads only: send the bytes of the file.")
        raise UnsupportedMedia("Content-Type must be video/*, application/octet-stream or multipart/form-data.")

    def _iter_body(self) -> Iterator[bytes]:
        if sock := request.environ.get("gunicorn.socket"):
            sock.settimeout(STALL_S)
        while chunk := _read_body(CHUNK):
            if (self.received + len(chunk)) // CHECK_DISK_EVERY > self.received // CHECK_DISK_EVERY:
                self._check_free_space(0)
            self.received += len(chunk)
            if self.received > self.services.settings.max_upload_bytes:
                raise VideoTooLarge(_too_large_detail(self.services))
            if self.digest:
                self._hash.update(chunk)
            yield chunk
        if request.content_length is not None and self.received != request.content_length:
            raise InvalidRequest(f"The upload ended after {self.received} of {request.content_length} bytes.")
        if self.digest and self._hash.digest() != self.digest:
            raise InvalidRequest("The bytes received do not have the digest of Content-Digest.")

    def _iter_form(self) -> Iterator[bytes]:
        part = FormPart()
        try:
            parser = StreamingFormDataParser({"Content-Type": request.headers["Content-Type"]})
            parser.register("file", part)
            for chunk in self._iter_body():
                parser.data_received(chunk)
                yield part.take_bytes()
        except ParseFailedException:
            raise InvalidRequest("The form is not valid multipart/form-data.") from None
        if part.count != 1 or not part.complete:
            raise InvalidRequest("The form must have exactly one complete part `file`.")
        self.name = part.multipart_filename

    def _check_free_space(self, expected_bytes: int) -> None:
        if expected_bytes > self.services.settings.max_upload_bytes:
            raise VideoTooLarge(_too_large_detail(self.services))
        if self.services.files.free_bytes() - expected_bytes < self.services.settings.min_free_bytes:
            raise StorageFull("There is no room left for a video of this size.")


class FormPart(BaseTarget):  # type: ignore[misc]
    """The part `file` of a form, passed on as it arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.complete = False
        self._buffer = bytearray()

    def on_start(self) -> None:
        """A part begins."""
        self.count += 1
        self.complete = False

    def on_data_received(self, chunk: bytes) -> None:
        """Bytes of the part."""
        self._buffer += chunk

    def on_finish(self) -> None:
        """The boundary after the part was seen."""
        self.complete = True

    def take_bytes(self) -> bytes:
        """Take the bytes that arrived since the last call."""
        taken, self._buffer = bytes(self._buffer), bytearray()
        return taken


def _read_body(size: int) -> bytes:
    """Read bytes of the body; InvalidRequest when the client has disconnected or hangs."""
    # Not the OSError itself: callers would take it for a fault of our disk.
    try:
        return request.stream.read(size)
    except (ClientDisconnected, ParseException, OSError):
        raise InvalidRequest("The upload broke off before it was complete.") from None


def _too_large_detail(app_services: Services) -> str:
    return f"This service takes videos of up to {app_services.settings.max_upload_bytes} bytes."


@contextmanager
def drain_refused_upload() -> Iterator[None]:
    """Read the rest of an upload that is refused early, for a few seconds.

    A socket closed with unread bytes is reset, and the client would see that instead of the problem document.
    """
    try:
        yield
    except SceneworksError:
        deadline = time.monotonic() + DRAIN_S
        if sock := request.environ.get("gunicorn.socket"):
            sock.settimeout(DRAIN_S)
        with suppress(InvalidRequest):  # the client has gone: then nobody waits for the answer
            while time.monotonic() < deadline and _read_body(CHUNK):
                continue
        raise

"""Artifacts: the files that runs made, whole, by ranges, and one by one out of an archive."""

from __future__ import annotations

import mimetypes
import os
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from apiflask import APIBlueprint
from flask import Response, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import FileWrapper

from api.errors import Record, problems
from api.service.health import services
from shared.errors import NotFound
from shared.files import CHUNK
from shared.log import logger
from shared.store import results
from shared.values import Artifact

log = logger(__name__)
bp = APIBlueprint("artifacts", __name__, url_prefix="/v1", tag="Results and artifacts")

FOREVER = "private, max-age=31536000, immutable"
SANDBOX = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
"""For bytes that came from outside, or were made from such: nothing in them may run."""
SHOWN = ("image/jpeg", "image/png", "image/webp", "video/")
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a member of a zip archive: signature, ..., length of name, length of extra field (APPNOTE 4.3.7)."""
FILE_DOC: dict[int | str, Any] = {
    200: {"description": "The bytes.", "content": {"*/*": {}}},
    206: {"description": "The range asked for.", "content": {"*/*": {}}},
    304: {"description": "Not modified."},
    416: {"description": "No such range."},
}


class ArtifactUrls(Record):
    """Where the bytes are."""

    self: str


class ArtifactRecord(Record):
    """A file that a run made."""

    id: str
    kind: str
    name: str
    media_type: str
    sha256: str
    size: int
    run_id: str
    model: str
    urls: ArtifactUrls


class ArtifactList(Record):
    """The files of a job."""

    items: list[ArtifactRecord]


@bp.get("/jobs/<job_id>/artifacts")
@bp.output(ArtifactList)
@bp.doc(responses=problems(NotFound))
def artifacts_of(job_id: str) -> dict[str, Any]:
    """The files of a job's finished runs."""
    found = results.artifacts(services().engine, job_id)
    return {"items": [_artifact(run_id, model, artifact) for run_id, model, artifact in found]}


@bp.get("/artifacts/<artifact_id>")
@bp.doc(responses=problems(NotFound, also=FILE_DOC))
def artifact(artifact_id: str) -> Response:
    """One file, whole or by ranges."""
    found = results.artifact(services().engine, artifact_id)
    return send_stored(found.sha256, found.media_type, found.name, inline=found.media_type.startswith(SHOWN))


@bp.get("/artifacts/<artifact_id>/members/<path:name>")
@bp.doc(responses=problems(NotFound, also={200: FILE_DOC[200], 304: FILE_DOC[304]}))
def member(artifact_id: str, name: str) -> Response:
    """One file inside a zip artifact, such as one keyframe of `keyframes.zip`."""
    found = results.artifact(services().engine, artifact_id)
    if found.media_type != "application/zip":
        raise NotFound("This artifact is not an archive.")
    data, crc = _read_member(stored_path(found.sha256), name)
    kind = mimetypes.guess_type(name)[0] or ""
    response = Response(data, mimetype=kind if kind.startswith(SHOWN) else "application/octet-stream")
    response.headers.update({"Cache-Control": FOREVER, "Content-Security-Policy": SANDBOX})
    response.set_etag(f"{found.sha256}-{crc:08x}")
    response.make_conditional(request.environ)
    return response


def send_stored(sha256: str, media_type: str, name: str, *, inline: bool) -> Response:
    """A file of the store, as `send` does it; NotFound when its bytes are gone."""
    return send(stored_path(sha256).open("rb"), sha256, media_type, name, inline=inline)


def send(file: IO[bytes], sha256: str, media_type: str, name: str, *, inline: bool) -> Response:
    """An open file with Range, ETag (its hash) and a name; it is closed when it was sent."""
    response = send_file(
        file, mimetype=media_type, as_attachment=not inline, download_name=name, etag=sha256, conditional=False
    )
    if inline:
        response.headers["Content-Disposition"] = response.headers["Content-Disposition"].replace(
            "attachment", "inline", 1
        )
    response.headers.update({"Cache-Control": FOREVER, "Content-Security-Policy": SANDBOX})
    facts = os.fstat(file.fileno())
    response.content_length, response.last_modified = facts.st_size, facts.st_mtime  # type: ignore[assignment]
    if request.range is not None:  # gunicorn's wrapper cannot seek: the end of a long film would be read from its start
        response.response = FileWrapper(file, CHUNK)
    return _conditional(response, facts.st_size)


def _conditional(response: Response, size: int) -> Response:
    """Heed If-None-Match, then Range. A range that is not there is an error, and the file must not stay open for it."""
    etag, _ = response.get_etag()
    if request.if_none_match.contains_weak(etag or "") or _ignored(size):
        response.headers["Accept-Ranges"] = "bytes"
        response.make_conditional(request.environ)
        return response
    try:
        response.make_conditional(request.environ, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    return response


def _ignored(size: int) -> bool:
    """Whether a Range asks for nothing that we do: another unit, several ranges, or an end longer than the file."""
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return True
    start, _ = asked.ranges[0]
    return -start > size


def stored_path(sha256: str) -> Path:
    """Where the bytes of that hash lie; NotFound when they are gone."""
    path = services().files.path(sha256).resolve()
    if not path.is_file():
        log.warning("file.missing", sha256=sha256)
        raise NotFound("The bytes of this file are no longer stored.")
    return path


@lru_cache(maxsize=32)
def _members(archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Stored (not compressed) members by name. Kept, since the name of an archive is the hash of its content."""
    with zipfile.ZipFile(archive) as opened:
        return {info.filename: info for info in opened.infolist() if info.compress_type == zipfile.ZIP_STORED}


def _read_member(archive: Path, name: str) -> tuple[bytes, int]:
    """Bytes and CRC of one member; no name ever reaches the file system. NotFound."""
    info = _members(archive).get(name)
    if info is None or info.is_dir():
        raise NotFound("The archive has no such member.")
    with archive.open("rb") as file:
        file.seek(info.header_offset)
        _, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(name_length + extra_length, 1)
        return file.read(info.file_size), info.CRC


def _artifact(run_id: str, model: str, found: Artifact) -> dict[str, Any]:
    links = {"urls": {"self": f"{bp.url_prefix}/artifacts/{found.id}"}}
    return found.record() | {"run_id": run_id, "model": model} | links

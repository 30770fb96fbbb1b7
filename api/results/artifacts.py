"""Routes of artifacts: the files of runs, whole, by ranges, and single members of a zip file."""

from __future__ import annotations

import mimetypes
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api.http.context import get_services
from api.http.files import FILE_DOC, IMMUTABLE_CACHE, INLINE_TYPES, SANDBOX_CSP, find_stored_path, send_stored_file
from api.http.problems import document_problems
from api.http.schemas import Record
from shared.errors import NotFound
from shared.log import get_logger
from shared.store import results
from shared.values import Artifact

log = get_logger(__name__)
bp = APIBlueprint("artifacts", __name__, url_prefix="/v1", tag="Results and artifacts")

LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a member of a zip archive: signature, ..., length of name, length of extra field (APPNOTE 4.3.7)."""


class ArtifactUrls(Record):
    """Where the bytes are."""

    self: str


class ArtifactRecord(Record):
    """A file that a run has written."""

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
@bp.doc(responses=document_problems(NotFound))
def list_job_artifacts(job_id: str) -> dict[str, Any]:
    """The files of a job's finished runs."""
    artifact_rows = results.list_artifacts(get_services().engine, job_id)
    return {"items": [_build_artifact_record(run_id, model, artifact) for run_id, model, artifact in artifact_rows]}


@bp.get("/artifacts/<artifact_id>")
@bp.doc(responses=document_problems(NotFound, extra=FILE_DOC))
def download_artifact(artifact_id: str) -> Response:
    """One file, whole or by ranges."""
    stored_artifact = results.get_artifact(get_services().engine, artifact_id)
    return send_stored_file(
        stored_artifact.sha256,
        stored_artifact.media_type,
        stored_artifact.name,
        inline=stored_artifact.media_type.startswith(INLINE_TYPES),
    )


@bp.get("/artifacts/<artifact_id>/members/<path:name>")
@bp.doc(responses=document_problems(NotFound, extra={200: FILE_DOC[200], 304: FILE_DOC[304]}))
def download_member(artifact_id: str, name: str) -> Response:
    """One file inside a zip artifact, such as one keyframe of `keyframes.zip`."""
    stored_artifact = results.get_artifact(get_services().engine, artifact_id)
    if stored_artifact.media_type != "application/zip":
        raise NotFound("This artifact is not a zip file.")
    data, crc = _read_zip_member(find_stored_path(stored_artifact.sha256), name)
    kind = mimetypes.guess_type(name)[0] or ""
    response = Response(data, mimetype=kind if kind.startswith(INLINE_TYPES) else "application/octet-stream")
    response.headers.update({"Cache-Control": IMMUTABLE_CACHE, "Content-Security-Policy": SANDBOX_CSP})
    response.set_etag(f"{stored_artifact.sha256}-{crc:08x}")
    response.make_conditional(request.environ)
    return response


@lru_cache(maxsize=32)
def _index_zip_members(zip_path: Path) -> dict[str, zipfile.ZipInfo]:
    """Index the stored (not compressed) members by name."""
    # Safe to cache by path: the name of a stored file is the hash of its content.
    with zipfile.ZipFile(zip_path) as zip_file:
        return {info.filename: info for info in zip_file.infolist() if info.compress_type == zipfile.ZIP_STORED}


def _read_zip_member(zip_path: Path, name: str) -> tuple[bytes, int]:
    """Read bytes and CRC of one member; NotFound."""
    # The name is looked up in the index only: it never reaches the file system.
    info = _index_zip_members(zip_path).get(name)
    if info is None or info.is_dir():
        raise NotFound("The zip file has no such member.")
    with zip_path.open("rb") as file:
        file.seek(info.header_offset)
        _, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(name_length + extra_length, 1)
        return file.read(info.file_size), info.CRC


def _build_artifact_record(run_id: str, model: str, stored_artifact: Artifact) -> dict[str, Any]:
    links = {"urls": {"self": f"{bp.url_prefix}/artifacts/{stored_artifact.id}"}}
    return stored_artifact.to_dict() | {"run_id": run_id, "model": model} | links

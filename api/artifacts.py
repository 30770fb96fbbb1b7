"""What runs yield: results as pages of JSON, artifacts as files."""

from __future__ import annotations

import mimetypes
import struct
import zipfile
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from apiflask import APIBlueprint
from flask import Response, jsonify, request, send_file
from pydantic import Field
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from api.errors import Query, Record, bad_query, page, problems, read_token
from api.health import services
from shared.catalog import MENU
from shared.errors import NotFound
from shared.log import logger
from shared.store import jobs, results, videos
from shared.store.results import Found
from shared.values import Artifact, Job, Run, RunState, StoredVideo
from shared.values.scenes import Stamp, modelscope

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
EVERY_ROW = 2**31 - 1
TWO_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
SPAN = {"frame": TWO_TEXTS, "timestamps": TWO_TEXTS}
PUBLISHED: dict[str, Any] = {
    "title": "ModelScope",
    "description": "Shots and scenes with the keys of the published BaSSL pipeline: frames (the last one inclusive) "
    "and time stamps `HH:MM:SS.mmm`, all as text.",
    "type": "object",
    "additionalProperties": False,
    "required": ["shot_num", "shot_meta_list", "scene_num", "scene_meta_list"],
    "properties": {
        "shot_num": {"type": "integer"},
        "shot_meta_list": {"type": "array", "items": {"type": "object", "properties": SPAN, "required": [*SPAN]}},
        "scene_num": {"type": "integer"},
        "scene_meta_list": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"shot": {"type": "array", "items": {"type": "string"}}, **SPAN},
                "required": ["shot", *SPAN],
            },
        },
    },
}
RESULTS_DOC: dict[int | str, Any] = {
    200: {
        "description": "A page of results; with `format=modelscope` the whole film in one document.",
        "content": {
            "application/json": {"schema": {"oneOf": [{"$ref": "#/components/schemas/ResultPage"}, PUBLISHED]}}
        },
    }
}


class MomentRecord(Record):
    """One instant of a film."""

    frame: int
    seconds: float = Field(description="Since the first frame.")
    pts: int
    timecode: str


class ResultRecord(Record):
    """One thing that a run found."""

    kind: str
    seq: int
    start: MomentRecord | None
    end: MomentRecord | None = Field(description="Exclusive.")
    score: float | None
    data: dict[str, Any]
    run_id: str
    model: str


class FingerprintRecord(Record):
    """Which weights."""

    fingerprint: str


class ProvenanceRecord(Record):
    """Where the results of one run come from."""

    run_id: str
    model: str
    state: str
    weights: FingerprintRecord | None
    params: dict[str, Any]
    input_sha256: str
    device: str | None
    precision: str | None
    version: str | None
    decode_failures: int | None
    finished_at: datetime | None


class ResultPage(Record):
    """Results in order of run, kind and seq. A run that found nothing is `done` in `provenance` and has no items."""

    items: list[ResultRecord]
    video: dict[str, Any] = Field(description="The probe of the video.")
    provenance: list[ProvenanceRecord]
    next_page_token: str | None


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


class ResultsQuery(Query):
    """Which results."""

    model: str | None = Field(None, description="Only of this model's runs.")
    kind: str | None = Field(None, description="Only of this kind, such as `shot`.")
    limit: int = Field(500, ge=1, le=5000)
    page_token: str | None = None
    format: Literal["json", "modelscope"] = Field(
        "json", description="modelscope: shots and scenes of one finished run, in the form of the published pipeline."
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="modelscope: groups the shots by another threshold than the run's, at once."
    )


@bp.get("/jobs/<job_id>/results")
@bp.input(ResultsQuery, location="query", arg_name="query")
@bp.output(ResultPage)
@bp.doc(responses=problems(NotFound, also=RESULTS_DOC))
def results_of(job_id: str, query: ResultsQuery) -> tuple[dict[str, Any], dict[str, str]] | Response:
    """Results of a job; those of a finished run can be read while other runs go on."""
    engine = services().engine
    job = jobs.get(engine, job_id)
    if query.model is not None and query.model not in {run.model for run in job.runs}:
        raise bad_query("model", "unknown_model", "This job has no run of that model.")
    _check_format(query)
    if query.format == "modelscope":
        return jsonify(_published(job, query))
    after = read_token("results", query.page_token, (int, str, int))
    found = results.page(engine, job_id, model=query.model, kind=query.kind, limit=query.limit + 1, after=after)
    items, token, headers = page("results", found, query.limit, lambda one: one.cursor)
    video = videos.get(engine, job.video_id)
    answer = {
        "items": [_result(one) for one in items],
        "video": _facts(job, video),
        "provenance": [_provenance(run, video) for run in job.runs],
        "next_page_token": token,
    }
    return answer, headers


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
    data, crc = _read_member(_path(found.sha256), name)
    kind = mimetypes.guess_type(name)[0] or ""
    response = Response(data, mimetype=kind if kind.startswith(SHOWN) else "application/octet-stream")
    response.headers.update({"Cache-Control": FOREVER, "Content-Security-Policy": SANDBOX})
    response.set_etag(f"{found.sha256}-{crc:08x}")
    response.make_conditional(request.environ)
    return response


def send_stored(sha256: str, media_type: str, name: str, *, inline: bool) -> Response:
    """A file of the store with Range, ETag (its hash) and a name; NotFound when its bytes are gone."""
    path = _path(sha256)
    response = send_file(
        path, mimetype=media_type, as_attachment=not inline, download_name=name, etag=sha256, conditional=False
    )
    if inline:
        response.headers["Content-Disposition"] = response.headers["Content-Disposition"].replace(
            "attachment", "inline", 1
        )
    response.headers.update({"Cache-Control": FOREVER, "Content-Security-Policy": SANDBOX})
    return _conditional(response, path.stat().st_size)


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


def _path(sha256: str) -> Path:
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


def scene_runs(job: Job) -> list[Run]:
    """The job's finished runs that found scenes."""
    return [run for run in job.runs if run.state is RunState.DONE and _finds_scenes(run.model)]


def _finds_scenes(model: str) -> bool:
    return model in MENU and "scene" in MENU[model].results


def _check_format(query: ResultsQuery) -> None:
    """A parameter of the other format would change nothing: it is refused, so that nobody believes it did."""
    strange = {"threshold"} if query.format == "json" else {"kind", "limit", "page_token"}
    for name in sorted(strange & query.model_fields_set):
        raise bad_query(name, "not_in_this_format", f"{name} has no meaning with format={query.format}.")


def _published(job: Job, query: ResultsQuery) -> dict[str, Any]:
    """The scenes of one run as the published pipeline writes them."""
    run = _scene_run(job, query.model)
    found = results.page(services().engine, job.id, run_id=run.id, kind="boundary", limit=EVERY_ROW)
    stamps, probabilities = [], []
    for span, score in ((one.result.range, one.result.score) for one in found):
        if span is None or score is None:
            raise ValueError(f"a boundary of {run.id} has no times or no probability")
        stamps.append(Stamp.of(span))
        probabilities.append(score)
    threshold = run.params["threshold"] if query.threshold is None else query.threshold
    return modelscope(stamps, probabilities, threshold)


def _scene_run(job: Job, model: str | None) -> Run:
    """The first finished run of that model, which may be left open where the job has but one that finds scenes."""
    names = list(dict.fromkeys(run.model for run in job.runs if _finds_scenes(run.model)))
    if model is None and len(names) > 1:
        raise bad_query("model", "ambiguous_model", f"Several models of this job find scenes: {', '.join(names)}.")
    if model is not None and not _finds_scenes(model):
        raise bad_query("model", "no_scenes", f"{model} finds no scenes; format=modelscope is for models that do.")
    run = next((run for run in scene_runs(job) if model in {None, run.model}), None)
    if run is None:
        raise bad_query("format", "no_scenes", "This job has no finished run that found scenes.")
    return run


def _result(found: Found) -> dict[str, Any]:
    return found.result.record() | {"run_id": found.run_id, "model": found.model}


def _artifact(run_id: str, model: str, found: Artifact) -> dict[str, Any]:
    links = {"urls": {"self": f"{bp.url_prefix}/artifacts/{found.id}"}}
    return found.record() | {"run_id": run_id, "model": model} | links


def _facts(job: Job, video: StoredVideo) -> dict[str, Any]:
    """The probe, with the failures that were met when the film was read."""
    met = [run.decode_failures for run in job.runs if run.decode_failures is not None]
    return video.video.with_failures(max(met, default=video.video.decode_failures)).record()


def _provenance(run: Run, video: StoredVideo) -> dict[str, Any]:
    whole = run.record() | {"run_id": run.id, "input_sha256": video.sha256}
    return {name: whole[name] for name in ProvenanceRecord.model_fields}

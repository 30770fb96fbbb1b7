"""Videos: taken in as a stream, hashed and counted on the way, probed in a process of their own, stored by content."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request
from pydantic import BaseModel, Field

from api.errors import Query, Record, bad_query, page, problems, read_token
from api.results.files import FILE_DOC, FOREVER, SANDBOX
from api.service.health import services
from api.videos.intake import accepted, clean_name, media_type
from api.videos.media import check_in_place, film_path, send_film
from api.videos.thumbnails import moment, thumbnail
from api.videos.upload import Upload, lingering
from shared.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    MediaCorrupt,
    NotFound,
    NoVideoStream,
    RateLimited,
    SourceUnreachable,
    StorageFull,
    UnsupportedMedia,
    VideoTooLarge,
    VideoTooLong,
)
from shared.files import Stored
from shared.log import logger
from shared.store import videos
from shared.values import StoredVideo, Video

log = logger(__name__)
bp = APIBlueprint("videos", __name__, url_prefix="/v1/videos", tag="Videos")

BODY_DOC = {
    "required": True,
    "description": "The bytes of the file, or a form with one part `file`.",
    "content": {
        "video/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        },
    },
}
PICTURE_DOC: dict[int | str, Any] = {
    200: {"description": "The picture.", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    304: FILE_DOC[304],
}
KNOWN_DOC = {
    "description": "These bytes are known: the same video.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/VideoRecord"}}},
}


class AudioRecord(Record):
    """One sound track."""

    codec: str
    channels: int
    sample_rate: int
    language: str | None


class Probe(Record):
    """Facts of a film, read from its packets."""

    container: str
    codec: str
    pixel_format: str
    bit_depth: int
    coded_width: int
    coded_height: int
    width: int = Field(description="As shown, after sample aspect ratio and rotation.")
    height: int
    rotation: int = Field(description="Degrees counter-clockwise.")
    sample_aspect_ratio: str
    fps: str = Field(description="Fraction, such as 30000/1001.")
    vfr: bool = Field(description="Frames are unevenly spaced.")
    time_base: str
    start_pts: int
    start_time: float
    container_start_time: float
    duration: float = Field(description="Seconds.")
    frames: int
    transfer: str | None
    interlaced: bool
    audio: list[AudioRecord]
    decode_failures: int = Field(description="Packets that could not be decoded, once the film was read.")
    truncated: bool


class VideoUrls(Record):
    """Where to go on."""

    self: str
    media: str
    thumbnail: str


class VideoRecord(Record):
    """A video."""

    id: str
    name: str
    size: int
    sha256: str
    media_type: str
    stored: bool = Field(description="Its bytes are in the store; otherwise the film stays where it is, in a source.")
    probe: Probe
    created_at: datetime
    urls: VideoUrls


class VideoPage(Record):
    """Videos, newest first."""

    items: list[VideoRecord]
    next_page_token: str | None


class UploadQuery(Query):
    """How to take an upload."""

    name: str | None = Field(None, description="File name to show; its folders are dropped.")
    allow_damaged: bool = Field(False, description="Take a file that is cut off, as far as it goes.")


class UploadHeaders(BaseModel):
    """What the headers of an upload may promise."""

    content_digest: str | None = Field(
        None,
        pattern=r"(^|,)\s*sha-256=:[A-Za-z0-9+/]{43}=:\s*(,|$)",
        description="RFC 9530: sha-256=:BASE64: of the whole body; compared with what comes.",
    )

    @property
    def digest(self) -> bytes | None:
        """SHA-256 of the body as the sender knows it."""
        if self.content_digest is None:
            return None
        return base64.b64decode(self.content_digest.partition("sha-256=:")[2].partition(":")[0])


class VideosQuery(Query):
    """Which page."""

    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


class ThumbnailQuery(Query):
    """Which picture of a film."""

    at: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Seconds since the first frame; absent: the middle of the film."
    )
    width: int = Field(320, ge=16, le=1280, description="Pixels, at most: a film is never enlarged.")


def record(video: StoredVideo) -> dict[str, Any]:
    """JSON form with links."""
    place = f"{bp.url_prefix}/{video.id}"
    return video.record() | {"urls": {"self": place, "media": f"{place}/media", "thumbnail": f"{place}/thumbnail.jpg"}}


@bp.post("")
@bp.input(UploadQuery, location="query", arg_name="query")
@bp.input(UploadHeaders, location="headers", arg_name="headers")
@bp.output(VideoRecord, 201, description="Accepted; `Location` says where.")
@bp.doc(
    responses=problems(
        InvalidRequest, UnsupportedMedia, NoVideoStream, MediaCorrupt, VideoTooLong, VideoTooLarge, StorageFull,
        DeadlineExceeded, also={200: KNOWN_DOC},
    ),
    extensions={"requestBody": BODY_DOC},
)  # fmt: skip
def add(query: UploadQuery, headers: UploadHeaders) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Upload a video.

    Raw bytes, or a form with a part `file`. `Content-Digest: sha-256=:...:` (RFC 9530) is compared where it is sent.
    The file is probed before it is accepted; the same bytes again are the same video (200).
    """
    with lingering():
        upload = Upload(services(), headers.digest)
        with upload.services.files.incoming() as path:
            stored = upload.services.files.write(path, upload.parts())
            known = videos.find(upload.services.engine, stored.sha256)
            config, damaged = upload.services.settings, query.allow_damaged
            facts = known.video if known else accepted(path, config, allow_damaged=damaged)
            upload.services.files.keep(path, stored)
        video, created = _enter(upload, stored, facts, query)
    return record(video), 201 if created else 200, {"Location": record(video)["urls"]["self"]}


def _enter(upload: Upload, stored: Stored, facts: Video, query: UploadQuery) -> tuple[StoredVideo, bool]:
    found = videos.add(
        upload.services.engine,
        sha256=stored.sha256,
        size=stored.size,
        name=clean_name(query.name or upload.name),
        media_type=media_type(facts),
        video=facts,
    )
    log.info("video.stored", video=found[0].id, size=stored.size, new=found[1])
    return found


@bp.get("")
@bp.input(VideosQuery, location="query", arg_name="query")
@bp.output(VideoPage)
def index(query: VideosQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List videos, newest first."""
    after = read_token("videos", query.page_token, (datetime, str))
    found = videos.page(services().engine, limit=query.limit + 1, after=after)
    items, token, headers = page("videos", found, query.limit, lambda video: (video.created_at, video.id))
    return {"items": [record(video) for video in items], "next_page_token": token}, headers


@bp.get("/<video_id>")
@bp.output(VideoRecord)
@bp.doc(responses=problems(NotFound))
def show(video_id: str) -> dict[str, Any]:
    """One video."""
    return record(videos.get(services().engine, video_id))


@bp.delete("/<video_id>")
@bp.doc(responses=problems(NotFound, Conflict, also={204: {"description": "Gone."}}))
def delete(video_id: str) -> tuple[str, int]:
    """Delete a video with its jobs, results and artifacts; 409 while work on it goes on.

    A film that lies in a source is left where it is. Scans pass it over until it changes, or one is asked for by force.
    """
    videos.delete(services().engine, video_id)
    return "", 204


@bp.get("/<video_id>/media")
@bp.doc(responses=problems(NotFound, SourceUnreachable, also=FILE_DOC))
def media(video_id: str) -> Response:
    """The file itself, whole or by ranges; 502 when it lay in a source, and has gone or changed."""
    return send_film(videos.get(services().engine, video_id))


@bp.get("/<video_id>/thumbnail.jpg")
@bp.input(ThumbnailQuery, location="query", arg_name="query")
@bp.doc(
    responses=problems(
        InvalidRequest, NotFound, RateLimited, MediaCorrupt, SourceUnreachable, DeadlineExceeded, also=PICTURE_DOC
    )
)
def picture(video_id: str, query: ThumbnailQuery) -> Response:
    """One frame, small, as a JPEG: the frame that a player shows at that time."""
    video = videos.get(services().engine, video_id)
    duration = video.video.duration
    if query.at is not None and query.at >= duration:
        raise bad_query("at", "beyond_the_end", f"The film lasts {float(duration):.6f} s.")
    pts = moment(video.video, float(duration) / 2 if query.at is None else query.at)
    name = f"{video.sha256}-{pts}-{query.width}"
    response = Response(mimetype="image/jpeg")
    if not request.if_none_match.contains_weak(name):
        path = film_path(video)
        response.set_data(thumbnail(name, path, video, pts, query.width, lambda: check_in_place(video, path)))
    response.headers.update({"Cache-Control": FOREVER, "Content-Security-Policy": SANDBOX})
    response.set_etag(name)
    response.make_conditional(request.environ)
    return response

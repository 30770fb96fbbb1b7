"""Routes of videos: upload (streamed, hashed, probed in a process of its own), list, show, send, thumbnail, delete."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request
from pydantic import BaseModel, Field

from api.http.context import get_services
from api.http.files import FILE_DOC, IMMUTABLE_CACHE, SANDBOX_CSP
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Query, Record
from api.videos.media import check_path_unchanged, find_video_path, send_video
from api.videos.thumbnails import make_thumbnail, seconds_to_pts
from api.videos.upload import Upload, drain_refused_upload
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
from shared.log import get_logger
from shared.media.intake import clean_file_name, detect_media_type, probe_accepted_video
from shared.storage import StoredFile
from shared.store.videos import videos
from shared.values import StoredVideo, VideoFacts

log = get_logger(__name__)
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
THUMBNAIL_DOC: dict[int | str, Any] = {
    200: {
        "description": "The thumbnail.",
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
    },
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


class ProbeRecord(Record):
    """Properties of a video, read from its packets."""

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
    decode_failures: int = Field(description="Packets that could not be decoded, once the video was read.")
    truncated: bool


class VideoUrls(Record):
    """Links."""

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
    stored: bool = Field(description="Its bytes are in the store; otherwise the video stays where it is, in a source.")
    probe: ProbeRecord
    created_at: datetime
    urls: VideoUrls


class VideoPage(Record):
    """Videos, newest first."""

    items: list[VideoRecord]
    next_page_token: str | None


class UploadQuery(Query):
    """How to accept an upload."""

    name: str | None = Field(None, description="File name to show; its folders are dropped.")
    allow_damaged: bool = Field(False, description="Take a file that is cut off, as far as it goes.")


class UploadHeaders(BaseModel):
    """Headers of an upload."""

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
    """Which frame of a video, and how large."""

    at: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Seconds since the first frame; absent: the middle of the video."
    )
    width: int = Field(320, ge=16, le=1280, description="Pixels, at most: a video is never enlarged.")


def build_video_record(video: StoredVideo) -> dict[str, Any]:
    """Build the JSON form with links."""
    path = f"{bp.url_prefix}/{video.id}"
    return video.to_dict() | {"urls": {"self": path, "media": f"{path}/media", "thumbnail": f"{path}/thumbnail.jpg"}}


@bp.post("")
@bp.input(UploadQuery, location="query", arg_name="query")
@bp.input(UploadHeaders, location="headers", arg_name="headers")
@bp.output(VideoRecord, 201, description="Accepted; `Location` says where.")
@bp.doc(
    responses=document_problems(
        InvalidRequest, UnsupportedMedia, NoVideoStream, MediaCorrupt, VideoTooLong, VideoTooLarge, StorageFull,
        DeadlineExceeded, extra={200: KNOWN_DOC},
    ),
    extensions={"requestBody": BODY_DOC},
)  # fmt: skip
def upload_video(query: UploadQuery, headers: UploadHeaders) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Upload a video.

    Raw bytes, or a form with a part `file`. `Content-Digest: sha-256=:...:` (RFC 9530) is compared where it is sent.
    The file is probed before it is accepted; the same bytes again are the same video (200).
    """
    with drain_refused_upload():
        upload = Upload(get_services(), headers.digest)
        with upload.services.files.open_incoming() as path:
            stored = upload.services.files.write_chunks(path, upload.iter_chunks())
            known_video = videos.find_video(upload.services.engine, stored.sha256)
            config, damaged = upload.services.settings, query.allow_damaged
            facts = known_video.facts if known_video else probe_accepted_video(path, config, allow_damaged=damaged)
            upload.services.files.commit_file(path, stored)
        video, created = _register_video(upload, stored, facts, query)
    return build_video_record(video), 201 if created else 200, {"Location": build_video_record(video)["urls"]["self"]}


def _register_video(
    upload: Upload, stored: StoredFile, facts: VideoFacts, query: UploadQuery
) -> tuple[StoredVideo, bool]:
    registered = videos.add_video(
        upload.services.engine,
        sha256=stored.sha256,
        size=stored.size,
        name=clean_file_name(query.name or upload.name),
        media_type=detect_media_type(facts),
        facts=facts,
    )
    log.info("video.stored", video=registered[0].id, size=stored.size, new=registered[1])
    return registered


@bp.get("")
@bp.input(VideosQuery, location="query", arg_name="query")
@bp.output(VideoPage)
def list_videos(query: VideosQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List videos, newest first."""
    after = read_page_token("videos", query.page_token, (datetime, str))
    video_rows = videos.list_videos(get_services().engine, limit=query.limit + 1, after=after)
    items, token, headers = paginate_items(
        "videos", video_rows, query.limit, lambda video: (video.created_at, video.id)
    )
    return {"items": [build_video_record(video) for video in items], "next_page_token": token}, headers


@bp.get("/<video_id>")
@bp.output(VideoRecord)
@bp.doc(responses=document_problems(NotFound))
def show_video(video_id: str) -> dict[str, Any]:
    """One video."""
    return build_video_record(videos.get_video(get_services().engine, video_id))


@bp.delete("/<video_id>")
@bp.doc(responses=document_problems(NotFound, Conflict, extra={204: {"description": "Gone."}}))
def delete_video(video_id: str) -> tuple[str, int]:
    """Delete a video with its jobs, results and artifacts; 409 while work on it goes on.

    The file of a video in a source is left alone. Scans skip it until it changes, or until a scan is forced.
    """
    videos.delete_video(get_services().engine, video_id)
    return "", 204


@bp.get("/<video_id>/media")
@bp.doc(responses=document_problems(NotFound, SourceUnreachable, extra=FILE_DOC))
def download_video(video_id: str) -> Response:
    """The file itself, whole or by ranges; 502 when it lay in a source, and has gone or changed."""
    return send_video(videos.get_video(get_services().engine, video_id))


@bp.get("/<video_id>/thumbnail.jpg")
@bp.input(ThumbnailQuery, location="query", arg_name="query")
@bp.doc(
    responses=document_problems(
        InvalidRequest, NotFound, RateLimited, MediaCorrupt, SourceUnreachable, DeadlineExceeded, extra=THUMBNAIL_DOC
    )
)
def show_thumbnail(video_id: str, query: ThumbnailQuery) -> Response:
    """One frame, small, as a JPEG: the frame that a player shows at that time."""
    video = videos.get_video(get_services().engine, video_id)
    duration = video.facts.duration
    if query.at is not None and query.at >= duration:
        raise bad_query("at", "beyond_the_end", f"The video lasts {float(duration):.6f} s.")
    pts = seconds_to_pts(video.facts, float(duration) / 2 if query.at is None else query.at)
    name = f"{video.sha256}-{pts}-{query.width}"
    response = Response(mimetype="image/jpeg")
    if not request.if_none_match.contains_weak(name):
        path = find_video_path(video)
        response.set_data(
            make_thumbnail(name, path, video, pts, query.width, lambda: check_path_unchanged(video, path))
        )
    response.headers.update({"Cache-Control": IMMUTABLE_CACHE, "Content-Security-Policy": SANDBOX_CSP})
    response.set_etag(name)
    response.make_conditional(request.environ)
    return response

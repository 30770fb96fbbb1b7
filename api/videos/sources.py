"""Routes of sources, folders and lists of files whose videos stay where they are. The scanner reads them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Body, Query, Record
from api.jobs.schemas import Label, LabelName
from api.videos import source_service as service
from shared.errors import Conflict, InvalidRequest, NotFound, SourceForbidden
from shared.store.videos import sources
from shared.values.sources import Source, SourceFile

bp = APIBlueprint("sources", __name__, url_prefix="/v1/sources", tag="Sources")


class SourceBody(Body):
    """A folder, or a list of files, as the machine of the workers sees them."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")
    folder: str | None = Field(None, min_length=1, max_length=4096, description="Absolute; scanned with all below it.")
    files: list[str] = Field(default=[], max_length=10_000, description="Absolute paths, in place of a folder.")
    watch_s: float | None = Field(
        None, ge=10, le=366 * 86_400, allow_inf_nan=False, description="Seconds between two scans; null: on request."
    )
    labels: dict[LabelName, Label] = Field(default={}, max_length=64, description="Of the jobs on its videos.")


class ScanQuery(Query):
    """How to scan."""

    force: bool = Field(
        False, description="Look at every file anew; videos that were deleted come back, an empty folder is believed."
    )


class FilesQuery(Query):
    """Which files."""

    state: Literal["present", "gone", "refused"] | None = None
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


class SourceUrls(Record):
    """Links."""

    self: str
    scan: str
    files: str


class SourceRecord(Record):
    """A source."""

    id: str
    name: str
    kind: Literal["folder", "list"]
    folder: str | None
    files: list[str]
    watch_s: float | None
    labels: dict[str, str]
    created_at: datetime
    scan_requested_at: datetime | None = Field(description="Since when a scan is requested that has not begun.")
    scanned_at: datetime | None
    scanning: bool
    scan: dict[str, Any] = Field(description="What the last scan found; an `error` where it could not be done.")
    counts: dict[str, int] = Field(description="Files by state: `present`, `gone`, `refused`.")
    urls: SourceUrls


class SourceList(Record):
    """Every source, by name."""

    items: list[SourceRecord]


class SourceFileRecord(Record):
    """A file of a source: the video that it is, or why it is none."""

    source_id: str
    path: str
    size: int
    sha256: str | None
    video_id: str | None
    state: Literal["present", "gone", "refused"]
    error: dict[str, Any] | None
    seen_at: datetime


class SourceFilePage(Record):
    """Files by path."""

    items: list[SourceFileRecord]
    next_page_token: str | None


def build_source_record(source: Source) -> dict[str, Any]:
    """JSON form with links."""
    path = f"{bp.url_prefix}/{source.id}"
    return source.to_dict() | {"urls": {"self": path, "scan": f"{path}/scan", "files": f"{path}/files"}}


@bp.post("")
@bp.input(SourceBody, arg_name="body")
@bp.output(SourceRecord, 201, description="Added; its first scan is requested. `Location` says where.")
@bp.doc(responses=document_problems(InvalidRequest, SourceForbidden, Conflict))
def add_source(body: SourceBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a folder, or a list of files, as a source of videos.

    It must lie under one of the folders that the operator allows (`SCENEWORKS_SOURCE_ROOTS`), links resolved.
    """
    source = service.add_source(body.name, body.folder, body.files, body.watch_s, body.labels)
    return build_source_record(source), 201, {"Location": build_source_record(source)["urls"]["self"]}


@bp.get("")
@bp.output(SourceList)
def list_sources() -> dict[str, Any]:
    """List sources by name."""
    return {"items": [build_source_record(source) for source in sources.list_sources(get_services().engine)]}


@bp.get("/<source_id>")
@bp.output(SourceRecord)
@bp.doc(responses=document_problems(NotFound))
def show_source(source_id: str) -> dict[str, Any]:
    """One source, with what the last scan found."""
    return build_source_record(sources.get_source(get_services().engine, source_id))


@bp.delete("/<source_id>")
@bp.doc(responses=document_problems(NotFound, extra={204: {"description": "Deleted."}}))
def remove_source(source_id: str) -> tuple[str, int]:
    """Delete a source.

    The videos and their results stay; videos whose bytes lie in this source alone cannot be read any more.
    """
    service.delete_source(source_id)
    return "", 204


@bp.post("/<source_id>/scan")
@bp.input(ScanQuery, location="query", arg_name="query")
@bp.output(SourceRecord, 202, description="Requested; `scanning` and `scanned_at` say how far it is.")
@bp.doc(responses=document_problems(NotFound))
def request_scan(source_id: str, query: ScanQuery) -> tuple[dict[str, Any], int]:
    """Request a scan. Files of unchanged size and time are not read again, unless it is forced."""
    source = service.request_scan(source_id, force=query.force)
    return build_source_record(source), 202


@bp.get("/<source_id>/files")
@bp.input(FilesQuery, location="query", arg_name="query")
@bp.output(SourceFilePage)
@bp.doc(responses=document_problems(InvalidRequest, NotFound))
def list_source_files(source_id: str, query: FilesQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List the files that scans have found, by path."""
    cursor = read_page_token("files", query.page_token, (str,))
    file_rows = sources.list_files(
        get_services().engine,
        source_id,
        limit=query.limit + 1,
        after=cursor and _cursor_to_path(cursor[0]),
        state=query.state,
    )
    items, next_token, headers = paginate_items("files", file_rows, query.limit, _path_to_cursor)
    return {"items": [source_file.to_dict() for source_file in items], "next_page_token": next_token}, headers


def _path_to_cursor(source_file: SourceFile) -> tuple[str]:
    """Encode a path for a page token: it may hold characters that a token may not."""
    return (source_file.path.encode().hex(),)


def _cursor_to_path(cursor: str) -> str:
    try:
        return bytes.fromhex(cursor).decode()
    except ValueError:
        raise bad_query("page_token", "bad_token", "This page_token was not made by this list.") from None

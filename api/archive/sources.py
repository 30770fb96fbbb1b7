"""Sources: folders and lists of files whose films stay where they are. Scanning them is the workers' business."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.errors import Body, Query, Record, page, problems, read_token
from api.jobs.asked import Label, LabelName
from api.service.health import services
from shared.errors import Conflict, FieldError, InvalidRequest, NotFound, SceneworksError, SourceForbidden
from shared.files import roots, within
from shared.log import logger
from shared.store.archive import sources
from shared.store.archive.sources import NewSource
from shared.values.archive.schedules import Place, Source

log = logger(__name__)
bp = APIBlueprint("sources", __name__, url_prefix="/v1/sources", tag="Sources")

ROOTS = "SCENEWORKS_ARCHIVE_ROOTS"


class SourceBody(Body):
    """A folder, or a list of files, as the machine of the workers sees them."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")
    folder: str | None = Field(None, min_length=1, max_length=4096, description="Absolute; scanned with all below it.")
    files: list[str] = Field(default=[], max_length=10_000, description="Absolute paths, in place of a folder.")
    watch_s: float | None = Field(
        None, ge=10, le=366 * 86_400, allow_inf_nan=False, description="Seconds between two scans; null: on request."
    )
    labels: dict[LabelName, Label] = Field(default={}, max_length=64, description="Of the jobs on its films.")


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
    """Where to go on."""

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
    wanted_at: datetime | None = Field(description="Since when a scan is asked for that has not begun.")
    scanned_at: datetime | None
    scanning: bool
    scan: dict[str, Any] = Field(description="What the last scan found; an `error` where it could not be done.")
    counts: dict[str, int] = Field(description="Files by state: `present`, `gone`, `refused`.")
    urls: SourceUrls


class SourceList(Record):
    """Every source, by name."""

    items: list[SourceRecord]


class PlaceRecord(Record):
    """A file of a source: the video that it is, or why it is none."""

    source_id: str
    path: str
    size: int
    sha256: str | None
    video_id: str | None
    state: Literal["present", "gone", "refused"]
    error: dict[str, Any] | None
    seen_at: datetime


class PlacePage(Record):
    """Files by path."""

    items: list[PlaceRecord]
    next_page_token: str | None


def record(source: Source) -> dict[str, Any]:
    """JSON form with links."""
    place = f"{bp.url_prefix}/{source.id}"
    return source.record() | {"urls": {"self": place, "scan": f"{place}/scan", "files": f"{place}/files"}}


@bp.post("")
@bp.input(SourceBody, arg_name="body")
@bp.output(SourceRecord, 201, description="Added; its first scan is asked for. `Location` says where.")
@bp.doc(responses=problems(InvalidRequest, SourceForbidden, Conflict))
def add(body: SourceBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Add a folder, or a list of files, as a source of films.

    It has to lie under one of the folders that the operator allows (`SCENEWORKS_ARCHIVE_ROOTS`), links resolved.
    """
    if (body.folder is None) == (not body.files):
        raise _fault(InvalidRequest, "/folder", "one_of", "Give either a folder or a list of files.")
    allowed = roots(services().settings.archive_roots)
    folder = None if body.folder is None else _checked(body.folder, "/folder", allowed, folder=True)
    files = [_checked(path, f"/files/{at}", allowed) for at, path in enumerate(body.files)]
    new = NewSource(body.name, folder, tuple(dict.fromkeys(files)), body.watch_s, dict(body.labels))
    source = sources.add(services().engine, new)
    log.info("source.added", source=source.id, kind=source.kind)
    return record(source), 201, {"Location": record(source)["urls"]["self"]}


@bp.get("")
@bp.output(SourceList)
def index() -> dict[str, Any]:
    """List sources by name."""
    return {"items": [record(source) for source in sources.all(services().engine)]}


@bp.get("/<source_id>")
@bp.output(SourceRecord)
@bp.doc(responses=problems(NotFound))
def show(source_id: str) -> dict[str, Any]:
    """One source, with what the last scan found."""
    return record(sources.get(services().engine, source_id))


@bp.delete("/<source_id>")
@bp.doc(responses=problems(NotFound, also={204: {"description": "Forgotten."}}))
def remove(source_id: str) -> tuple[str, int]:
    """Forget a source and where its films lie.

    The videos and their results stay; films whose bytes lay there alone are out of reach.
    """
    sources.remove(services().engine, source_id)
    log.info("source.removed", source=source_id)
    return "", 204


@bp.post("/<source_id>/scan")
@bp.input(ScanQuery, location="query", arg_name="query")
@bp.output(SourceRecord, 202, description="Asked for; `scanning` and `scanned_at` say how it stands.")
@bp.doc(responses=problems(NotFound))
def scan(source_id: str, query: ScanQuery) -> tuple[dict[str, Any], int]:
    """Ask for a scan. Files that have the size and time that they had are not read again, unless it is forced."""
    source = sources.want(services().engine, source_id, force=query.force)
    log.info("source.wanted", source=source_id, force=query.force)
    return record(source), 202


@bp.get("/<source_id>/files")
@bp.input(FilesQuery, location="query", arg_name="query")
@bp.output(PlacePage)
@bp.doc(responses=problems(InvalidRequest, NotFound))
def files_of(source_id: str, query: FilesQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """The files that scans have found, by path."""
    token = read_token("files", query.page_token, (str,))
    found = sources.places(
        services().engine, source_id, limit=query.limit + 1, after=token and _path(token[0]), state=query.state
    )
    items, following, headers = page("files", found, query.limit, _cursor)
    return {"items": [place.record() for place in items], "next_page_token": following}, headers


def _cursor(place: Place) -> tuple[str]:
    """A path may hold what a token may not."""
    return (place.path.encode().hex(),)


def _path(cursor: str) -> str:
    try:
        return bytes.fromhex(cursor).decode()
    except ValueError:
        raise _fault(InvalidRequest, "/query/page_token", "bad_token", "This page_token was not made here.") from None


def _checked(path: str, pointer: str, allowed: tuple[Path, ...], *, folder: bool = False) -> str:
    """The path with its links resolved.

    Raises:
        SourceForbidden: it lies outside the folders of the operator, or there are none.
        InvalidRequest: it is not absolute, or there is nothing of the kind.
    """
    if not allowed:
        raise _fault(SourceForbidden, pointer, "no_roots", f"The operator allows no folders: {ROOTS} is not set.")
    if not Path(path).is_absolute():
        raise _fault(InvalidRequest, pointer, "not_absolute", "The path has to be absolute.")
    real = within(Path(path), allowed)
    if real is None:
        raise _fault(SourceForbidden, pointer, "outside", f"This lies outside the folders that {ROOTS} allows.")
    if not (real.is_dir() if folder else real.is_file()):
        what = "folder" if folder else "file"
        raise _fault(InvalidRequest, pointer, "not_found", f"There is no such {what} on the machine of the API.")
    return str(real)


def _fault(error: type[SceneworksError], pointer: str, code: str, detail: str) -> SceneworksError:
    return error(detail, errors=(FieldError(pointer, code, detail),))

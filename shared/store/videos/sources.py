"""Sources: folders and lists of files, what a scan found in them, and where the videos of the database lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Text, and_, case, exists, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import array, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound, Problem
from shared.store.transaction import transactional
from shared.store.videos import videos
from shared.tables import SourceFileRow, SourceRow, VideoRow
from shared.values import VideoFacts, new_id
from shared.values.sources import ScanReport, Source, SourceFile


@dataclass(frozen=True, slots=True)
class NewSource:
    """A checked request: a folder, or a list of files."""

    name: str
    folder: str | None
    files: tuple[str, ...] = ()
    watch_s: float | None = None
    labels: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ScanClaim:
    """The right to write down what lies in a source: good while its fence is the source's.

    `forced`: every file is to be looked at anew, whatever earlier scans say of it.
    """

    source: Source
    fence: int
    forced: bool


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """What a scan saw of one file: a video, or why it is none.

    Args:
        size, mtime_ns: when it was looked at.
        sha256: of its bytes.
        name, facts, media_type: of a video; without its facts the video was deleted on purpose, and is not made again.
        error: why it is none, a problem document.
        moved_from: where the same video lay before, if it was moved.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None
    name: str = ""
    facts: VideoFacts | None = None
    media_type: str = "video/mp4"
    error: dict[str, Any] | None = None
    moved_from: str | None = None


@dataclass(frozen=True, slots=True)
class KnownContent:
    """What the database knows of some bytes: the facts of their video, and the places of a source that have them."""

    facts: VideoFacts | None
    files: tuple[SourceFile, ...]


@transactional
def add_source(session: Session, request: NewSource) -> Source:
    """A source that is to be scanned; Conflict when the name is taken."""
    row = SourceRow(
        id=new_id("src"),
        name=request.name,
        kind="folder" if request.folder is not None else "list",
        folder=request.folder,
        files=list(request.files),
        watch_s=request.watch_s,
        labels=request.labels or {},
        wanted_at=session.scalars(select(func.now())).one(),
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict("There is a source of that name.") from None
    return _load_source(session, row)


@transactional
def get_source(session: Session, source_id: str) -> Source:
    """One source; NotFound."""
    return _load_source(session, _get_row(session, source_id))


@transactional
def list_sources(session: Session) -> list[Source]:
    """Every source, by name."""
    return [_load_source(session, row) for row in session.scalars(select(SourceRow).order_by(SourceRow.name))]


@transactional
def delete_source(session: Session, source_id: str) -> None:
    """Forget a source and where its videos lie; the videos and their results stay in the database. NotFound."""
    session.delete(_get_row(session, source_id, lock=True))


@transactional
def request_scan(session: Session, source_id: str, *, force: bool = False) -> Source:
    """Ask for a scan; NotFound.

    `force`: look at every file anew, also at those that have not changed: videos that were deleted come back, refused
    files are tried again, bytes that changed under the same size and time are noticed, an empty folder is believed.
    """
    row = _get_row(session, source_id, lock=True)
    row.wanted_at = session.scalars(select(func.now())).one()
    row.forced = row.forced or force
    return _load_source(session, row)


@transactional
def list_files(
    session: Session, source_id: str, *, limit: int, after: str | None = None, state: str | None = None
) -> list[SourceFile]:
    """Files of a source by path; NotFound."""
    _get_row(session, source_id)
    statement = (
        select(SourceFileRow).where(SourceFileRow.source_id == source_id).order_by(SourceFileRow.path).limit(limit)
    )
    if after is not None:
        statement = statement.where(SourceFileRow.path > after)
    if state is not None:
        statement = statement.where(SourceFileRow.state == state)
    return [_to_source_file(row) for row in session.scalars(statement)]


@transactional
def find_video_files(session: Session, video_id: str) -> list[SourceFile]:
    """Where the bytes of a video lie, or lay, as far as scans have seen: where they were found, and latest, first."""
    present_first = case((SourceFileRow.state == "present", 0), else_=1)
    statement = select(SourceFileRow).where(SourceFileRow.video_id == video_id)
    return [
        _to_source_file(row)
        for row in session.scalars(statement.order_by(present_first, SourceFileRow.seen_at.desc(), SourceFileRow.path))
    ]


# Scanning -------------------------------------------------------------------------------------------------------------


@transactional
def claim_scan(session: Session, owner: str, lease_s: float) -> ScanClaim | None:
    """Claim the next source to scan: requested, watched and due, or abandoned, and with no lease of another scanner."""
    watched = func.coalesce(
        SourceRow.scanned_at + _make_interval(SourceRow.watch_s) < func.now(), SourceRow.watch_s >= 0
    )
    wanted = or_(SourceRow.wanted_at <= func.now(), SourceRow.owner.is_not(None), watched)
    free = or_(SourceRow.lease_until.is_(None), SourceRow.lease_until < func.now())
    statement = (
        select(SourceRow)
        .where(wanted, free)
        .order_by(SourceRow.wanted_at.nulls_last(), SourceRow.scanned_at.nulls_first())
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        return None
    row.owner, row.fence = owner, row.fence + 1
    row.lease_until = session.scalars(select(func.now() + timedelta(seconds=lease_s))).one()
    row.wanted_at = None
    session.flush()
    return ScanClaim(_load_source(session, row), row.fence, row.forced)


@transactional
def get_known_files(session: Session, source_id: str, paths: Iterable[str]) -> dict[str, SourceFile]:
    """Get the files that earlier scans recorded, by path."""
    statement = select(SourceFileRow).where(SourceFileRow.source_id == source_id, SourceFileRow.path.in_(list(paths)))
    return {row.path: _to_source_file(row) for row in session.scalars(statement)}


@transactional
def find_content(session: Session, source_id: str, sha256: str) -> KnownContent:
    """Find what is known of a hash: known videos are not probed again, and may have been moved or deleted."""
    video = session.scalars(select(VideoRow).where(VideoRow.sha256 == sha256)).one_or_none()
    rows = session.scalars(
        select(SourceFileRow).where(SourceFileRow.source_id == source_id, SourceFileRow.sha256 == sha256)
    )
    return KnownContent(VideoFacts.from_dict(video.probe) if video else None, tuple(map(_to_source_file, rows)))


@transactional
def record_files(
    session: Session, scan: ScanClaim, files: Sequence[ScannedFile], stats: dict[str, Any], lease_s: float
) -> bool:
    """Record new and changed files, update the report and renew the lease. False: fenced off."""
    if not _update_if_owned(session, scan, {"scan": stats, "lease_until": _from_now(lease_s)}):
        return False
    for file in files:
        _write_file(session, scan, file)
    return True


@transactional
def record_unchanged(
    session: Session, scan: ScanClaim, paths: Iterable[str], stats: dict[str, Any], lease_s: float
) -> bool:
    """Record files that have not changed; one that was gone is present again. False: fenced off."""
    if not _update_if_owned(session, scan, {"scan": stats, "lease_until": _from_now(lease_s)}):
        return False
    state = case((SourceFileRow.error.is_not(None), "refused"), else_="present")
    matching = and_(SourceFileRow.source_id == scan.source.id, SourceFileRow.path.in_(list(paths)))
    session.execute(update(SourceFileRow).where(matching).values(seen_at=func.now(), met_by=scan.fence, state=state))
    return True


@transactional
def finish_scan(
    session: Session,
    scan: ScanClaim,
    stats: dict[str, Any],
    *,
    unreadable: Sequence[str] = (),
    rescan_after_s: float | None = None,
) -> Source | None:
    """Finish a scan of the whole source: files that were not met are gone. None: fenced off.

    Args:
        stats: what the scan found; the number of files that are `gone` is added.
        unreadable: folders and files that could not be looked at: what lies there stays as it was.
        rescan_after_s: after so many seconds it is to be scanned again, since some files were still being written.
    """
    if not _update_if_owned(session, scan, _scan_end_values()):
        return None
    not_met = and_(
        SourceFileRow.source_id == scan.source.id, SourceFileRow.met_by != scan.fence, SourceFileRow.state != "gone"
    )
    unreadable_path = func.unnest(array(list(unreadable), type_=Text)).column_valued("unseen")
    hidden = or_(SourceFileRow.path == unreadable_path, func.starts_with(SourceFileRow.path, unreadable_path + "/"))
    mark_gone = (
        update(SourceFileRow).where(not_met, ~exists(select(unreadable_path).where(hidden))).values(state="gone")
    )
    gone = len(session.execute(mark_gone.returning(SourceFileRow.path)).all())
    bytes_known = and_(
        SourceFileRow.sha256 == VideoRow.sha256, SourceFileRow.video_id.is_(None), SourceFileRow.error.is_(None)
    )
    relink = update(SourceFileRow).where(SourceFileRow.source_id == scan.source.id, bytes_known)
    session.execute(relink.values(video_id=VideoRow.id))  # deleted once, and uploaded since: it has this place again
    row = _get_row(session, scan.source.id)
    row.scan = stats | {"gone": gone}
    if rescan_after_s is not None and row.wanted_at is None:
        row.wanted_at = session.scalars(select(_from_now(rescan_after_s))).one()
    return _load_source(session, row)


@transactional
def fail_scan(session: Session, scan: ScanClaim, stats: dict[str, Any]) -> Source | None:
    """The source could not be looked through (`stats` says why): what is known of it stays. None: fenced off."""
    if not _update_if_owned(session, scan, _scan_end_values() | {"scan": stats}):
        return None
    return _load_source(session, _get_row(session, scan.source.id))


@transactional
def release_scan(session: Session, scan: ScanClaim) -> bool:
    """Give up the lease of a scan, so that another scanner can continue at once. False: fenced off."""
    return _update_if_owned(session, scan, {"lease_until": None})


def _scan_end_values() -> dict[str, Any]:
    """Values of the row after a scan. A scan that was requested meanwhile stays requested, with its `force`."""
    still = and_(SourceRow.forced, SourceRow.wanted_at.is_not(None))
    return {"lease_until": None, "owner": None, "scanned_at": func.now(), "forced": still}


def _update_if_owned(session: Session, scan: ScanClaim, values: dict[str, Any]) -> bool:
    """Write to the row of the source if the scan still has the right to."""
    statement = update(SourceRow).where(SourceRow.id == scan.source.id, SourceRow.fence == scan.fence)
    return session.scalars(statement.values(**values).returning(SourceRow.id)).one_or_none() is not None


def _make_interval(count: Any) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, 0, count)


def _from_now(seconds: float) -> ColumnElement[datetime]:
    return func.now() + timedelta(seconds=seconds)


def _write_file(session: Session, scan: ScanClaim, file: ScannedFile) -> None:
    video_id = None
    if file.sha256 is not None and file.facts is not None:
        row, _ = videos.add_in(
            session, sha256=file.sha256, size=file.size, name=file.name, media_type=file.media_type, facts=file.facts,
            stored=False,
        )  # fmt: skip
        video_id = row.id
    values = {
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "sha256": file.sha256,
        "video_id": video_id,
        "state": "refused" if file.error else "present",
        "error": file.error or null(),
        "seen_at": func.now(),
        "met_by": scan.fence,
    }
    statement = insert(SourceFileRow).values(source_id=scan.source.id, path=file.path, **values)
    session.execute(
        statement.on_conflict_do_update(index_elements=[SourceFileRow.source_id, SourceFileRow.path], set_=values)
    )
    if file.moved_from is not None:
        old_file = and_(SourceFileRow.source_id == scan.source.id, SourceFileRow.path == file.moved_from)
        session.execute(update(SourceFileRow).where(old_file).values(state="gone"))


def _get_row(session: Session, source_id: str, *, lock: bool = False) -> SourceRow:
    row = session.get(SourceRow, source_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such source.")
    return row


def _load_source(session: Session, row: SourceRow) -> Source:
    session.flush()
    session.refresh(row)
    statement = (
        select(SourceFileRow.state, func.count()).where(SourceFileRow.source_id == row.id).group_by(SourceFileRow.state)
    )
    now = session.scalars(select(func.now())).one()
    return Source(
        id=row.id,
        name=row.name,
        kind=row.kind,
        folder=row.folder,
        files=tuple(row.files),
        watch_s=row.watch_s,
        labels=row.labels,
        created_at=row.created_at,
        scan_requested_at=row.wanted_at,
        scanned_at=row.scanned_at,
        scanning=row.lease_until is not None and now < row.lease_until,
        scan=cast("ScanReport", row.scan),
        counts={row[0]: row[1] for row in session.execute(statement)},
    )


def _to_source_file(row: SourceFileRow) -> SourceFile:
    return SourceFile(
        source_id=row.source_id,
        path=row.path,
        size=row.size,
        mtime_ns=row.mtime_ns,
        sha256=row.sha256,
        video_id=row.video_id,
        state=row.state,
        error=cast("Problem | None", row.error),
        seen_at=row.seen_at,
    )

"""Sources: folders and lists of files, what a scan found in them, and where the films of the ledger lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, exists, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import array, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound
from shared.store import videos
from shared.store.transaction import verb
from shared.tables import PlaceRow, SourceRow, VideoRow
from shared.values import Video, new_id
from shared.values.archive.schedules import Place, Source


@dataclass(frozen=True, slots=True)
class NewSource:
    """A checked request: a folder, or a list of files."""

    name: str
    folder: str | None
    files: tuple[str, ...] = ()
    watch_s: float | None = None
    labels: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """The right to write down what lies in a source: good while its fence is the source's.

    `forced`: every file is to be looked at anew, whatever earlier scans say of it.
    """

    source: Source
    fence: int
    forced: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """What a scan saw of one file: a film, or why it is none.

    Args:
        size, mtime_ns: when it was looked at.
        sha256: of its bytes.
        name, video, media_type: of a film; without its facts the film was deleted on purpose, and is not made again.
        error: why it is none, a problem document.
        moved_from: where the same film lay before, if it was moved.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None
    name: str = ""
    video: Video | None = None
    media_type: str = "video/mp4"
    error: dict[str, Any] | None = None
    moved_from: str | None = None


@dataclass(frozen=True, slots=True)
class Hashed:
    """What the ledger knows of some bytes: the facts of their film, and the places of a source that have them."""

    facts: Video | None
    places: tuple[Place, ...]


@verb
def add(session: Session, request: NewSource) -> Source:
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
    return _read(session, row)


@verb
def get(session: Session, source_id: str) -> Source:
    """One source; NotFound."""
    return _read(session, _row(session, source_id))


@verb
def all(session: Session) -> list[Source]:  # noqa: A001 (sources.all() says what it gives)
    """Every source, by name."""
    return [_read(session, row) for row in session.scalars(select(SourceRow).order_by(SourceRow.name))]


@verb
def remove(session: Session, source_id: str) -> None:
    """Forget a source and where its films lie; the films and their results stay in the ledger. NotFound."""
    session.delete(_row(session, source_id, lock=True))


@verb
def want(session: Session, source_id: str, *, force: bool = False) -> Source:
    """Ask for a scan; NotFound.

    `force`: look at every file anew, also at those that have not changed: films that were deleted come back, refused
    files are tried again, bytes that changed under the same size and time are noticed, an empty folder is believed.
    """
    row = _row(session, source_id, lock=True)
    row.wanted_at = session.scalars(select(func.now())).one()
    row.forced = row.forced or force
    return _read(session, row)


@verb
def places(
    session: Session, source_id: str, *, limit: int, after: str | None = None, state: str | None = None
) -> list[Place]:
    """Files of a source by path; NotFound."""
    _row(session, source_id)
    statement = select(PlaceRow).where(PlaceRow.source_id == source_id).order_by(PlaceRow.path).limit(limit)
    if after is not None:
        statement = statement.where(PlaceRow.path > after)
    if state is not None:
        statement = statement.where(PlaceRow.state == state)
    return [_place(row) for row in session.scalars(statement)]


@verb
def where(session: Session, video_id: str) -> list[Place]:
    """Where the bytes of a video lie, or lay, as far as scans have seen: where they were found, and latest, first."""
    found = case((PlaceRow.state == "present", 0), else_=1)
    statement = select(PlaceRow).where(PlaceRow.video_id == video_id)
    return [_place(row) for row in session.scalars(statement.order_by(found, PlaceRow.seen_at.desc(), PlaceRow.path))]


# Scanning -------------------------------------------------------------------------------------------------------------


@verb
def claim(session: Session, owner: str, lease_s: float) -> Scan | None:
    """The next source to be scanned: asked for, watched and due, or left in the middle; and nobody else is at it."""
    watched = func.coalesce(SourceRow.scanned_at + _seconds(SourceRow.watch_s) < func.now(), SourceRow.watch_s >= 0)
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
    return Scan(_read(session, row), row.fence, row.forced)


@verb
def known(session: Session, source_id: str, paths: Iterable[str]) -> dict[str, Place]:
    """What earlier scans found there, by path."""
    statement = select(PlaceRow).where(PlaceRow.source_id == source_id, PlaceRow.path.in_(list(paths)))
    return {row.path: _place(row) for row in session.scalars(statement)}


@verb
def hashed(session: Session, source_id: str, sha256: str) -> Hashed:
    """What is known of these bytes: a film need not be probed again, and may have been moved, or deleted on purpose."""
    film = session.scalars(select(VideoRow).where(VideoRow.sha256 == sha256)).one_or_none()
    rows = session.scalars(select(PlaceRow).where(PlaceRow.source_id == source_id, PlaceRow.sha256 == sha256))
    return Hashed(Video.read(film.probe) if film else None, tuple(map(_place, rows)))


@verb
def seen(session: Session, scan: Scan, files: Sequence[Looked], told: dict[str, Any], lease_s: float) -> bool:
    """Write down files that are new or have changed, how far the scan is, and that it goes on; False: fenced off."""
    if not _mine(session, scan, {"scan": told, "lease_until": _from_now(lease_s)}):
        return False
    for file in files:
        _keep(session, scan, file)
    return True


@verb
def unchanged(session: Session, scan: Scan, paths: Iterable[str], told: dict[str, Any], lease_s: float) -> bool:
    """These lie where they lay, as they were; one that was gone is back. False: fenced off."""
    if not _mine(session, scan, {"scan": told, "lease_until": _from_now(lease_s)}):
        return False
    found = case((PlaceRow.error.is_not(None), "refused"), else_="present")
    mine = and_(PlaceRow.source_id == scan.source.id, PlaceRow.path.in_(list(paths)))
    session.execute(update(PlaceRow).where(mine).values(seen_at=func.now(), met_by=scan.fence, state=found))
    return True


@verb
def finish(
    session: Session, scan: Scan, told: dict[str, Any], *, unread: Sequence[str] = (), again_s: float | None = None
) -> Source | None:
    """The whole source was looked through: what was not met is gone. None: fenced off.

    Args:
        told: what the scan found; the number of files that are `gone` is added.
        unread: folders and files that could not be looked at: what lies there stays as it was.
        again_s: after so many seconds it is to be scanned again, since some files were still being written.
    """
    if not _mine(session, scan, _over()):
        return None
    away = and_(PlaceRow.source_id == scan.source.id, PlaceRow.met_by != scan.fence, PlaceRow.state != "gone")
    unseen = func.unnest(array(list(unread), type_=Text)).column_valued("unseen")
    hidden = or_(PlaceRow.path == unseen, func.starts_with(PlaceRow.path, unseen + "/"))
    lost = update(PlaceRow).where(away, ~exists(select(unseen).where(hidden))).values(state="gone")
    gone = len(session.execute(lost.returning(PlaceRow.path)).all())
    bytes_known = and_(PlaceRow.sha256 == VideoRow.sha256, PlaceRow.video_id.is_(None), PlaceRow.error.is_(None))
    again = update(PlaceRow).where(PlaceRow.source_id == scan.source.id, bytes_known)
    session.execute(again.values(video_id=VideoRow.id))  # deleted once, and uploaded since: it has this place again
    row = _row(session, scan.source.id)
    row.scan = told | {"gone": gone}
    if again_s is not None and row.wanted_at is None:
        row.wanted_at = session.scalars(select(_from_now(again_s))).one()
    return _read(session, row)


@verb
def fail(session: Session, scan: Scan, told: dict[str, Any]) -> Source | None:
    """The source could not be looked through (`told` says why): what is known of it stays. None: fenced off."""
    if not _mine(session, scan, _over() | {"scan": told}):
        return None
    return _read(session, _row(session, scan.source.id))


@verb
def let_go(session: Session, scan: Scan) -> bool:
    """Whoever scans has to stop: the next may go on at once. False: fenced off."""
    return _mine(session, scan, {"lease_until": None})


def _over() -> dict[str, Any]:
    """A scan asked for meanwhile is still to come; if by force, then by force."""
    still = and_(SourceRow.forced, SourceRow.wanted_at.is_not(None))
    return {"lease_until": None, "owner": None, "scanned_at": func.now(), "forced": still}


def _mine(session: Session, scan: Scan, values: dict[str, Any]) -> bool:
    """Write to the row of the source if the scan still has the right to."""
    statement = update(SourceRow).where(SourceRow.id == scan.source.id, SourceRow.fence == scan.fence)
    return session.scalars(statement.values(**values).returning(SourceRow.id)).one_or_none() is not None


def _seconds(count: Any) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, 0, count)


def _from_now(seconds: float) -> ColumnElement[datetime]:
    return func.now() + timedelta(seconds=seconds)


def _keep(session: Session, scan: Scan, file: Looked) -> None:
    video_id = None
    if file.sha256 is not None and file.video is not None:
        row, _ = videos.made(
            session, sha256=file.sha256, size=file.size, name=file.name, media_type=file.media_type, video=file.video,
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
    statement = insert(PlaceRow).values(source_id=scan.source.id, path=file.path, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[PlaceRow.source_id, PlaceRow.path], set_=values))
    if file.moved_from is not None:
        before = and_(PlaceRow.source_id == scan.source.id, PlaceRow.path == file.moved_from)
        session.execute(update(PlaceRow).where(before).values(state="gone"))


def _row(session: Session, source_id: str, *, lock: bool = False) -> SourceRow:
    row = session.get(SourceRow, source_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such source.")
    return row


def _read(session: Session, row: SourceRow) -> Source:
    session.flush()
    session.refresh(row)
    statement = select(PlaceRow.state, func.count()).where(PlaceRow.source_id == row.id).group_by(PlaceRow.state)
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
        wanted_at=row.wanted_at,
        scanned_at=row.scanned_at,
        scanning=row.lease_until is not None and now < row.lease_until,
        scan=row.scan,
        counts={row[0]: row[1] for row in session.execute(statement)},
    )


def _place(row: PlaceRow) -> Place:
    return Place(
        source_id=row.source_id,
        path=row.path,
        size=row.size,
        mtime_ns=row.mtime_ns,
        sha256=row.sha256,
        video_id=row.video_id,
        state=row.state,
        error=row.error,
        seen_at=row.seen_at,
    )

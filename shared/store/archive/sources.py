"""Sources: folders and lists of files, what a scan found in them, and where the films of the ledger lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
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
    """The right to write down what lies in a source: good while its fence is the source's."""

    source: Source
    fence: int


@dataclass(frozen=True, slots=True)
class Looked:
    """What a scan saw of one file: a film, or why it is none.

    Args:
        size, mtime_ns: when it was looked at.
        sha256, video, media_type: of a film.
        error: a problem document.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None
    video: Video | None = None
    media_type: str = "video/mp4"
    error: dict[str, Any] | None = None


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
def want(session: Session, source_id: str) -> Source:
    """Ask for a scan; NotFound."""
    row = _row(session, source_id, lock=True)
    row.wanted_at = session.scalars(select(func.now())).one()
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
    """Where the bytes of a video lie, as far as scans have seen, the latest first."""
    statement = select(PlaceRow).where(PlaceRow.video_id == video_id, PlaceRow.state == "present")
    return [_place(row) for row in session.scalars(statement.order_by(PlaceRow.seen_at.desc(), PlaceRow.path))]


# Scanning -------------------------------------------------------------------------------------------------------------


@verb
def claim(session: Session, owner: str, lease_s: float) -> Scan | None:
    """The next source to be scanned: asked for, or watched and due; and nobody else is at it."""
    wanted = or_(
        SourceRow.wanted_at.is_not(None),
        and_(
            SourceRow.watch_s.is_not(None),
            or_(
                SourceRow.scanned_at.is_(None),
                SourceRow.scanned_at + func.make_interval(0, 0, 0, 0, 0, 0, SourceRow.watch_s) < func.now(),
            ),
        ),
    )
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
    return Scan(_read(session, row), row.fence)


@verb
def known(session: Session, source_id: str) -> dict[str, Place]:
    """What earlier scans found, by path."""
    return {row.path: _place(row) for row in session.scalars(select(PlaceRow).where(PlaceRow.source_id == source_id))}


@verb
def hashed(session: Session, sha256: str) -> Video | None:
    """Facts of the film of these bytes, if it is known: it need not be probed again."""
    row = session.scalars(select(VideoRow).where(VideoRow.sha256 == sha256)).one_or_none()
    return Video.read(row.probe) if row else None


@verb
def seen(session: Session, scan: Scan, files: Sequence[Looked], told: dict[str, Any], lease_s: float) -> bool:
    """Write down files that are new or have changed, how far the scan is, and that it goes on; False: fenced off."""
    if not _mine(session, scan, scan_=told, lease_s=lease_s):
        return False
    for file in files:
        _keep(session, scan.source.id, file)
    return True


@verb
def unchanged(session: Session, scan: Scan, paths: Iterable[str]) -> bool:
    """These lie where they lay, as they were; one that was gone is back. False: fenced off."""
    if not _mine(session, scan):
        return False
    wanted = list(paths)
    mine = and_(PlaceRow.source_id == scan.source.id, PlaceRow.path.in_(wanted))
    session.execute(update(PlaceRow).where(mine).values(seen_at=func.now()))
    found = case((PlaceRow.video_id.is_(None), "refused"), else_="present")
    session.execute(update(PlaceRow).where(mine, PlaceRow.state == "gone").values(state=found))
    return True


@verb
def finish(session: Session, scan: Scan, gone: Sequence[str], told: dict[str, Any]) -> Source | None:
    """The scan is over: what was not met is gone. None: fenced off."""
    if not _mine(session, scan, scan_=told, over=True):
        return None
    statement = update(PlaceRow).where(
        tuple_(PlaceRow.source_id, PlaceRow.path).in_([(scan.source.id, path) for path in gone])
    )
    session.execute(statement.values(state="gone"))
    return _read(session, _row(session, scan.source.id))


def _mine(
    session: Session, scan: Scan, *, scan_: dict[str, Any] | None = None, lease_s: float = 60, over: bool = False
) -> bool:
    values: dict[str, Any] = {"lease_until": func.now() + timedelta(seconds=lease_s)}
    if over:
        values = {"lease_until": None, "owner": None, "scanned_at": func.now()}
    if scan_ is not None:
        values["scan"] = scan_
    statement = update(SourceRow).where(SourceRow.id == scan.source.id, SourceRow.fence == scan.fence).values(**values)
    return session.scalars(statement.returning(SourceRow.id)).one_or_none() is not None


def _keep(session: Session, source_id: str, file: Looked) -> None:
    video_id = None
    if file.sha256 is not None and file.video is not None:
        name = file.path.rpartition("/")[2]
        row, _ = videos.made(
            session, sha256=file.sha256, size=file.size, name=name, media_type=file.media_type, video=file.video,
            stored=False,
        )  # fmt: skip
        video_id = row.id
    values = {
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "sha256": file.sha256,
        "video_id": video_id,
        "state": "present" if video_id else "refused",
        "error": file.error,
        "seen_at": func.now(),
    }
    statement = insert(PlaceRow).values(source_id=source_id, path=file.path, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[PlaceRow.source_id, PlaceRow.path], set_=values))


def _row(session: Session, source_id: str, *, lock: bool = False) -> SourceRow:
    row = session.get(SourceRow, source_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such source.")
    return row


def _read(session: Session, row: SourceRow) -> Source:
    session.flush()
    session.refresh(row)
    statement = select(PlaceRow.state, func.count()).where(PlaceRow.source_id == row.id).group_by(PlaceRow.state)
    busy: ColumnElement[bool] = func.now() < row.lease_until
    return Source(
        id=row.id,
        name=row.name,
        kind=row.kind,
        folder=row.folder,
        files=tuple(row.files),
        watch_s=row.watch_s,
        labels=row.labels,
        created_at=row.created_at,
        scanned_at=row.scanned_at,
        scanning=row.lease_until is not None and bool(session.scalars(select(busy)).one()),
        scan=row.scan,
        counts=dict(session.execute(statement).tuples().all()),
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

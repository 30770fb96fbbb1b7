"""Videos: added once by content, read, deleted with all that was derived from them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound
from shared.store import batch_outcome, mapping
from shared.store.transaction import transactional
from shared.tables import BatchItemRow, RunRow, VideoRow
from shared.values import LIVE_STATES, StoredVideo, VideoFacts, new_id


@transactional
def add_video(
    session: Session, *, sha256: str, size: int, name: str, media_type: str, facts: VideoFacts, stored: bool = True
) -> tuple[StoredVideo, bool]:
    """The video of these bytes and whether it is new: the same bytes are the same video, whatever their name.

    `stored`: its bytes are in the store; otherwise they lie in a place of a source.
    """
    row, new = add_in(session, sha256=sha256, size=size, name=name, media_type=media_type, facts=facts, stored=stored)
    return mapping.to_stored_video(row), new


def add_in(
    session: Session, *, sha256: str, size: int, name: str, media_type: str, facts: VideoFacts, stored: bool
) -> tuple[VideoRow, bool]:
    """Add a video inside the caller's transaction; returns its row."""
    values = {"sha256": sha256, "size": size, "name": name, "media_type": media_type, "stored": stored}
    statement = (
        insert(VideoRow)
        .values(id=new_id("vid"), probe=facts.to_dict(), **values)
        .on_conflict_do_nothing(index_elements=[VideoRow.sha256])
        .returning(VideoRow)
    )
    row = session.scalars(statement).one_or_none()
    if row is not None:
        return row, True
    known = session.scalars(select(VideoRow).where(VideoRow.sha256 == sha256)).one()
    known.stored = known.stored or stored
    return known, False


@transactional
def find_video(session: Session, sha256: str) -> StoredVideo | None:
    """Find the video with this hash."""
    row = session.scalars(select(VideoRow).where(VideoRow.sha256 == sha256)).one_or_none()
    return mapping.to_stored_video(row) if row else None


@transactional
def get_video(session: Session, video_id: str) -> StoredVideo:
    """Get a video; NotFound."""
    return mapping.to_stored_video(get_video_row(session, video_id))


@transactional
def get_videos(session: Session, video_ids: Iterable[str]) -> dict[str, StoredVideo]:
    """Get videos by id; unknown ids are left out."""
    statement = select(VideoRow).where(VideoRow.id.in_(set(video_ids)))
    return {row.id: mapping.to_stored_video(row) for row in session.scalars(statement)}


@transactional
def list_videos(session: Session, *, limit: int, after: tuple[datetime, str] | None = None) -> list[StoredVideo]:
    """List videos, newest first, that come after the given (created_at, id)."""
    statement = select(VideoRow).order_by(VideoRow.created_at.desc(), VideoRow.id.desc()).limit(limit)
    if after:
        statement = statement.where(tuple_(VideoRow.created_at, VideoRow.id) < after)
    return [mapping.to_stored_video(row) for row in session.scalars(statement)]


@transactional
def delete_video(session: Session, video_id: str) -> None:
    """Delete a video with its jobs, runs, results and artifacts. NotFound; Conflict while a run is unfinished.

    Its files are removed by the sweep once nothing speaks of them.
    """
    batch_outcome.invalidate_outcomes(session, BatchItemRow.video_id == video_id)
    row = session.get(VideoRow, video_id, with_for_update=True)
    if row is None:
        raise NotFound("There is no such video.")
    live = select(RunRow.id).where(RunRow.video_id == video_id, RunRow.state.in_(LIVE_STATES)).limit(1)
    if session.scalars(live).first():
        raise Conflict("Work on this video goes on: cancel its jobs first.")
    session.delete(row)


def get_video_row(session: Session, video_id: str) -> VideoRow:
    """Get the row of a video inside the caller's transaction; NotFound."""
    row = session.get(VideoRow, video_id)
    if row is None:
        raise NotFound("There is no such video.")
    return row

"""Rows of videos, and of the sources whose files stay where they are."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.tables.jobs import Base


class VideoRow(Base):
    """A video in the store, once however often it is sent."""

    __tablename__ = "videos"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    media_type: Mapped[str]
    probe: Mapped[dict[str, Any]]
    # Whether its bytes are in the store; those of a video that stays where it is are not.
    stored: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SourceRow(Base):
    """A folder, or a list of files, whose videos stay where they are."""

    __tablename__ = "sources"
    __table_args__ = (CheckConstraint("kind IN ('folder', 'list')", name="kind"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    folder: Mapped[str | None]
    files: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    watch_s: Mapped[float | None]
    labels: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # A scan is claimed like a run: whoever holds the fence writes.
    wanted_at: Mapped[datetime | None]
    owner: Mapped[str | None]
    fence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    lease_until: Mapped[datetime | None]
    scanned_at: Mapped[datetime | None]
    # Every file is to be looked at anew, whatever earlier scans say of it.
    forced: Mapped[bool] = mapped_column(server_default=text("false"))
    scan: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class SourceFileRow(Base):
    """A file of a source. Size and time say whether it changed; its hash says which video it is."""

    __tablename__ = "places"
    __table_args__ = (
        CheckConstraint("state IN ('present', 'gone', 'refused')", name="state"),
        Index("ix_places_sha256", "sha256"),
    )

    source_id: Mapped[str] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    video_id: Mapped[str | None] = mapped_column(ForeignKey("videos.id", ondelete="SET NULL"), index=True)
    state: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The fence of the scan that met it last: what a whole scan has not met is gone, whatever clocks say.
    met_by: Mapped[int] = mapped_column(BigInteger, server_default="0")

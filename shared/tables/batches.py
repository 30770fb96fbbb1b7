"""Rows of batches, their items and events, schedules and their slots, and queues.

sources ──< places >── videos
schedules ──< slots >── batches ──< batch_items >── videos, jobs
                           └──< batch_ends
queues
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.tables.jobs import Base


class ScheduleRow(Base):
    """A schedule: a workload and its timetable. Beat reads `next_at`."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("(cron IS NULL) <> (every_s IS NULL)", name="cron_or_interval"),
        CheckConstraint("catch_up IN ('skip', 'once', 'all')", name="catch_up"),
        Index("ix_schedules_next_at", "next_at", postgresql_where=text("paused_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    cron: Mapped[str | None]
    every_s: Mapped[int | None]
    timezone: Mapped[str]
    work: Mapped[dict[str, Any]]
    catch_up: Mapped[str]
    anchor_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SlotRow(Base):
    """A moment at which a schedule was due. One row each: however many beats there are, it fires once."""

    __tablename__ = "slots"
    __table_args__ = (CheckConstraint("outcome IN ('fired', 'skipped')", name="outcome"),)

    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    reason: Mapped[str | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id", ondelete="SET NULL"))
    fired_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BatchRow(Base):
    """The same work on many videos. Its state follows from its jobs; what is stored is what people decided."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint("kind IN ('batch', 'schedule', 'reprocess')", name="kind"),
        Index("ix_batches_created_at_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    schedule_id: Mapped[str | None] = mapped_column(ForeignKey("schedules.id", ondelete="SET NULL"), index=True)
    due_at: Mapped[datetime | None]
    work: Mapped[dict[str, Any]]
    priority: Mapped[int]
    cap: Mapped[int | None]
    # Once all its videos have a job there is nothing left to feed, and beat does not look at it again.
    fed_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    # What its videos have come to, once all have ended; taken back when one of their jobs is tried again or goes.
    outcome: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BatchItemRow(Base):
    """One video of a batch; it has a job from `started_at` on. `before` holds the runs that its own will supersede."""

    __tablename__ = "batch_items"
    __table_args__ = (
        Index("ix_batch_items_waiting", "batch_id", "position", postgresql_where=text("started_at IS NULL")),
        Index("uq_batch_items_batch_id_video_id", "batch_id", "video_id", unique=True),
    )

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    video_id: Mapped[str] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    before: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    started_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]


class BatchEventRow(Base):
    """The end of a video's job as it is told to those who watch the batch: numbered once, so that it is told once.

    Written by whoever looks; a job that is tried again ends anew, and both ends stay.
    """

    __tablename__ = "batch_ends"
    __table_args__ = (UniqueConstraint("batch_id", "position", "state", "ended_at"),)

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int]
    video_id: Mapped[str] = mapped_column(String(40))
    job_id: Mapped[str | None] = mapped_column(String(40))
    state: Mapped[str]
    code: Mapped[str | None]
    ended_at: Mapped[datetime]


class QueueRow(Base):
    """What an operator decided about a model's queue; no row: it is open."""

    __tablename__ = "queues"
    __table_args__ = (CheckConstraint("mode IN ('paused', 'draining')", name="mode"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())

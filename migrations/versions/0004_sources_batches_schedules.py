"""Archives: sources of videos, batches of jobs, schedules, and what operators decide about queues.

Revision: 0004
After: 0003
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.String(length=40)
TIME = sa.DateTime(timezone=True)
NOW = sa.text("now()")


def upgrade() -> None:
    """Apply."""
    op.add_column("videos", sa.Column("stored", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.create_index("ix_runs_failed", "runs", ["model", "updated_at"], postgresql_where=sa.text("state = 'failed'"))
    _create_sources()
    _create_places()
    _create_schedules()
    _create_batches()
    _create_slots()
    _create_batch_items()
    _create_batch_ends()
    _create_queues()


def downgrade() -> None:
    """Take back."""
    for table in ("queues", "batch_ends", "batch_items", "slots", "batches", "schedules", "places", "sources"):
        op.drop_table(table)
    op.drop_index("ix_runs_failed", table_name="runs")
    op.drop_column("videos", "stored")


def _json_column(name: str, default: str | None = None) -> sa.Column[Any]:
    default_clause = sa.text(f"'{default}'::jsonb") if default else None
    return sa.Column(name, postgresql.JSONB(astext_type=sa.Text()), server_default=default_clause, nullable=False)


def _problem_column() -> sa.Column[Any]:
    return sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True)


def _time_column(name: str, *, default_now: bool = False, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, TIME, server_default=NOW if default_now else None, nullable=nullable and not default_now)


def _create_sources() -> None:
    op.create_table(
        "sources",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=True),
        _json_column("files", "[]"),
        sa.Column("watch_s", sa.Double(), nullable=True),
        _json_column("labels"),
        _time_column("created_at", default_now=True),
        _time_column("wanted_at"),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        _time_column("lease_until"),
        _time_column("scanned_at"),
        sa.Column("forced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _json_column("scan", "{}"),
        sa.CheckConstraint("kind IN ('folder', 'list')", name=op.f("ck_sources_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("name", name=op.f("uq_sources_name")),
    )


def _create_places() -> None:
    op.create_table(
        "places",
        sa.Column("source_id", ID, nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("video_id", ID, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        _problem_column(),
        _time_column("seen_at", default_now=True),
        sa.Column("met_by", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("state IN ('present', 'gone', 'refused')", name=op.f("ck_places_state")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name=op.f("fk_places_source_id_sources"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name=op.f("fk_places_video_id_videos"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("source_id", "path", name=op.f("pk_places")),
    )
    op.create_index("ix_places_sha256", "places", ["sha256"])
    op.create_index(op.f("ix_places_video_id"), "places", ["video_id"])


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("every_s", sa.Integer(), nullable=True),
        sa.Column("timezone", sa.String(), nullable=False),
        _json_column("work"),
        sa.Column("catch_up", sa.String(), nullable=False),
        _time_column("anchor_at", default_now=True),
        _time_column("next_at", nullable=False),
        _time_column("paused_at"),
        _time_column("created_at", default_now=True),
        _time_column("updated_at", default_now=True),
        sa.CheckConstraint("(cron IS NULL) <> (every_s IS NULL)", name=op.f("ck_schedules_cron_or_interval")),
        sa.CheckConstraint("catch_up IN ('skip', 'once', 'all')", name=op.f("ck_schedules_catch_up")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules_name")),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"], postgresql_where=sa.text("paused_at IS NULL"))


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("schedule_id", ID, nullable=True),
        _time_column("due_at"),
        _json_column("work"),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cap", sa.Integer(), nullable=True),
        _time_column("fed_at"),
        _time_column("paused_at"),
        _time_column("cancelled_at"),
        _time_column("created_at", default_now=True),
        sa.CheckConstraint("kind IN ('batch', 'schedule', 'reprocess')", name=op.f("ck_batches_kind")),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_batches_schedule_id_schedules"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index("ix_batches_created_at_id", "batches", ["created_at", "id"])
    op.create_index(op.f("ix_batches_schedule_id"), "batches", ["schedule_id"])


def _create_slots() -> None:
    op.create_table(
        "slots",
        sa.Column("schedule_id", ID, nullable=False),
        _time_column("due_at", nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("batch_id", ID, nullable=True),
        _time_column("fired_at", default_now=True),
        sa.CheckConstraint("outcome IN ('fired', 'skipped')", name=op.f("ck_slots_outcome")),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_slots_schedule_id_schedules"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_slots_batch_id_batches"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name=op.f("pk_slots")),
    )


def _create_batch_items() -> None:
    op.create_table(
        "batch_items",
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("video_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=True),
        _json_column("before", "{}"),
        _time_column("started_at"),
        _problem_column(),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_batch_items_batch_id_batches"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name=op.f("fk_batch_items_video_id_videos"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_batch_items_job_id_jobs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("batch_id", "position", name=op.f("pk_batch_items")),
    )
    op.create_index(
        "ix_batch_items_waiting",
        "batch_items",
        ["batch_id", "position"],
        postgresql_where=sa.text("started_at IS NULL"),
    )
    op.create_index("uq_batch_items_batch_id_video_id", "batch_items", ["batch_id", "video_id"], unique=True)
    op.create_index(op.f("ix_batch_items_video_id"), "batch_items", ["video_id"])
    op.create_index(op.f("ix_batch_items_job_id"), "batch_items", ["job_id"])


def _create_batch_ends() -> None:
    op.create_table(
        "batch_ends",
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("video_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=True),
        _time_column("ended_at", nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_batch_ends_batch_id_batches"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("batch_id", "seq", name=op.f("pk_batch_ends")),
        sa.UniqueConstraint(
            "batch_id", "position", "state", "ended_at", name=op.f("uq_batch_ends_batch_id_position_state_ended_at")
        ),
    )


def _create_queues() -> None:
    op.create_table(
        "queues",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        _time_column("since", default_now=True),
        sa.CheckConstraint("mode IN ('paused', 'draining')", name=op.f("ck_queues_mode")),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_queues")),
    )

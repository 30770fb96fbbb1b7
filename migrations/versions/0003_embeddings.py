"""Embeddings, in the extension pgvector.

Revision: 0003
After: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.exc import DBAPIError

from shared.errors import Conflict, Forbidden

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NOT_ALLOWED, NOT_THERE = "42501", {"0A000", "58P01"}
"""SQLSTATE of a role without the right, and of a server without the files of the extension."""
OLDEST = (0, 8)
"""Since then an index is read on until a filter has let enough rows through."""


def upgrade() -> None:
    """Apply."""
    _create_extension()
    _check_version()
    _create_embeddings()
    op.create_index("ix_embeddings_weights", "embeddings", ["weights", "model", "per"])
    op.create_index("ix_embeddings_video_id", "embeddings", ["video_id", "weights", "model", "per", "run_id"])
    for per in ("video", "shot"):
        op.create_index(
            f"ix_embeddings_{per}_cosine",
            "embeddings",
            [sa.literal_column("(l2_normalize(vector)::halfvec(2048))").label("cosine_key")],
            postgresql_using="hnsw",
            postgresql_ops={"cosine_key": "halfvec_cosine_ops"},
            postgresql_where=sa.text(f"per = '{per}' AND dimensions = 2048"),
        )


def downgrade() -> None:
    """Take back. The extension stays: it may have been there before, and something else may use it."""
    op.drop_table("embeddings")


def _create_extension() -> None:
    """Forbidden, Conflict: say what an operator has to do."""
    bind = op.get_bind()
    try:
        with bind.begin_nested():
            bind.execute(sa.text("CREATE EXTENSION IF NOT EXISTS vector"))
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == NOT_ALLOWED:
            raise Forbidden(
                "This database role may not create the extension pgvector. Let a superuser run "
                "CREATE EXTENSION vector; in this database, once, and migrate again."
            ) from None
        if state in NOT_THERE:
            raise Conflict(
                "This Postgres has no extension pgvector. Install it on the server (the image pgvector/pgvector:pg18 "
                "has it, Debian calls it postgresql-18-pgvector), and migrate again."
            ) from None
        raise


def _check_version() -> None:
    statement = sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    version = str(op.get_bind().execute(statement).scalar_one())
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise Conflict(
            f"The extension pgvector is {version}, and 0.8 is the oldest that will do. Install a newer one on the "
            "server, run ALTER EXTENSION vector UPDATE; in this database, and migrate again."
        )


def _create_embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("video_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("weights", sa.String(length=64), nullable=False),
        sa.Column("per", sa.String(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("start_frame", sa.BigInteger(), nullable=True),
        sa.Column("start_pts", sa.BigInteger(), nullable=True),
        sa.Column("end_frame", sa.BigInteger(), nullable=True),
        sa.Column("end_pts", sa.BigInteger(), nullable=True),
        sa.Column("vector", VECTOR(), nullable=False),
        sa.CheckConstraint("per IN ('video', 'shot')", name=op.f("ck_embeddings_per")),
        sa.CheckConstraint("(per = 'shot') = (start_frame IS NOT NULL)", name=op.f("ck_embeddings_range")),
        sa.CheckConstraint("vector_dims(vector) = dimensions", name=op.f("ck_embeddings_dimensions")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_embeddings_run_id_runs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name=op.f("fk_embeddings_video_id_videos"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "seq", name=op.f("pk_embeddings")),
    )

"""Figures: counted events, what ended batches came to, and indexes for those who look at the whole.

Revision: 0005
After: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())
LIVE = sa.text("state IN ('waiting', 'queued', 'running')")
ENDED = sa.text("state IN ('done', 'failed', 'cancelled', 'skipped')")
QUEUE = ["model", "priority", "created_at"]


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_counters")),
    )
    op.add_column("batches", sa.Column("outcome", JSON, nullable=True))
    op.drop_index("ix_runs_queued", table_name="runs")
    op.create_index(
        "ix_runs_live", "runs", ["state", *QUEUE], postgresql_include=["dispatched_at"], postgresql_where=LIVE
    )
    op.create_index(
        "ix_runs_ended", "runs", ["finished_at"], postgresql_include=["model", "state"], postgresql_where=ENDED
    )
    op.create_index("ix_jobs_cancelled", "jobs", ["id"], postgresql_where=sa.text("cancelled_at IS NOT NULL"))


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_cancelled", table_name="jobs")
    op.drop_index("ix_runs_ended", table_name="runs")
    op.drop_index("ix_runs_live", table_name="runs")
    op.create_index("ix_runs_queued", "runs", QUEUE, postgresql_where=sa.text("state = 'queued'"))
    op.drop_column("batches", "outcome")
    op.drop_table("counters")

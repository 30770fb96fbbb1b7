"""Runs that encode the same video in the same way.

Revision: 0002
After: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Runs of before count as alike only where their whole key is."""
    op.add_column("runs", sa.Column("encode_key", sa.String(length=64), nullable=True))
    op.execute("UPDATE runs SET encode_key = key")
    op.alter_column("runs", "encode_key", nullable=False)
    op.create_index("ix_runs_encode_key", "runs", ["encode_key"], postgresql_where=sa.text("state = 'done'"))


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_runs_encode_key", table_name="runs")
    op.drop_column("runs", "encode_key")

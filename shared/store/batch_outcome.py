"""Invalidate the frozen outcome of ended batches whose jobs run again."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from shared.tables import BatchItemRow, BatchRow


def invalidate_outcomes(session: Session, condition: ColumnElement[bool]) -> None:
    """Delete the frozen counts of batches, before one of their jobs is changed or deleted.

    Locked whether or not they have ended, so that nobody counts them at this moment; before jobs are locked.
    """
    batch_ids = select(BatchItemRow.batch_id).where(condition)
    rows = session.scalars(select(BatchRow).where(BatchRow.id.in_(batch_ids)).order_by(BatchRow.id).with_for_update())
    for row in rows:
        row.outcome = None

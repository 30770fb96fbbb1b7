"""Counters that only grow, kept in the database so that every process adds to the same ones."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.tables import CounterRow

LEASES_LOST = "leases_lost"
"""By model: claims of a worker that fell silent."""


MESSAGES_DROPPED = "messages_dropped"
"""By model and reason: messages that started nothing. Those of a run that runs or has ended were duplicates."""


RESULTS_DROPPED = "results_dropped"
"""By model: runs that a worker finished after another had been given them."""


DROP_REASONS = ("running", "ended", "waiting", "paused", "early", "gone")


def increment_counter(session: Session, name: str, by: int = 1, **labels: str) -> None:
    """Increment a counter, inside the transaction of the event that it counts."""
    statement = insert(CounterRow).values(name=name, labels=labels, value=by)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[CounterRow.name, CounterRow.labels],
            set_={"value": CounterRow.value + statement.excluded.value},
        )
    )

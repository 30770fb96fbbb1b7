"""SQL statements that an engine runs, and whether a transaction waits for a lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event, text

AWAITED = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[str]]:
    """Collect the SQL that an engine runs inside the block."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def lock_is_awaited(engine: Engine) -> bool:
    """Whether a transaction of this database waits for a lock that another one holds."""
    with engine.connect() as connection:
        return bool(connection.scalar(AWAITED))

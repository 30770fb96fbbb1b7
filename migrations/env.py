"""Alembic's entry: the database's metadata on the database of `shared.settings` or of the caller."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from shared.db import driver_url
from shared.settings import get_settings
from shared.tables import Base

MIGRATION_LOCK = 7_150_262


def run_migrations() -> None:
    """Migrate in one transaction under an advisory lock: two processes that start together take turns."""
    url = context.config.get_main_option("sqlalchemy.url") or driver_url(get_settings().database_url)
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            context.run_migrations()
    engine.dispose()


run_migrations()

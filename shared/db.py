"""The connection to Postgres: one engine a process, made after any fork or spawn, with time-outs everywhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from shared.settings import get_settings

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
"""Beside this package in the checkout, in an installed wheel and in the image. It is not looked up by its name, because
a folder `migrations` in the current directory, which many projects have, would be found first."""
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
RANDOM_PAGE_COST = 1.1
"""For data in memory or on flash, where a random page costs about as much as the next page. With 4, the default for
disks, the planner would read the wide rows of all runs of the history to find those that are queued."""


def driver_url(url: str) -> str:
    """The URL with psycopg 3 named as the driver."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in {"postgres", "postgresql"} else url


def create_db_engine(url: str, *, pool_size: int = 5) -> Engine:
    """An engine whose sessions give up on a slow statement, a lock or a dead connection instead of hanging."""
    session = {
        "statement_timeout": STATEMENT_TIMEOUT_MS,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "timezone": "UTC",
        "random_page_cost": RANDOM_PAGE_COST,
    }
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    return create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={
            "options": options,
            "connect_timeout": 5,
            "application_name": "sceneworks",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        },
    )


@lru_cache(maxsize=1)
def get_engine() -> Engine:
    """The engine of this process, from the settings."""
    return create_db_engine(get_settings().database_url)


def alembic_config(url: str) -> Config:
    """Alembic's settings: where the revisions are, and the database.

    Made in code, because an installed wheel has no pyproject.toml. That of the checkout serves the command `alembic`.
    """
    config = Config()
    for name, value in {"script_location": str(MIGRATIONS), "sqlalchemy.url": driver_url(url)}.items():
        config.set_main_option(name, value.replace("%", "%%"))  # Alembic reads % as the start of a variable
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema up to a revision; safe when several processes do it at once (the migration takes a lock)."""
    command.upgrade(alembic_config(url), revision)


def is_schema_current(engine: Engine) -> bool:
    """Whether the schema is the one that this code was written for."""
    head = ScriptDirectory.from_config(alembic_config("")).get_current_head()
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head


def is_writable(engine: Engine) -> bool:
    """Whether the database takes writes: a standby, or one whose disk was full, is read-only."""
    with engine.connect() as connection:
        return bool(connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off")

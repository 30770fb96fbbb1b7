"""Migrations and model metadata say the same; both directions work; two at once take turns."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import inspect

from shared.db import alembic_config, connect, migrate, migrated
from tests.conftest import administer, named


@pytest.fixture
def empty_database_url(postgres_url: str) -> str:
    name = f"test_{uuid4().hex[:12]}"
    administer(postgres_url, f"CREATE DATABASE {name}")
    return named(postgres_url, name)


def test_the_schema_is_what_the_tables_say(database_url: str) -> None:
    command.check(alembic_config(database_url))  # raises when autogenerate would change anything


def test_down_and_up_again(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    assert not migrated(engine)
    migrate(empty_database_url)
    assert migrated(engine)
    command.downgrade(alembic_config(empty_database_url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(empty_database_url)
    assert migrated(engine)
    engine.dispose()


def test_two_migrations_at_once_take_turns(empty_database_url: str) -> None:
    program = "import sys; from shared.db import migrate; migrate(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", program, empty_database_url]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    engine = connect(empty_database_url)
    assert migrated(engine)
    engine.dispose()

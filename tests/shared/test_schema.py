"""Migrations and model metadata say the same; both directions work; two at once take turns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import inspect
from sqlalchemy.engine import make_url

from shared.db import alembic_config, create_db_engine, is_schema_current, migrate
from shared.errors import Conflict, Forbidden
from tests.conftest import create_empty_database, execute_admin_sql


@pytest.fixture
def empty_database_url(postgres_url: str) -> str:
    return create_empty_database(postgres_url)


def test_the_schema_is_what_the_tables_say(database_url: str) -> None:
    command.check(alembic_config(database_url))  # raises when autogenerate would change anything


def test_down_and_up_again(empty_database_url: str) -> None:
    engine = create_db_engine(empty_database_url)
    assert not is_schema_current(engine)
    migrate(empty_database_url)
    assert is_schema_current(engine)
    command.downgrade(alembic_config(empty_database_url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(empty_database_url)
    assert is_schema_current(engine)
    engine.dispose()


def test_two_migrations_at_once_take_turns(empty_database_url: str) -> None:
    program = "import sys; from shared.db import migrate; migrate(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", program, empty_database_url]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    engine = create_db_engine(empty_database_url)
    assert is_schema_current(engine)
    engine.dispose()


@pytest.fixture
def plain_url(empty_database_url: str) -> Iterator[str]:
    """The empty database, seen by a role that owns it and may do nothing else."""
    role, database = f"plain_{uuid4().hex[:12]}", make_url(empty_database_url).database
    execute_admin_sql(
        empty_database_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'plain' NOSUPERUSER",
        f"ALTER DATABASE {database} OWNER TO {role}",
    )
    plain = make_url(empty_database_url).set(username=role, password="plain")
    yield plain.render_as_string(hide_password=False)
    execute_admin_sql(empty_database_url, f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP ROLE {role}")


def test_a_role_without_the_right_is_told_what_to_do(empty_database_url: str, plain_url: str) -> None:
    with pytest.raises(Forbidden, match="Let a superuser run CREATE EXTENSION vector; in this database"):
        migrate(plain_url)
    engine = create_db_engine(plain_url)
    assert inspect(engine).get_table_names() == []
    execute_admin_sql(empty_database_url, "CREATE EXTENSION vector")
    migrate(plain_url)
    assert is_schema_current(engine)
    engine.dispose()


def test_an_old_extension_is_named(empty_database_url: str) -> None:
    execute_admin_sql(
        empty_database_url,
        "CREATE EXTENSION vector",
        "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'",
    )
    with pytest.raises(Conflict, match=r"pgvector is 0\.7\.4, and 0\.8 is the oldest"):
        migrate(empty_database_url)


def test_a_server_without_the_extension_is_told(empty_database_url: str) -> None:
    engine = create_db_engine(empty_database_url)
    with engine.connect() as connection:
        if connection.dialect.server_version_info < (18,):
            pytest.skip("only since Postgres 18 can extensions be hidden from a database")
    engine.dispose()
    name = make_url(empty_database_url).database
    execute_admin_sql(empty_database_url, f"ALTER DATABASE {name} SET extension_control_path = '/nowhere'")
    with pytest.raises(Conflict, match="This Postgres has no extension pgvector"):
        migrate(empty_database_url)

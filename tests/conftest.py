"""Real servers for every test: a Postgres and a Valkey of our own, or those of DATABASE_URL and REDIS_URL.

Tests run in several processes (pytest-xdist). Each process starts its own servers; of given servers each process uses
its own databases: those that it creates in Postgres, and in Redis the database whose number is its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from api.localstack.servers import Postgres, Valkey
from shared.db import create_db_engine, driver_url, migrate
from shared.settings import get_settings
from shared.storage import ContentStorage

# Read by OpenMP when torch is loaded, which test modules do before they import the worker; see worker/__init__.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the processes that run tests share the cores
    share = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

REPOSITORY = Path(__file__).resolve().parents[1]
EXTERNAL_MATERIAL = REPOSITORY.parent / "shared"
"""Whole videos that may lie beside the checkout; slow tests that use them skip where they are absent."""


def _clear_environment() -> dict[str, str]:
    """Take the given servers out of the environment and drop every setting of the person who runs the tests."""
    servers = {name: os.environ.pop(name) for name in ("DATABASE_URL", "REDIS_URL") if name in os.environ}
    keep = {"SCENEWORKS_REQUIRE_BROWSER"}
    for name in [name for name in os.environ if name.startswith("SCENEWORKS_") and name not in keep]:
        del os.environ[name]
    return servers


EXTERNAL_SERVERS = _clear_environment()
"""Addresses of given servers. A process of pytest-xdist inherits no address: it is handed them by the one that has."""


class ParallelRun:
    """What the process that distributes the tests tells those that run them."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand the addresses of given servers to a process that is about to start."""
        node.workerinput["given_servers"] = EXTERNAL_SERVERS


# Folders and files whose tests start the whole system or load full-size networks; `make check` leaves them out.
WHOLE = (
    "api/http/test_real_server.py", "api/localstack", "api/videos/test_thumbnails.py", "worker/models",
    "worker/networks", "worker/video", "worker/weights",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder that they lie in."""
    for item in items:
        place = item.path.relative_to(REPOSITORY / "tests").as_posix()
        if place.startswith("house/"):
            item.add_marker("house")
        if place.startswith(WHOLE):
            item.add_marker("whole")


def pytest_configure(config: pytest.Config) -> None:
    """In the process that distributes: hand the given servers on. In a process that runs tests: take them."""
    worker_input = getattr(config, "workerinput", None)
    if worker_input is None:
        config.pluginmanager.register(ParallelRun())
        return
    EXTERNAL_SERVERS.update(worker_input["given_servers"])
    if "REDIS_URL" in EXTERNAL_SERVERS:
        number = int(worker_input["workerid"].removeprefix("gw"))
        EXTERNAL_SERVERS["REDIS_URL"] = _database_after(EXTERNAL_SERVERS["REDIS_URL"], number)


def _database_after(url: str, count: int) -> str:
    """The address of the Redis database so many numbers after that of the URL."""
    first = int(make_url(url).database or 0)
    return with_database_name(url, str(first + count))


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Postgres in which databases may be made."""
    if "DATABASE_URL" in EXTERNAL_SERVERS:
        yield EXTERNAL_SERVERS["DATABASE_URL"]
        return
    with Postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey or Redis; the database of the URL is emptied before each test that uses it."""
    if "REDIS_URL" in EXTERNAL_SERVERS:
        yield EXTERNAL_SERVERS["REDIS_URL"]
        return
    with Valkey(tmp_path_factory.mktemp("valkey"), durable=False) as server:
        yield server.url


def execute_admin_sql(url: str, *statements: str) -> None:
    engine = create_engine(driver_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """Name of a migrated database to be cloned: made once, with the real migrations."""
    name = f"template_{uuid4().hex[:12]}"
    execute_admin_sql(postgres_url, f"CREATE DATABASE {name}")
    migrate(with_database_name(postgres_url, name))
    yield name
    execute_admin_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def create_empty_database(postgres_url: str) -> str:
    """Create a database without tables; its address."""
    name = f"test_{uuid4().hex[:12]}"
    execute_admin_sql(postgres_url, f"CREATE DATABASE {name}")
    return with_database_name(postgres_url, name)


def with_database_name(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A fresh, migrated database of this test's own."""
    name = f"test_{uuid4().hex[:12]}"
    execute_admin_sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield with_database_name(postgres_url, name)
    execute_admin_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def broker_url(valkey_url: str) -> str:
    """An empty broker."""
    with redis.Redis.from_url(valkey_url) as broker:
        broker.flushdb()
    return valkey_url


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """An engine on the fresh database."""
    engine = create_db_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Folder of the store's files."""
    return tmp_path / "files"


@pytest.fixture
def files(data_dir: Path) -> ContentStorage:
    """The store's files."""
    return ContentStorage(data_dir)


def use_broker(url: str) -> None:
    """Let this process ring at that broker: a closed pool stays closed, so Celery has to forget it."""
    from kombu import pools

    from shared import queue

    queue.app.conf.broker_url = queue.app.conf.broker_write_url = url
    pools.reset()
    queue.app._pool = queue.app.amqp._producer_pool = None


@pytest.fixture
def environment(database_url: str, broker_url: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process's own settings, engine and broker point at this test's servers."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", broker_url)
    monkeypatch.setenv("SCENEWORKS_DATA_DIR", str(data_dir))
    from shared import db  # here, because Celery's app reads the settings at import

    get_settings.cache_clear()
    db.get_engine.cache_clear()
    use_broker(broker_url)
    yield
    db.get_engine().dispose()
    use_broker(broker_url)
    get_settings.cache_clear()
    db.get_engine.cache_clear()


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A test during which an error is logged has failed."""
    yield
    logged = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR
    ]
    assert not logged, f"errors were logged: {logged}"


@pytest.fixture(scope="session")
def big_buck_bunny() -> Path:
    """A whole animated video, 14,315 frames; skips where it is absent."""
    path = EXTERNAL_MATERIAL / "media" / "big_buck_bunny_720p_h264_full.mp4"
    if not path.exists():
        pytest.skip(f"the video Big Buck Bunny is not at {path}")
    return path

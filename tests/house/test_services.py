"""Commands of docker-compose.yml, run as they stand there against a real broker."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import httpx
import psycopg
import pytest
import redis
from ruamel.yaml import YAML
from sqlalchemy.engine import make_url

from api.localstack.servers import find_free_port
from shared.db import create_db_engine, is_schema_current
from shared.queue import MESSAGE_PRIORITIES, PRIORITY_MARK, RUN_TASK, publish_wakeup
from shared.values import WakeUp
from tests.conftest import use_broker
from tests.house.repository import ROOT, run, text
from tests.support.waiting import wait_until

PATIENCE_S = 30
OPERATOR = "operator:letmein"
OPERATOR_LOGIN = ("operator", "letmein")
T = TypeVar("T")


@pytest.fixture
def services() -> dict[str, Any]:
    return YAML(typ="safe").load(text("docker-compose.yml"))["services"]


@contextmanager
def _running(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    tools = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | tools | env, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _status(url: str, login: str = "") -> int:
    request = Request(url)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def _await(url: str, log: Path) -> None:
    def answers() -> bool:
        try:
            return _status(url) == 200
        except URLError:
            return False

    _wait_until("it answers", answers, log)


def _wait_until(what: str, condition: Callable[[], T], log: Path) -> T:
    """As `wait_until`; a test that fails shows the log."""
    try:
        return wait_until(what, condition)
    except AssertionError:
        raise AssertionError(log.read_text()) from None


def test_flower_asks_for_a_password(services: dict[str, Any], broker_url: str, tmp_path: Path) -> None:
    port, log = str(find_free_port(0)), tmp_path / "log"
    command = [word.replace("5555", port) for word in services["flower"]["command"]]
    env = {"SCENEWORKS_REDIS_URL": broker_url, "FLOWER_BASIC_AUTH": OPERATOR}
    with _running([*command, "--address=127.0.0.1"], env, log):
        _await(f"http://127.0.0.1:{port}/healthcheck", log)
        workers = f"http://127.0.0.1:{port}/workers"
        assert [_status(workers), _status(workers, "operator:guess"), _status(workers, OPERATOR)] == [401, 401, 200]


def test_flower_shows_run_model_and_video(services: dict[str, Any], broker_url: str, tmp_path: Path) -> None:
    """By the events that ringing sends, as its own API tells them; the message itself is the run's id alone."""
    port, log = str(find_free_port(0)), tmp_path / "log"
    command = [word.replace("5555", port) for word in services["flower"]["command"]]
    env = {"SCENEWORKS_REDIS_URL": broker_url, "FLOWER_BASIC_AUTH": OPERATOR}
    use_broker(broker_url)
    with _running([*command, "--address=127.0.0.1"], env, log):
        _await(f"http://127.0.0.1:{port}/healthcheck", log)

        def list_tasks() -> dict[str, Any]:
            assert publish_wakeup(
                WakeUp("run_1", "mttr", 0, "vid_2")
            )  # events that come before it listens are not heard
            tasks: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/api/tasks", auth=OPERATOR_LOGIN).json()
            return tasks

        tasks_by_id = _wait_until("it shows a task", list_tasks, log)
    task = next(iter(tasks_by_id.values()))
    assert (task["name"], task["args"]) == (RUN_TASK, "run=run_1, model=mttr, video=vid_2")
    with redis.Redis.from_url(broker_url) as broker:
        (message, *_) = broker.lrange(f"mttr{PRIORITY_MARK}{MESSAGE_PRIORITIES[0]}", 0, 0)
    assert json.loads(base64.b64decode(json.loads(message)["body"]))[0] == ["run_1"]


def test_flower_can_change_nothing(services: dict[str, Any]) -> None:
    assert "--read_only" in services["flower"]["command"]


def test_the_health_check_finds_its_own_worker(services: dict[str, Any], broker_url: str, tmp_path: Path) -> None:
    """The health check of a model's service finds the worker of its own host, and misses it when it is gone."""
    kind, *check = services["shots"]["healthcheck"]["test"]
    assert kind == "CMD"
    env = {"SCENEWORKS_REDIS_URL": broker_url}
    name = f"--hostname=shots-7@{socket.gethostname()}"
    worker = ["celery", "-A", "shared.queue", "worker", "--pool=solo", "--queues=shots", name]
    hasty = [word.replace("timeout=10", "timeout=1") for word in check]
    with _running(worker, env, tmp_path / "log"):
        _wait_until("the worker is well", lambda: run(*hasty, env=env).returncode == 0, tmp_path / "log")
        assert run(*check, env=env).returncode == 0
    assert run(*hasty, env=env).stderr.strip() == "this worker does not answer"


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    name = f"empty_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_migrate_brings_the_schema_up(services: dict[str, Any], empty_database: str) -> None:
    done = run(*services["migrate"]["command"], env={"SCENEWORKS_DATABASE_URL": empty_database})
    assert done.returncode == 0, done.stderr
    engine = create_db_engine(empty_database)
    assert is_schema_current(engine)
    engine.dispose()


def test_migrate_fails_loudly(services: dict[str, Any], empty_database: str) -> None:
    """So that nothing starts on a schema that is not there: the other services wait for its success."""
    done = run(*services["migrate"]["command"], env={"SCENEWORKS_DATABASE_URL": f"{empty_database}_absent"})
    assert done.returncode != 0
    assert "does not exist" in done.stderr

"""The command line where no service is needed: quick, light, and clear when nothing answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.client.commands.jobs import app
from api.client.http import ApiClient

REPOSITORY = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "numpy", "av", "sqlalchemy", "celery", "flask", "httpx", "alembic")


def python(code: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("entry", ["api.client", "worker.cli"])
def test_help_is_quick_and_loads_nothing_heavy(entry: str) -> None:
    code = f"""
import sys
from {entry} import main
sys.argv = ["command", "--help"]
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    took = []
    for _ in range(3):
        began = time.monotonic()
        done = python(code)
        took.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip().splitlines()[-1] == "[]"
        assert "Usage" in done.stdout
    assert min(took) < 0.5, took


def test_every_command_of_the_readme_is_there() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names >= {"up", "demo", "submit", "jobs", "show", "watch", "results", "cancel", "retry", "models"}


def test_no_answer_is_said_and_has_its_own_exit_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = CliRunner().invoke(app, ["--url", f"http://127.0.0.1:{port}", "jobs"])
    assert done.exit_code == 3
    assert f"No answer from http://127.0.0.1:{port}" in done.stderr


def test_something_else_at_the_address_is_said(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
        assert other.stdout is not None
        port = other.stdout.readline().split("port ")[1].split()[0]
        done = CliRunner().invoke(app, ["--url", f"http://127.0.0.1:{port}", "jobs"])
        other.terminate()
    assert done.exit_code == 3
    assert "not as Sceneworks does" in done.stderr


def test_a_proxy_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ApiClient("http://localhost:1") as service, pytest.raises(ConnectionError, match="localhost:1"):
        service.list_models()


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    done = CliRunner().invoke(app, ["submit", "/no/such/film.mp4", "--model", "shots"])
    assert done.exit_code == 2
    assert "does not exist" in done.stderr


def test_a_demo_of_nothing_starts_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", str(tmp_path / "none.mp4"), "--dir", str(tmp_path / "var")])
    assert done.exit_code == 1
    assert "There is no file" in done.stderr
    assert not (tmp_path / "var").exists()

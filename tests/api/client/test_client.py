"""The command line where no service is needed: quick, light, and clear when nothing answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from api.client.commands import app
from api.client.http import ApiClient

REPOSITORY = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "numpy", "av", "sqlalchemy", "celery", "flask", "httpx", "alembic")


def python(code: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("entry", ["api.client.commands", "worker.cli"])
def test_help_loads_nothing_heavy(entry: str) -> None:
    code = f"""
import sys
from {entry} import main
sys.argv = ["command", "--help"]
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert "Usage" in done.stdout


def test_every_command_of_the_readme_is_there() -> None:
    names = set(get_command(app).commands)
    assert names >= {"up", "demo", "submit", "jobs", "show", "watch", "results", "cancel", "retry", "models"}


def test_no_answer_has_its_own_exit_code() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = CliRunner().invoke(app, ["--url", f"http://127.0.0.1:{port}", "jobs"])
    assert done.exit_code == 3
    assert f"No answer from http://127.0.0.1:{port}" in done.stderr


def test_another_service_at_the_address_is_reported(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as other:
        assert other.stdout is not None
        port = other.stdout.readline().split("port ")[1].split()[0]
        done = CliRunner().invoke(app, ["--url", f"http://127.0.0.1:{port}", "jobs"])
        other.terminate()
    assert done.exit_code == 3
    assert "not as Sceneworks does" in done.stderr


def test_loopback_addresses_bypass_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ApiClient("http://localhost:1") as service, pytest.raises(ConnectionError, match="localhost:1"):
        service.list_models()


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    done = CliRunner().invoke(app, ["submit", "/no/such/video.mp4", "--model", "shots"])
    assert done.exit_code == 2
    assert "does not exist" in done.stderr


def test_a_demo_without_its_file_starts_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", str(tmp_path / "none.mp4"), "--dir", str(tmp_path / "var")])
    assert done.exit_code == 1
    assert "There is no file" in done.stderr
    assert not (tmp_path / "var").exists()

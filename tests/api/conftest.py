"""The API in this process (a test client) and as it is served (gunicorn), and small real films."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from imageio_ffmpeg import get_ffmpeg_exe

from api.app import create_app, gunicorn_options
from api.local.servers import free_port
from shared.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
Make = Callable[..., APIFlask]


def make_film(out: Path, *options: str, seconds: float = 2) -> Path:
    """A film of a test picture, or what the options say."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate=25:duration={seconds}"]
    subprocess.run(
        [get_ffmpeg_exe(), "-v", "error", "-y", *(options or (*source, "-pix_fmt", "yuv420p")), str(out)], check=True
    )
    return out


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264 in an MP4 whose index comes first."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=2", "-pix_fmt", "yuv420p"]
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", *source, "-movflags", "+faststart")


@pytest.fixture
def make_app(environment: None) -> Iterator[Make]:
    """Apps on this test's servers, with some settings changed."""
    made: list[APIFlask] = []

    def make(**changed: Any) -> APIFlask:
        made.append(create_app(Settings(**changed)))
        return made[-1]

    yield make
    for app in made:
        app.extensions["sceneworks"].engine.dispose()


@pytest.fixture
def app(make_app: Make) -> APIFlask:
    """The app with the default settings."""
    return make_app()


@pytest.fixture
def client(app: APIFlask) -> FlaskClient:
    """A client of it."""
    return app.test_client()


@pytest.fixture
def video_id(client: FlaskClient, film: Path) -> str:
    """An uploaded film."""
    return str(client.post("/v1/videos", data=film.read_bytes(), content_type="video/mp4").json["id"])


@dataclass(frozen=True)
class Served:
    """The API behind gunicorn."""

    url: str
    port: int
    pid: int


@pytest.fixture
def served(environment: None, tmp_path: Path) -> Iterator[Served]:
    """A real gunicorn on this test's servers."""
    settings = Settings(port=free_port())
    env = os.environ | {"SCENEWORKS_PORT": str(settings.port)}
    command = [sys.executable, "-m", "gunicorn", *gunicorn_options(settings)]
    with (tmp_path / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{settings.port}"
    try:
        _wait(url, process)
        yield Served(url, settings.port, process.pid)
    finally:
        process.terminate()
        process.wait(20)
    said = (tmp_path / "gunicorn.log").read_text()
    assert '"level": "error"' not in said, said
    assert "Traceback" not in said, said


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/healthz", timeout=5).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("gunicorn did not start")

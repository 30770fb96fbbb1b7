"""The API in this process (a test client) and as it is served (gunicorn), and small real films."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import httpx
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from imageio_ffmpeg import get_ffmpeg_exe
from sqlalchemy import Engine

from api.app import create_app, gunicorn_options
from api.local.servers import free_port
from shared.db import connect
from shared.files import Files
from shared.settings import Settings
from shared.store import runs, videos
from shared.values import Artifact, Job, Progress, Result, Shot, TimeRange, new_id
from shared.values.scenes import boundaries, scenes
from tests import factories
from tests.conftest import administer, named

REPOSITORY = Path(__file__).resolve().parents[2]
Make = Callable[..., APIFlask]
GREY = ["-f", "lavfi", "-i", "color=black:size=64x64:rate=25:duration=4,format=yuv420p,geq=lum='16+2*N':cb=128:cr=128"]
"""Frame n is grey of level 2n: a picture of it says which frame it is."""


def make_film(out: Path, *options: str, seconds: float = 2) -> Path:
    """A film of a test picture, or what the options say."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate=25:duration={seconds}"]
    subprocess.run(
        [get_ffmpeg_exe(), "-v", "error", "-y", *(options or (*source, "-pix_fmt", "yuv420p")), str(out)], check=True
    )
    return out


def named_film(database: Engine, name: str) -> str:
    """A video of that name in the ledger; its id."""
    video, _ = videos.add(
        database, sha256=hashlib.sha256(name.encode()).hexdigest(), size=2_160_000, name=name, media_type="video/mp4",
        video=factories.video(),
    )  # fmt: skip
    return video.id


def finish_shots(database: Engine, job: Job, shots: Sequence[TimeRange]) -> None:
    """End the run that finds the shots of a job; it keeps no pictures."""
    found = [Shot(one).result(seq) for seq, one in enumerate(shots)]
    finish_run(database, job, "shots", found)


def finish_scenes(
    database: Engine, job: Job, model: str, shots: Sequence[TimeRange], probabilities: Sequence[float]
) -> None:
    """End the run of a model of scenes as its room does: with float32 probabilities, grouped by its threshold."""
    (run,) = [run for run in job.runs if run.model == model]
    rows = boundaries([Shot(one).result(seq) for seq, one in enumerate(shots)], array("f", probabilities))
    finish_run(database, job, model, [*rows, *scenes(rows, run.params["threshold"])])


def finish_run(
    database: Engine, job: Job, model: str, found: Sequence[Result], artifacts: Sequence[Artifact] = (), at: int = 0
) -> str:
    """End a run of that model (number `at` of them, as the job asks for them) with these rows; its id."""
    run_id = [run.id for run in job.runs if run.model == model][at]
    claim = factories.claim(database, run_id)
    assert claim is not None
    runs.finish(
        database, claim, progress=Progress((), 1.0), decode_failures=0, results=list(found), artifacts=list(artifacts)
    )
    return run_id


def keep(files: Files, path: Path, kind: str, media_type: str) -> Artifact:
    """A file in the store, as an artifact."""
    stored = files.put(path)
    return Artifact(new_id("art"), kind, path.name, media_type, stored.sha256, stored.size)


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
    """The API behind gunicorn, with the ledger and the files that it works on."""

    url: str
    port: int
    pid: int
    database: Engine
    data_dir: Path

    def writing(self) -> list[Path]:
        """Files that are being written."""
        return [path for path in (self.data_dir / "incoming").iterdir() if path.is_file()]

    def kept(self) -> tuple[int, int]:
        """Number of videos in the ledger, and of files in the store."""
        objects = [path for path in (self.data_dir / "objects").rglob("*") if path.is_file()]
        return len(videos.page(self.database, limit=100)), len(objects)


@pytest.fixture(scope="module")
def served(
    postgres_url: str, template: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A real gunicorn for the tests of a module, on a database of its own."""
    folder, name = tmp_path_factory.mktemp("served"), f"served_{uuid4().hex[:12]}"
    administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    url = named(postgres_url, name)
    with (folder / "log").open("w+b") as log:
        env = os.environ | {"DATABASE_URL": url, "REDIS_URL": valkey_url, "SCENEWORKS_DATA_DIR": str(folder / "files")}
        process, port = _start(env, log)
        engine = connect(url)
        try:
            yield Served(f"http://127.0.0.1:{port}", port, process.pid, engine, folder / "files")
        finally:
            engine.dispose()
            process.terminate()
            process.wait(20)
            administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
    said = (folder / "log").read_text()
    assert '"level": "error"' not in said, said
    assert "Traceback" not in said, said


def _start(env: dict[str, str], log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """Gunicorn on a free port; once more when somebody else took the port meanwhile."""
    for _ in range(3):
        port = free_port()
        command = [sys.executable, "-m", "gunicorn", *gunicorn_options(Settings(port=port))]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        if _answers(f"http://127.0.0.1:{port}/healthz", process):
            return process, port
        log.seek(0)
        said = log.read().decode()
        assert "Address already in use" in said, said
    raise AssertionError("no port stays free")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.TransportError:
            time.sleep(0.05)
    return False

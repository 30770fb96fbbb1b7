"""The API in this process (a test client) and as it is served (gunicorn), and small real videos."""

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

from api.app import create_app
from api.http.context import THREADS, Backlog, Services
from api.localstack.servers import find_free_port
from api.server import gunicorn_options
from shared.db import create_db_engine
from shared.settings import Settings
from shared.storage import ContentStorage
from shared.store.runs import runs
from shared.store.videos import videos
from shared.values import Artifact, Job, Progress, Result, Shot, TimeRange, new_id
from shared.values.scenes import build_boundaries, build_scenes
from tests.conftest import execute_admin_sql, with_database_name
from tests.support import factories
from tests.support.batches import create_batch

__all__ = ["create_batch"]

REPOSITORY = Path(__file__).resolve().parents[2]
MakeApp = Callable[..., APIFlask]
GREY_VIDEO = [
    "-f",
    "lavfi",
    "-i",
    "color=black:size=64x64:rate=25:duration=4,format=yuv420p,geq=lum='16+2*N':cb=128:cr=128",
]
"""Frame n is grey of level 2n: a picture of it says which frame it is."""


def make_video_file(out: Path, *options: str, seconds: float = 2) -> Path:
    """A video of a test picture, or what the options say."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate=25:duration={seconds}"]
    subprocess.run(
        [get_ffmpeg_exe(), "-v", "error", "-y", *(options or (*source, "-pix_fmt", "yuv420p")), str(out)], check=True
    )
    return out


def add_named_video(database: Engine, name: str) -> str:
    """A video of that name in the database; its id."""
    video, _ = videos.add_video(
        database, sha256=hashlib.sha256(name.encode()).hexdigest(), size=2_160_000, name=name, media_type="video/mp4",
        facts=factories.make_video(),
    )  # fmt: skip
    return video.id


def finish_shots(database: Engine, job: Job, shots: Sequence[TimeRange]) -> None:
    """End the run that finds the shots of a job; it keeps no pictures."""
    rows = [Shot(span).to_result(seq) for seq, span in enumerate(shots)]
    finish_run(database, job, "shots", rows)


def finish_scenes(
    database: Engine, job: Job, model: str, shots: Sequence[TimeRange], probabilities: Sequence[float]
) -> None:
    """End the run of a model of scenes as its room does: with float32 probabilities, grouped by its threshold."""
    (run,) = [run for run in job.runs if run.model == model]
    rows = build_boundaries([Shot(span).to_result(seq) for seq, span in enumerate(shots)], array("f", probabilities))
    finish_run(database, job, model, [*rows, *build_scenes(rows, run.params["threshold"])])


def finish_run(
    database: Engine, job: Job, model: str, rows: Sequence[Result], artifacts: Sequence[Artifact] = (), index: int = 0
) -> str:
    """End a run of that model (number `index` of them, as the job asks for them) with these rows; its id."""
    run_id = [run.id for run in job.runs if run.model == model][index]
    claim = factories.claim_run(database, run_id)
    assert claim is not None
    runs.finish_run(
        database, claim, progress=Progress((), 1.0), decode_failures=0, results=list(rows), artifacts=list(artifacts)
    )
    return run_id


def store_artifact(files: ContentStorage, path: Path, kind: str, media_type: str) -> Artifact:
    """A file in the store, as an artifact."""
    stored = files.put_file(path)
    return Artifact(new_id("art"), kind, path.name, media_type, stored.sha256, stored.size)


@pytest.fixture(scope="session")
def video_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of H.264 in an MP4 whose index comes first."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=2", "-pix_fmt", "yuv420p"]
    return make_video_file(tmp_path_factory.mktemp("film") / "film.mp4", *source, "-movflags", "+faststart")


@pytest.fixture
def make_app(environment: None) -> Iterator[MakeApp]:
    """Apps on this test's servers, with some settings changed."""
    apps: list[APIFlask] = []

    def create_with(**overrides: Any) -> APIFlask:
        apps.append(create_app(Settings(**overrides)))
        return apps[-1]

    yield create_with
    for app in apps:
        app.extensions["sceneworks"].engine.dispose()


@pytest.fixture(scope="session")
def shared_app() -> APIFlask:
    """An app with the default settings. Building one takes longer than most tests: it compiles routes and templates."""
    created = create_app(Settings())
    created.extensions["sceneworks"].engine.dispose()
    return created


@pytest.fixture
def app(shared_app: APIFlask, environment: None) -> Iterator[APIFlask]:
    """The app with the default settings, on services of this test's own: nothing else in it outlives a request."""
    config = Settings()
    engine = create_db_engine(config.database_url, pool_size=THREADS)
    backlog = Backlog(engine, config.max_queued_runs)
    shared_app.extensions["sceneworks"] = Services(config, engine, ContentStorage(config.data_dir), backlog)
    shared_app.extensions.pop("sceneworks.watcher", None)
    yield shared_app
    engine.dispose()


@pytest.fixture
def client(app: APIFlask) -> FlaskClient:
    """A client of it."""
    return app.test_client()


@pytest.fixture
def video_id(client: FlaskClient, video_path: Path) -> str:
    """An uploaded video."""
    return str(client.post("/v1/videos", data=video_path.read_bytes(), content_type="video/mp4").json["id"])


@dataclass(frozen=True)
class ApiServer:
    """The API behind gunicorn, with the database and the files that it works on."""

    url: str
    port: int
    pid: int
    database: Engine
    data_dir: Path

    def list_incoming(self) -> list[Path]:
        """Files that are being written."""
        return [path for path in (self.data_dir / "incoming").iterdir() if path.is_file()]

    def count_stored(self) -> tuple[int, int]:
        """Number of videos in the database, and of files in the store."""
        objects = [path for path in (self.data_dir / "objects").rglob("*") if path.is_file()]
        return len(videos.list_videos(self.database, limit=100)), len(objects)


@pytest.fixture(scope="module")
def api_server(
    postgres_url: str, template_database: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """A real gunicorn for the tests of a module, on a database of its own."""
    folder, name = tmp_path_factory.mktemp("served"), f"served_{uuid4().hex[:12]}"
    execute_admin_sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    url = with_database_name(postgres_url, name)
    with (folder / "log").open("w+b") as log:
        env = os.environ | {"DATABASE_URL": url, "REDIS_URL": valkey_url, "SCENEWORKS_DATA_DIR": str(folder / "files")}
        process, port = _start_gunicorn(env, log)
        engine = create_db_engine(url)
        try:
            yield ApiServer(f"http://127.0.0.1:{port}", port, process.pid, engine, folder / "files")
        finally:
            engine.dispose()
            process.terminate()
            process.wait(20)
            execute_admin_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
    log_text = (folder / "log").read_text()
    assert '"level": "error"' not in log_text, log_text
    assert "Traceback" not in log_text, log_text


def _start_gunicorn(env: dict[str, str], log: IO[bytes]) -> tuple[subprocess.Popen[bytes], int]:
    """Gunicorn on a free port; once more when somebody else took the port meanwhile."""
    for _ in range(3):
        port = find_free_port()
        command = [sys.executable, "-m", "gunicorn", *gunicorn_options(Settings(port=port))]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        if _wait_until_ready(f"http://127.0.0.1:{port}/healthz", process):
            return process, port
        log.seek(0)
        log_text = log.read().decode()
        assert "Address already in use" in log_text, log_text
    raise AssertionError("no port stays free")


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.TransportError:
            time.sleep(0.05)
    return False

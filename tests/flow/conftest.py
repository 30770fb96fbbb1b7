"""The system in pieces: real worker, beat and API processes that a test starts and kills one by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from iscc_samples import videos
from sqlalchemy import Engine

from api.local.servers import free_port
from shared.files import Files
from shared.queue import send_all
from shared.store import jobs, results, videos as ledger_videos, workers
from shared.store.jobs import NewJob
from shared.values import Job, JobState, Result, RunState, StoredVideo
from tests import factories
from worker.video.probe import probe

CLIP = next(path for path in videos() if path.name == "demo.mp4")
FAST = {
    "SCENEWORKS_LEASE_S": "3",
    "SCENEWORKS_TOUCH_S": "0.2",
    "SCENEWORKS_SWEEP_S": "0.3",
    "SCENEWORKS_RESEND_S": "1",
    "SCENEWORKS_RETRY_BACKOFF_S": "0.2",
    "SCENEWORKS_CANCEL_GRACE_S": "5",
    "SCENEWORKS_DEVICE": "cpu",
}
PATIENCE_S = 90.0


def until(what: str, true: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something to become true; the test fails when it does not."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


@dataclass
class System:
    """Processes on one database, broker and folder."""

    engine: Engine
    files: Files
    folder: Path
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def whole_environment(self) -> dict[str, str]:
        """That of its processes."""
        return {**os.environ, **self.environment}

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """A process of ours; what it says goes into the test's folder."""
        with (self.folder / f"process-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self.whole_environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """A worker that is ready; of `shots` alone unless said otherwise, as that starts soonest."""
        before = {worker.id for worker in workers.all(self.engine)}
        process = self.start("worker.main", **{"SCENEWORKS_MODELS": "shots"} | environment)
        until(
            "a worker is ready",
            lambda: [w for w in workers.all(self.engine) if w.id not in before and w.state in {"ready", "busy"}],
        )
        return process

    def beat(self) -> subprocess.Popen[bytes]:
        """Beat, which sweeps."""
        return self.start("celery", "-A", "shared.queue", "beat", "--pidfile=")

    def add(self, path: Path) -> StoredVideo:
        """A film in the store and in the ledger."""
        stored = self.files.put(path)
        video, _ = ledger_videos.add(
            self.engine,
            sha256=stored.sha256,
            size=stored.size,
            name=path.name,
            media_type="video/mp4",
            video=probe(path),
        )
        return video

    def submit(self, video: StoredVideo, priority: str = "normal", **params: object) -> Job:
        """A job for `shots`, sent."""
        analyses = (factories.analysis(**({"detector": "hsv_luv"} | params)),)
        created = jobs.create(self.engine, NewJob(video.id, analyses, priority=priority))
        send_all(created.wakes)
        return created.job

    def wait_for_progress(self, job: Job) -> None:
        """Until the film is being read."""
        until("the run makes progress", lambda: jobs.get(self.engine, job.id).runs[0].fraction > 0.05)

    def wait_for_end(self, job: Job) -> Job:
        """Until the job has ended."""
        until("the job ends", lambda: jobs.get(self.engine, job.id).state.ended)
        return jobs.get(self.engine, job.id)

    def found(self, job: Job) -> list[Result]:
        """Every result of a job."""
        return [row.result for row in results.page(self.engine, job.id, limit=100_000)]

    def pool_child(self, worker: subprocess.Popen[bytes]) -> int:
        """The process that holds the models of a worker."""
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        return max(
            (int(pid) for pid in children), key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        )

    def api(self, **environment: str) -> str:
        """An API that answers; its address."""
        port = free_port()
        bind = f"--bind=127.0.0.1:{port}"
        threads = ("--worker-class=gthread", "--threads=8")
        self.start("gunicorn", "api.app:create_app()", bind, *threads, **environment)
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return httpx.get(f"{url}/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until("the API answers", answers)
        return url

    def kill(self) -> None:
        """Kill whatever is left, at once."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finished(client: httpx.Client, *analyses: dict[str, Any]) -> dict[str, Any]:
    """A job on the clip, once it has ended."""
    return ended(client, CLIP, *analyses)


def ended(client: httpx.Client, film: Path, *analyses: dict[str, Any], patience_s: float = 240) -> dict[str, Any]:
    """A job on a film, once it has ended."""
    sent = client.post("/v1/videos", params={"name": film.name}, content=film.read_bytes())
    body = {"video_id": sent.raise_for_status().json()["id"], "analyses": analyses}
    job: dict[str, Any] = client.post("/v1/jobs", json=body).raise_for_status().json()
    deadline = time.monotonic() + patience_s
    while job["state"] in {"queued", "running"}:
        assert time.monotonic() < deadline, f"the job has not ended: {job['runs']}"
        job = client.get(job["urls"]["self"], params={"wait": 25}, timeout=40).raise_for_status().json()
    return job


def events(folder: Path, action: str) -> list[dict[str, Any]]:
    """What the processes of a test have logged under that action."""
    lines = [line for log in sorted(folder.glob("process-*.log")) for line in log.read_text().splitlines()]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in told if event["action"] == action]


@pytest.fixture
def system(
    environment: None, database: Engine, database_url: str, broker_url: str, data_dir: Path, tmp_path: Path
) -> Iterator[System]:
    """An empty system without processes."""
    settings = {
        **FAST,
        "DATABASE_URL": database_url,
        "REDIS_URL": broker_url,
        "SCENEWORKS_DATA_DIR": str(data_dir),
        "SCENEWORKS_WEIGHTS_DIR": str(tmp_path / "weights"),
    }
    running = System(database, Files(data_dir), tmp_path, settings)
    yield running
    running.kill()


@pytest.fixture(scope="session")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real film that takes some seconds to read: one clip forty times over, 57,640 frames."""
    path = tmp_path_factory.mktemp("films") / "long.mp4"
    command = [get_ffmpeg_exe(), "-v", "error", "-stream_loop", "39", "-i", str(CLIP), "-an", "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def api(system: System) -> str:
    """A running API; its address."""
    return system.api()


__all__ = ["CLIP", "JobState", "RunState", "System", "events", "finished", "until"]

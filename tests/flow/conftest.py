"""The whole system as single processes: real worker, beat and API processes that a test starts and kills."""

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
from sqlalchemy import Engine

from api.localstack.demo import find_sample_clip
from api.localstack.servers import find_free_port
from shared.queue import publish_wakeups
from shared.storage import ContentStorage
from shared.store import results, workers
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.videos import videos
from shared.values import Job, JobState, Result, RunState, StoredVideo
from tests.support import factories
from worker.video.probe import probe_video

SAMPLE_CLIP = find_sample_clip()
FAST_SETTINGS = {
    "SCENEWORKS_LEASE_S": "3",
    "SCENEWORKS_TOUCH_S": "0.2",
    "SCENEWORKS_SWEEP_S": "0.3",
    "SCENEWORKS_RESEND_S": "1",
    "SCENEWORKS_RETRY_BACKOFF_S": "0.2",
    "SCENEWORKS_CANCEL_GRACE_S": "5",
    "SCENEWORKS_DEVICE": "cpu",
}
PATIENCE_S = 90.0


def wait_until(description: str, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something to become true; the test fails when it does not."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {description}"
        time.sleep(0.05)


@dataclass
class System:
    """Processes on one database, broker and folder."""

    engine: Engine
    files: ContentStorage
    folder: Path
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def full_environment(self) -> dict[str, str]:
        """The environment of its processes."""
        return {**os.environ, **self.environment}

    def start_process(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process; its output goes to a file in the test's folder."""
        with (self.folder / f"process-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**self.full_environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready; by default for `shots` only, which starts fastest."""
        before = {worker.id for worker in workers.list_workers(self.engine)}
        process = self.start_process("worker.main", **{"SCENEWORKS_MODELS": "shots"} | environment)
        wait_until(
            "a worker is ready",
            lambda: [
                worker
                for worker in workers.list_workers(self.engine)
                if worker.id not in before and worker.state in {"ready", "busy"}
            ],
        )
        return process

    def start_beat(self) -> subprocess.Popen[bytes]:
        """Start beat, which sweeps."""
        return self.start_process("celery", "-A", "shared.queue", "beat", "--pidfile=")

    def add_video(self, path: Path) -> StoredVideo:
        """Add a video to the store and to the database."""
        stored = self.files.put_file(path)
        video, _ = videos.add_video(
            self.engine,
            sha256=stored.sha256,
            size=stored.size,
            name=path.name,
            media_type="video/mp4",
            facts=probe_video(path),
        )
        return video

    def submit_job(self, video: StoredVideo, priority: str = "normal", **params: object) -> Job:
        """Create a job for `shots` and send its messages."""
        analyses = (factories.make_analysis(**({"detector": "hsv_luv"} | params)),)
        created = jobs.create_job(self.engine, NewJob(video.id, analyses, priority=priority))
        publish_wakeups(created.wakeups)
        return created.job

    def wait_for_progress(self, job: Job) -> None:
        """Wait until the video is being read."""
        wait_until("the run makes progress", lambda: jobs.get_job(self.engine, job.id).runs[0].fraction > 0.05)

    def wait_for_end(self, job: Job) -> Job:
        """Wait until the job has ended."""
        wait_until("the job ends", lambda: jobs.get_job(self.engine, job.id).state.has_ended)
        return jobs.get_job(self.engine, job.id)

    def list_results(self, job: Job) -> list[Result]:
        """All results of a job."""
        return [row.result for row in results.list_results(self.engine, job.id, limit=100_000)]

    def find_pool_child(self, worker: subprocess.Popen[bytes]) -> int:
        """Id of the process that holds the models of a worker: the largest child."""
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        return max(
            (int(pid) for pid in children), key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        )

    def start_api(self, **environment: str) -> str:
        """Start an API and wait until it answers; return its address."""
        port = find_free_port()
        bind = f"--bind=127.0.0.1:{port}"
        threads = ("--worker-class=gthread", "--threads=8")
        self.start_process("gunicorn", "api.app:create_app()", bind, *threads, **environment)
        url = f"http://127.0.0.1:{port}"

        def is_answering() -> bool:
            try:
                return httpx.get(f"{url}/healthz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until("the API answers", is_answering)
        return url

    def kill_processes(self) -> None:
        """Kill all processes that still run."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_sample_job(client: httpx.Client, *analyses: dict[str, Any]) -> dict[str, Any]:
    """Run a job on the sample clip and return it when it has ended."""
    return run_job(client, SAMPLE_CLIP, *analyses)


def run_job(client: httpx.Client, path: Path, *analyses: dict[str, Any], patience_s: float = 240) -> dict[str, Any]:
    """Run a job on a video and return it when it has ended."""
    uploaded = client.post("/v1/videos", params={"name": path.name}, content=path.read_bytes())
    body = {"video_id": uploaded.raise_for_status().json()["id"], "analyses": analyses}
    job: dict[str, Any] = client.post("/v1/jobs", json=body).raise_for_status().json()
    deadline = time.monotonic() + patience_s
    while job["state"] in {"queued", "running"}:
        assert time.monotonic() < deadline, f"the job has not ended: {job['runs']}"
        job = client.get(job["urls"]["self"], params={"wait": 25}, timeout=40).raise_for_status().json()
    return job


def read_events(folder: Path, action: str) -> list[dict[str, Any]]:
    """Read the events with that action from the logs of all processes."""
    lines = [line for log in sorted(folder.glob("process-*.log")) for line in log.read_text().splitlines()]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in entries if event["action"] == action]


@pytest.fixture
def system(
    environment: None, database: Engine, database_url: str, broker_url: str, data_dir: Path, tmp_path: Path
) -> Iterator[System]:
    """An empty system without processes."""
    settings = {
        **FAST_SETTINGS,
        "DATABASE_URL": database_url,
        "REDIS_URL": broker_url,
        "SCENEWORKS_DATA_DIR": str(data_dir),
        "SCENEWORKS_WEIGHTS_DIR": str(tmp_path / "weights"),
    }
    system = System(database, ContentStorage(data_dir), tmp_path, settings)
    yield system
    system.kill_processes()


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real video that takes some seconds to read: the clip forty times, 57,640 frames."""
    path = tmp_path_factory.mktemp("videos") / "long.mp4"
    command = [
        get_ffmpeg_exe(),
        "-v",
        "error",
        "-stream_loop",
        "39",
        "-i",
        str(SAMPLE_CLIP),
        "-an",
        "-c",
        "copy",
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def api_url(system: System) -> str:
    """A running API; its address."""
    return system.start_api()


__all__ = ["SAMPLE_CLIP", "JobState", "RunState", "System", "read_events", "run_sample_job", "wait_until"]

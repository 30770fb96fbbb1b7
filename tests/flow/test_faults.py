"""Faults around a run: the database crashes, the job is cancelled, the video or the weights are missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.localstack.servers import Postgres
from shared.catalog import CATALOG
from shared.db import create_db_engine, migrate
from shared.store import workers
from shared.store.jobs import jobs
from shared.values import JobState, RunState
from tests.flow.conftest import SAMPLE_CLIP, System, read_events
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A Postgres that may be killed."""
    with Postgres(tmp_path / "postgres") as server:
        migrate(server.url)
        yield server


def test_the_database_crashes_in_the_middle_of_a_run(system: System, long_video: Path, own_postgres: Postgres) -> None:
    system.engine = create_db_engine(own_postgres.url)
    system.environment = {**system.environment, "DATABASE_URL": own_postgres.url, "SCENEWORKS_LEASE_S": "20"}
    system.start_worker()
    system.start_beat()
    job = system.submit_job(system.add_video(long_video))
    system.wait_for_progress(job)
    os.kill(own_postgres.pid, signal.SIGKILL)
    wait_until("the worker has noticed", lambda: read_events(system.folder, "run.lease_not_renewed"))
    own_postgres.stop()
    own_postgres.start()
    ended = system.wait_for_end(job)
    assert (ended.state, ended.runs[0].attempt) == (JobState.SUCCEEDED, 1)
    assert len({shot.seq for shot in system.list_results(job)}) == len(system.list_results(job)) > 100
    system.engine.dispose()


def test_a_cancel_takes_effect_within_seconds_and_the_worker_continues(system: System, long_video: Path) -> None:
    system.start_worker()
    system.start_beat()
    job = system.submit_job(system.add_video(long_video))
    system.wait_for_progress(job)
    jobs.cancel_job(system.engine, job.id)
    wait_until("the run has stopped", lambda: jobs.get_job(system.engine, job.id).state is JobState.CANCELLED, 5)
    other = system.submit_job(system.add_video(SAMPLE_CLIP))
    assert system.wait_for_end(other).state is JobState.SUCCEEDED
    assert system.list_results(job) == []


def test_a_missing_video_fails_its_run_and_no_other(system: System, long_video: Path) -> None:
    system.start_worker()
    missing, present = system.add_video(long_video), system.add_video(SAMPLE_CLIP)
    system.files.remove_file(missing.sha256)
    first, second = system.submit_job(missing), system.submit_job(present)
    failed = system.wait_for_end(first)
    assert failed.error is not None
    assert (failed.error["code"], failed.error["stage"], failed.error["attempt"]) == ("media_corrupt", None, 1)
    assert system.wait_for_end(second).state is JobState.SUCCEEDED


def test_corrupt_weights_are_reported_and_affect_nothing_else(system: System, tmp_path: Path) -> None:
    spec = CATALOG["shots"].weights
    assert spec is not None
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / spec.name).write_bytes(b"x" * spec.size)
    system.start_worker(SCENEWORKS_MODELS="shots")
    [worker] = workers.list_workers(system.engine)
    assert worker.state == "ready"  # one of its detectors needs no weights
    assert worker.models[0]["error"]["code"] == "weights_corrupt"
    video = system.add_video(SAMPLE_CLIP)
    with_weights = system.wait_for_end(system.submit_job(video, detector="transnetv2"))
    assert with_weights.error is not None
    assert with_weights.error["code"] == "weights_corrupt"
    assert spec.how in with_weights.error["detail"]
    assert system.wait_for_end(system.submit_job(video)).state is JobState.SUCCEEDED


def test_a_requested_gpu_that_is_absent_is_refused(system: System) -> None:
    process = system.start_process("worker.main", SCENEWORKS_DEVICE="cuda:97")
    assert process.wait(60) == 2
    assert workers.list_workers(system.engine) == []
    assert "model_unavailable" in (system.folder / "process-0.log").read_text()


def test_a_model_that_is_not_in_the_catalog_is_refused(system: System) -> None:
    process = system.start_process("worker.main", SCENEWORKS_MODELS="shots,nonsense")
    assert process.wait(60) == 2
    assert "nonsense" not in (system.folder / "process-0.log").read_text()
    assert "Models: shots" in (system.folder / "process-0.log").read_text()


def test_an_urgent_job_overtakes_those_that_wait(system: System, long_video: Path) -> None:
    video = system.add_video(long_video)
    waiting = [system.submit_job(video, min_shot_frames=frames) for frames in (20, 21, 22)]
    urgent = system.submit_job(video, min_shot_frames=23, priority="high")
    system.start_worker()
    system.wait_for_end(urgent)
    states = [jobs.get_job(system.engine, job.id).runs[0].state for job in waiting]
    assert RunState.QUEUED in states
    assert states.count(RunState.DONE) <= 1

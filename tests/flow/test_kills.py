"""Real processes, killed in the middle of a run: the job still ends once, with correct results."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from api.localstack.servers import Valkey
from shared.store import workers
from shared.store.jobs import jobs
from shared.values import JobState, RunState
from tests.flow.conftest import System
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow


@pytest.fixture
def long_video_frames(long_video: Path) -> int:
    """Number of frames of the video: the shots of every run must cover all of them."""
    from worker.video.probe import probe_video

    return probe_video(long_video).frames


def _check_shots(system: System, job_id: str, frames: int) -> None:
    """Shots without a gap from the first frame to the last, each once."""
    shots = system.list_results(jobs.get_job(system.engine, job_id))
    bounds = [(shot.range.start.frame, shot.range.end.frame) for shot in shots if shot.range]
    assert [shot.seq for shot in shots] == list(range(len(shots)))
    assert bounds[0][0] == 0
    assert bounds[-1][1] == frames
    assert all(left[1] == right[0] for left, right in pairwise(bounds))
    assert len(bounds) > 100


def _is_reading(system: System, job_id: str, attempt: int) -> bool:
    run = jobs.get_job(system.engine, job_id).runs[0]
    return (run.state, run.attempt) == (RunState.RUNNING, attempt) and any(stage["done"] for stage in run.stages)


def test_the_pool_child_is_killed(system: System, long_video: Path, long_video_frames: int) -> None:
    worker = system.start_worker()
    system.start_beat()
    job = system.submit_job(system.add_video(long_video))
    system.wait_for_progress(job)
    os.kill(system.find_pool_child(worker), signal.SIGKILL)
    job = system.wait_for_end(job)
    assert (job.state, job.runs[0].attempt) == (JobState.SUCCEEDED, 2)
    _check_shots(system, job.id, long_video_frames)


def test_the_whole_worker_is_killed(system: System, long_video: Path, long_video_frames: int) -> None:
    worker = system.start_worker()
    system.start_beat()
    job = system.submit_job(system.add_video(long_video))
    system.wait_for_progress(job)
    os.killpg(worker.pid, signal.SIGKILL)
    system.start_worker()
    job = system.wait_for_end(job)
    assert (job.state, job.runs[0].attempt) == (JobState.SUCCEEDED, 2)
    _check_shots(system, job.id, long_video_frames)


def test_a_stopped_worker_returns_its_run_to_the_queue(
    system: System, long_video: Path, long_video_frames: int
) -> None:
    worker = system.start_worker()
    job = system.submit_job(system.add_video(long_video))
    system.wait_for_progress(job)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert jobs.get_job(system.engine, job.id).runs[0].state is RunState.QUEUED
    assert workers.list_workers(system.engine) == []
    system.start_worker()  # no beat: the message was sent when the run returned to the queue
    job = system.wait_for_end(job)
    assert (job.state, job.runs[0].attempt) == (JobState.SUCCEEDED, 1)
    _check_shots(system, job.id, long_video_frames)


def test_a_worker_frozen_beyond_its_lease_is_fenced(system: System, long_video: Path, long_video_frames: int) -> None:
    frozen = system.start_worker()
    job = system.submit_job(system.add_video(long_video))
    system.wait_for_progress(job)
    child = system.find_pool_child(frozen)
    os.kill(child, signal.SIGSTOP)
    os.kill(frozen.pid, signal.SIGSTOP)
    system.start_worker()
    system.start_beat()
    wait_until("another worker took over", lambda: jobs.get_job(system.engine, job.id).runs[0].attempt == 2)
    os.kill(frozen.pid, signal.SIGCONT)
    os.kill(child, signal.SIGCONT)
    job = system.wait_for_end(job)
    assert (job.state, job.runs[0].attempt) == (JobState.SUCCEEDED, 2)
    _check_shots(system, job.id, long_video_frames)


def test_a_run_that_kills_its_worker_every_time_fails(system: System, long_video: Path) -> None:
    worker = system.start_worker()
    system.start_beat()
    job = system.submit_job(system.add_video(long_video))
    for attempt in (1, 2, 3):
        wait_until("the next attempt runs", lambda: _is_reading(system, job.id, attempt))  # noqa: B023
        os.kill(system.find_pool_child(worker), signal.SIGKILL)
    job = system.wait_for_end(job)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["attempt"]) == ("poison_run", 3)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A broker that may be killed."""
    with Valkey(tmp_path / "valkey") as server:
        yield server


def test_the_broker_is_killed_in_the_middle_of_a_run(
    system: System, long_video: Path, long_video_frames: int, own_valkey: Valkey
) -> None:
    system.environment = {**system.environment, "REDIS_URL": own_valkey.url}
    system.start_worker()
    system.start_beat()
    video = system.add_video(long_video)
    first = system.submit_job(video)  # its message goes to another broker: only the sweep can send it
    system.wait_for_progress(first)
    os.kill(own_valkey.pid, signal.SIGKILL)
    wait_until("the broker is dead", lambda: not own_valkey.is_alive())
    second = system.submit_job(video, min_shot_frames=16)
    own_valkey.stop()
    own_valkey.start()
    for job in (first, second):
        ended = system.wait_for_end(job)
        assert (ended.state, ended.runs[0].attempt) == (JobState.SUCCEEDED, 1)
        _check_shots(system, job.id, long_video_frames)


def test_every_message_is_lost(system: System, long_video: Path, broker_url: str) -> None:
    video = system.add_video(long_video)
    job = system.submit_job(video)
    with redis.Redis.from_url(broker_url) as broker:
        broker.flushdb()
    system.start_worker()
    system.start_beat()
    assert system.wait_for_end(job).state is JobState.SUCCEEDED

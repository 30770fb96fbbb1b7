"""The heartbeat of a run on a real database: leases, reasons to stop, and the kill of a run that does not stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from shared.db import create_db_engine
from shared.errors import DeadlineExceeded
from shared.settings import Settings
from shared.store import workers
from shared.store.jobs import jobs
from shared.store.runs.runs import Claim
from shared.values import Job, Progress, Stage
from tests.support import factories
from worker.tasks.heartbeat import Heartbeat, RunInterrupted, StopReason

REPOSITORY = Path(__file__).resolve().parents[3]
WORKER_ID = "worker-1"
PATIENCE_S = 30
ENDLESS_RUN = """
import sys, threading
from shared.db import get_engine
from shared.settings import get_settings
from tests.support import factories
from worker.tasks.heartbeat import Heartbeat
claim = factories.claim_run(get_engine(), sys.argv[1])
with Heartbeat(get_engine(), claim, get_settings()):
    print("claimed", flush=True)
    threading.Event().wait()
"""
"""A run that neither makes progress nor stops."""


class BeatSignal:
    """Counts the commits of the heartbeat thread, so that tests wait for beats and not for time to pass."""

    def __init__(self, engine: Engine) -> None:
        self._commits = threading.Semaphore(0)
        event.listen(engine, "commit", self._on_commit)

    def _on_commit(self, _connection: object) -> None:
        if threading.current_thread().name == "heartbeat":
            self._commits.release()

    def wait_for_beat(self) -> None:
        """Wait until a beat that begins after this call has been processed."""
        while self._commits.acquire(blocking=False):
            pass
        # The event comes before the commit, and the reply is processed after it: the third commit from now can only
        # follow a whole beat.
        for _ in range(3):
            assert self._commits.acquire(timeout=PATIENCE_S), "the heartbeat has stopped"


@pytest.fixture
def job(database: Engine) -> Job:
    return factories.create_job(database)


@pytest.fixture
def claim(database: Engine, job: Job) -> Claim:
    claim = factories.claim_run(database, job.runs[0].id, owner=WORKER_ID)
    assert claim is not None
    return claim


@pytest.fixture
def beats(database: Engine) -> BeatSignal:
    return BeatSignal(database)


@pytest.fixture
def heartbeat(database: Engine, claim: Claim, beats: BeatSignal) -> Iterator[Heartbeat]:
    """A heartbeat that is running."""
    with Heartbeat(database, claim, Settings(touch_s=0.01)) as heartbeat:
        yield heartbeat


def read_run(database: Engine, claim: Claim) -> Any:
    statement = text("SELECT lease_until, fraction, stages FROM runs WHERE id = :id")
    with database.connect() as connection:
        return connection.execute(statement, {"id": claim.run_id}).one()


def stop_reason(heartbeat: Heartbeat) -> StopReason:
    """The reason with which the next progress report is interrupted."""
    with pytest.raises(RunInterrupted) as interruption:
        heartbeat.report_progress(Progress())
    return interruption.value.reason


def test_it_renews_the_lease_and_stores_progress(
    database: Engine, claim: Claim, heartbeat: Heartbeat, beats: BeatSignal
) -> None:
    before = read_run(database, claim)
    heartbeat.report_progress(Progress((Stage("encode", "running", done=3, of=10, unit="frame"),), 0.25))
    beats.wait_for_beat()
    after = read_run(database, claim)
    assert after.lease_until > before.lease_until
    assert (after.fraction, after.stages[0]["done"]) == (0.25, 3)
    assert heartbeat.current_stage == "encode"


def test_the_clock_of_the_running_stage_moves_between_reports(
    database: Engine, claim: Claim, heartbeat: Heartbeat, beats: BeatSignal
) -> None:
    heartbeat.report_progress(Progress((Stage("encode", "running", seconds=5.0),), 0.25))
    beats.wait_for_beat()
    first = read_run(database, claim).stages[0]["seconds"]
    beats.wait_for_beat()
    assert 5.0 < first < read_run(database, claim).stages[0]["seconds"]


def test_a_cancel_interrupts_the_run(database: Engine, job: Job, heartbeat: Heartbeat, beats: BeatSignal) -> None:
    jobs.cancel_job(database, job.id)
    beats.wait_for_beat()
    assert stop_reason(heartbeat) is StopReason.CANCELLED


def test_a_new_job_for_the_run_withdraws_the_cancel(
    database: Engine, job: Job, heartbeat: Heartbeat, beats: BeatSignal
) -> None:
    jobs.cancel_job(database, job.id)
    beats.wait_for_beat()
    again = factories.create_job(database, job.video_id)
    assert again.runs[0].id == job.runs[0].id
    beats.wait_for_beat()
    heartbeat.report_progress(Progress())


def test_a_stopping_worker_interrupts_the_run(database: Engine, heartbeat: Heartbeat, beats: BeatSignal) -> None:
    workers.announce_worker(database, WORKER_ID, state="busy", reason=None, models=[], device="cpu", precision="fp32")
    workers.request_stop(database, WORKER_ID)
    beats.wait_for_beat()
    assert stop_reason(heartbeat) is StopReason.STOPPING


def test_a_newer_claim_fences_the_run(database: Engine, claim: Claim, heartbeat: Heartbeat, beats: BeatSignal) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE runs SET fence = fence + 1 WHERE id = :id"), {"id": claim.run_id})
    beats.wait_for_beat()
    assert stop_reason(heartbeat) is StopReason.FENCED


def test_without_the_database_the_run_continues_until_its_lease_has_expired(claim: Claim) -> None:
    with beat_without_database(claim, lease_s=3600) as heartbeat:
        heartbeat.report_progress(Progress())
    with beat_without_database(claim, lease_s=0.001) as heartbeat:
        assert stop_reason(heartbeat) is StopReason.FENCED


@contextmanager
def beat_without_database(claim: Claim, lease_s: float) -> Iterator[Heartbeat]:
    """A heartbeat whose first attempts to reach the database have failed."""
    unreachable = create_db_engine("postgresql://nobody@127.0.0.1:1/nothing")
    attempts = threading.Semaphore(0)
    event.listen(unreachable, "do_connect", lambda *_: attempts.release())
    with Heartbeat(unreachable, claim, Settings(touch_s=0.01, lease_s=lease_s)) as heartbeat:
        for _ in range(3):
            assert attempts.acquire(timeout=PATIENCE_S)
        yield heartbeat


def test_a_run_beyond_its_deadline_fails(database: Engine, claim: Claim) -> None:
    heartbeat = Heartbeat(database, claim, Settings(run_deadline_s=1e-9))
    with pytest.raises(DeadlineExceeded, match="longer than"):
        heartbeat.report_progress(Progress())


def start_endless_run(database: Engine, job: Job, **settings: str) -> subprocess.Popen[str]:
    """Claim the run in a process of its own that never reports progress."""
    env = os.environ | {
        "DATABASE_URL": database.url.render_as_string(hide_password=False).replace("+psycopg", ""),
        "SCENEWORKS_TOUCH_S": "0.05",
        **settings,
    }
    command = [sys.executable, "-c", ENDLESS_RUN, job.runs[0].id]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def test_a_run_without_progress_is_killed_and_can_be_claimed_at_once(database: Engine, job: Job) -> None:
    with start_endless_run(database, job, SCENEWORKS_STALL_S="0.1") as process:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    assert claim.attempt == 2


def test_a_run_that_ignores_a_cancel_is_killed(database: Engine, job: Job) -> None:
    with start_endless_run(database, job, SCENEWORKS_CANCEL_GRACE_S="0.1") as process:
        assert process.poll() is None
        jobs.cancel_job(database, job.id)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL

"""With ten thousand queued runs of a batch: who waits in person comes first; `-s` shows what looking at it costs."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from shared import beat, queue
from shared.store.jobs import jobs
from shared.store.runs import sweep
from shared.values import Job
from shared.values.batches import Workload
from tests.api.conftest import app, client, make_app
from tests.support import factories

__all__ = ["app", "client", "make_app"]
pytestmark = [pytest.mark.slow, pytest.mark.flow]

FILMS = 10_000
PARAMS = factories.make_analysis().params.model_dump(mode="json")
FILL = """
    INSERT INTO videos (id, sha256, size, name, media_type, probe)
    SELECT 'vid_' || n, encode(sha256(n::text::bytea), 'hex'), 1000, n || '.mp4', 'video/mp4', CAST(:probe AS jsonb)
    FROM generate_series(1, :films) n;
    INSERT INTO batches (id, name, kind, work, priority, fed_at)
    VALUES ('bat_1', 'archive', 'batch', CAST(:work AS jsonb), 0, now());
    INSERT INTO jobs (id, video_id, priority, labels, key_scope, request_sha256, created_at)
    SELECT 'job_' || n, 'vid_' || n, 0, '{}', '', '', now() + n * interval '1 ms' FROM generate_series(1, :films) n;
    INSERT INTO runs (id, video_id, model, params, key, encode_key, state, priority, max_attempts, created_at)
    SELECT 'run_' || n, 'vid_' || n, 'shots', CAST(:params AS jsonb), 'key ' || n, '', 'queued', 0, 3,
           now() + n * interval '1 ms' FROM generate_series(1, :films) n;
    INSERT INTO job_runs (job_id, run_id, position, asked, reused)
    SELECT 'job_' || n, 'run_' || n, 0, true, false FROM generate_series(1, :films) n;
    INSERT INTO batch_items (batch_id, position, video_id, job_id, started_at)
    SELECT 'bat_1', n - 1, 'vid_' || n, 'job_' || n, now() FROM generate_series(1, :films) n;
"""


@pytest.fixture
def crowd(environment: None, database: Engine) -> None:
    """A batch whose films all have a queued run, none of them sent yet."""
    given = {
        "films": FILMS,
        "probe": json.dumps(factories.make_video().to_dict()),
        "params": json.dumps(PARAMS),
        "work": json.dumps(Workload((("shots", PARAMS),), cap=None).to_dict()),
    }
    with database.begin() as connection:
        for statement in FILL.split(";")[:-1]:
            connection.execute(text(statement), given)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def median_ms(what: Callable[[], Any], times: int = 15) -> float:
    """The best of three medians: whatever else runs on the machine only adds to it."""
    return min(statistics.median(spent_ms(what) for _ in range(times)) for _ in range(3))


def spent_ms(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def test_what_people_look_at_is_shown(crowd: None, client: FlaskClient, database: Engine) -> None:
    """What it costs is measured, not judged: medians in milliseconds, shown by `pytest -s`."""
    waiting = iter([f"run_{number}" for number in range(1, FILMS)])
    told = {
        "GET /v1/jobs": median_ms(lambda: client.get("/v1/jobs")),
        "GET /v1/jobs?state=running,failed": median_ms(lambda: client.get("/v1/jobs?state=running,failed")),
        "GET /v1/queues": median_ms(lambda: client.get("/v1/queues")),
        "GET /operator": median_ms(lambda: client.get("/operator")),
        "a claim": median_ms(lambda: factories.claim_run(database, next(waiting))),
        "what a sweep frees": median_ms(lambda: sweep.free_expired_runs(database)),
        "a tick of archives": median_ms(beat.run_schedules_and_batches),
    }
    assert client.get("/operator").status_code == 200
    sys.stdout.write("".join(f"\n{name}: {spent:.1f} ms" for name, spent in told.items()))


def test_an_interactive_job_starts_next(crowd: None, database: Engine) -> None:
    """The message behind ten thousand others is the next that a worker takes."""
    while wakes := sweep.take_runs_to_send(
        database, queue.read_queue_depths(), sweep.count_expected_messages(database), resend_s=60
    ):
        assert queue.publish_wakeups(wakes)
    assert queue.read_queue_depths()["shots"] == FILMS
    swept = median_ms(beat.sweep_runs)
    sys.stdout.write(f"\na sweep: {swept:.1f} ms")
    job = submitted(database)
    with queue.app.connection_for_read() as connection, connection.SimpleQueue("shots") as messages:
        message = messages.get(timeout=5)
        message.reject(requeue=True)
    assert message.payload[0] == [job.runs[0].id]


def submitted(database: Engine) -> Job:
    """A job of a person, whose doorbell has rung."""
    created = jobs.create_job(database, jobs.NewJob(factories.add_video(database).id, (factories.make_analysis(),)))
    assert queue.publish_wakeups(created.wakeups)
    return created.job

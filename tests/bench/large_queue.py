"""`python -m tests.bench queue`: what the API, a claim and beat cost while a batch has thousands of queued runs.

On a Postgres and a Valkey of its own. At the end it checks that the job of a person is the next one that a worker gets.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from sqlalchemy import Engine, text

from api.localstack.servers import Postgres, Valkey
from shared.db import create_db_engine, migrate
from shared.settings import Settings, get_settings
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.runs import sweep
from shared.values.batches import Workload
from tests.support import factories

DEFAULT_VIDEOS = 10_000
ROUNDS, REPETITIONS = 3, 15
"""Medians that are taken, and calls for each of them."""

INSERT_BATCH = """
    INSERT INTO videos (id, sha256, size, name, media_type, probe)
    SELECT 'vid_' || n, encode(sha256(n::text::bytea), 'hex'), 1000, n || '.mp4', 'video/mp4', CAST(:probe AS jsonb)
    FROM generate_series(1, :videos) n;
    INSERT INTO batches (id, name, kind, work, priority, fed_at)
    VALUES ('bat_1', 'large', 'batch', CAST(:work AS jsonb), 0, now());
    INSERT INTO jobs (id, video_id, priority, labels, key_scope, request_sha256, created_at)
    SELECT 'job_' || n, 'vid_' || n, 0, '{}', '', '', now() + n * interval '1 ms' FROM generate_series(1, :videos) n;
    INSERT INTO runs (id, video_id, model, params, key, encode_key, state, priority, max_attempts, created_at)
    SELECT 'run_' || n, 'vid_' || n, 'shots', CAST(:params AS jsonb), 'key ' || n, '', 'queued', 0, 3,
           now() + n * interval '1 ms' FROM generate_series(1, :videos) n;
    INSERT INTO job_runs (job_id, run_id, position, asked, reused)
    SELECT 'job_' || n, 'run_' || n, 0, true, false FROM generate_series(1, :videos) n;
    INSERT INTO batch_items (batch_id, position, video_id, job_id, started_at)
    SELECT 'bat_1', n - 1, 'vid_' || n, 'job_' || n, now() FROM generate_series(1, :videos) n;
"""
"""A batch whose videos all have a queued run, none of them sent to the broker yet."""


def bench_large_queue(video_count: int) -> None:
    """Measure and print medians in milliseconds.

    Args:
        video_count: videos in the batch, each with a queued run.
    """
    with _open_servers() as engine:
        _insert_batch(engine, video_count)
        typer.echo(f"{video_count} queued runs; medians in ms\n")
        for name, milliseconds in _measure_reads(engine, video_count):
            typer.echo(f"{name:40} {milliseconds:8.1f}")
        _check_priority(engine, video_count)


@contextmanager
def _open_servers() -> Iterator[Engine]:
    """Start servers for this process, and let its settings point at them."""
    with (
        TemporaryDirectory(prefix="sceneworks-bench-") as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
        Valkey(Path(folder) / "valkey", durable=False) as valkey,
    ):
        migrate(postgres.url)
        # Before anything imports shared.queue: Celery's app reads the address of the broker when it is imported.
        os.environ |= {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "SCENEWORKS_DATA_DIR": str(Path(folder) / "files"),
        }
        get_settings.cache_clear()
        engine = create_db_engine(postgres.url)
        yield engine
        engine.dispose()


def _insert_batch(engine: Engine, video_count: int) -> None:
    params = factories.make_analysis().params.model_dump(mode="json")
    values = {
        "videos": video_count,
        "probe": json.dumps(factories.make_video().to_dict()),
        "params": json.dumps(params),
        "work": json.dumps(Workload((("shots", params),), cap=None).to_dict()),
    }
    with engine.begin() as connection:
        for statement in INSERT_BATCH.split(";")[:-1]:
            connection.execute(text(statement), values)
    # Without statistics the planner would take the tables for empty and choose other plans than in production.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _measure_reads(engine: Engine, video_count: int) -> Iterator[tuple[str, float]]:
    """Yield (name, median in milliseconds) of what people and workers wait for."""
    from api.app import create_app
    from shared import beat

    client = create_app(Settings()).test_client()
    for path in ("/v1/jobs", "/v1/jobs?state=running,failed", "/v1/queues", "/operator"):
        if client.get(path).status_code != 200:
            raise RuntimeError(f"{path} cannot be measured: it answers with an error")
        yield f"GET {path}", _median_ms(lambda path=path: client.get(path))  # type: ignore[misc]
    run_ids = iter([f"run_{number}" for number in range(1, video_count + 1)])
    yield "claim of a run", _median_ms(lambda: factories.claim_run(engine, next(run_ids, "run_1")))
    yield "free expired runs", _median_ms(lambda: sweep.free_expired_runs(engine))
    yield "run schedules and batches", _median_ms(beat.run_schedules_and_batches)


def _check_priority(engine: Engine, video_count: int) -> None:
    """Send all runs, then check that the message of a new job with normal priority is delivered first."""
    from shared import beat, queue

    while wakeups := sweep.take_runs_to_send(
        engine, queue.read_queue_depths(), sweep.count_expected_messages(engine), resend_s=60
    ):
        queue.publish_wakeups(wakeups)
    typer.echo(f"{'sweep':40} {_median_ms(beat.sweep_runs):8.1f}")
    new_job = NewJob(factories.add_video(engine).id, (factories.make_analysis(),))
    created = jobs.create_job(engine, new_job)
    queue.publish_wakeups(created.wakeups)
    depth = queue.read_queue_depths()["shots"]
    with queue.app.connection_for_read() as connection, connection.SimpleQueue("shots") as messages:
        run_id = messages.get(timeout=5).payload[0][0]
    is_next = run_id == created.job.runs[0].id
    typer.echo(f"\n{depth} messages of {video_count} runs and one job; the job is next: {'yes' if is_next else 'NO'}")


def _median_ms(call: Callable[[], Any]) -> float:
    """Least of several medians: other load on the machine only adds to the time."""
    return min(statistics.median(_time_ms(call) for _ in range(REPETITIONS)) for _ in range(ROUNDS))


def _time_ms(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000

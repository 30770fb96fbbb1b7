"""One run from claim to finish in this process, on a real database, broker and store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from shared.errors import Internal
from shared.settings import Settings
from shared.storage import ContentStorage
from shared.store import results
from shared.store.jobs import jobs
from shared.store.videos import videos
from shared.values import Job, RunState
from tests.support import factories
from tests.support.sample_videos import make_plain
from worker.tasks.host import ModelHost
from worker.tasks.run import process_run
from worker.video.probe import probe_video


@pytest.fixture
def host(environment: None, database: Engine, data_dir: Path, tmp_path: Path) -> Iterator[ModelHost]:
    config = Settings(models="shots", device="cpu", data_dir=data_dir, weights_dir=tmp_path / "weights")
    host = ModelHost(config, database)
    host.start_serving()
    yield host
    host.stop_presence()


@pytest.fixture
def job(database: Engine, files: ContentStorage, tmp_path: Path) -> Job:
    """A job for `shots` without a network, on a video of two seconds."""
    path = tmp_path / "plain.mp4"
    make_plain(path)
    stored = files.put_file(path)
    video, _ = videos.add_video(
        database,
        sha256=stored.sha256,
        size=stored.size,
        name=path.name,
        media_type="video/mp4",
        facts=probe_video(path),
    )
    return factories.create_job(database, video.id, analyses=(factories.make_analysis(detector="hsv_luv"),))


def read_weights(database: Engine, job: Job) -> str | None:
    """Fingerprint in the row of the run."""
    with database.connect() as connection:
        statement = text("SELECT weights FROM runs WHERE id = :id")
        return connection.execute(statement, {"id": job.runs[0].id}).scalar_one()


def test_a_run_is_done_once_and_records_no_weights_that_it_did_not_use(
    host: ModelHost, database: Engine, job: Job
) -> None:
    process_run(host, job.runs[0].id)
    process_run(host, job.runs[0].id)  # a duplicate message
    (run,) = jobs.get_job(database, job.id).runs
    assert (run.state, run.attempt) == (RunState.DONE, 1)
    rows = [row.result for row in results.list_results(database, job.id, limit=100)]
    assert {row.kind for row in rows} == {"shot"}
    assert read_weights(database, job) is None


def test_a_run_planned_with_replaced_weights_fails_before_it_reads_the_video(
    host: ModelHost, database: Engine, job: Job
) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE runs SET weights = 'replaced'"))
    process_run(host, job.runs[0].id)
    (run,) = jobs.get_job(database, job.id).runs
    assert run.error is not None
    assert (run.error["code"], run.error["stage"]) == ("weights_missing", None)


def test_a_host_that_failed_to_start_claims_nothing(host: ModelHost, database: Engine, job: Job) -> None:
    host.setup_failure = Internal("no model can be served")
    process_run(host, job.runs[0].id)
    (run,) = jobs.get_job(database, job.id).runs
    assert (run.state, run.attempt) == (RunState.QUEUED, 0)

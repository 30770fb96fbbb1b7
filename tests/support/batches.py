"""Archives over HTTP: videos in the database, and what beat and workers would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from shared.errors import OutOfMemory
from shared.store import workers
from shared.store.batches import batches
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.runs import runs
from shared.values import Progress, Result, Stage, WakeUp
from tests.support import factories

SHOTS_ANALYSES = [{"model": "shots"}]
HSV_LUV_ANALYSES = [{"model": "shots", "params": {"detector": "hsv_luv"}}]
UNKNOWN_BATCH = "bat_none"


def dispatch_batch(database: Engine, batch_id: str) -> list[WakeUp]:
    """One tick of beat."""
    return batches.dispatch_jobs(database, batch_id, datetime.now(UTC), 1)


def finish_runs(
    database: Engine, wakes: Sequence[WakeUp], results: Sequence[Result] = (), *, failed: bool = False
) -> None:
    """What a worker does with each run: it finds these, or runs out of memory."""
    for wake in wakes:
        claim = factories.claim_run(database, wake.run_id)
        assert claim is not None
        if failed:
            problem = OutOfMemory("too large").to_problem()
            assert runs.fail_run(database, claim, problem, retry=False, backoff_s=0)
        else:
            stages = (Stage("encode", "done", 240, 240, "frame", 5.0),)
            runs.finish_run(
                database, claim, progress=Progress(stages, 1.0), decode_failures=0, results=results, artifacts=[]
            )  # fmt: skip


def add_videos(database: Engine, count: int) -> list[str]:
    """Ids of videos whose bytes are nowhere."""
    return [factories.add_video(database).id for _ in range(count)]


def add_shots_run(database: Engine, video_id: str, *bounds: tuple[int, int], detector: str = "transnetv2") -> str:
    """A finished run of `shots` that found these; its id."""
    analysis = factories.make_analysis(detector=detector, min_shot_frames=len(bounds) + 1)
    created = jobs.create_job(database, NewJob(video_id, (analysis,)))
    finish_runs(database, created.wakeups, factories.make_shots(*bounds) if bounds else ())
    return created.job.runs[0].id


def read_fault(answer: TestResponse) -> tuple[int, str, str, str]:
    """Status, code, and place and code of the first fault."""
    assert answer.mimetype == "application/problem+json", answer.text
    first = (answer.json.get("errors") or [{"pointer": "", "code": ""}])[0]
    return answer.status_code, answer.json["code"], first["pointer"], first["code"]


CreateBatch = Callable[..., Any]


@pytest.fixture
def create_batch(client: FlaskClient) -> CreateBatch:
    """Ask for a batch of `shots` on everything, or what is said; the answer's record."""

    def post_batch(**body: Any) -> Any:
        answer = client.post("/v1/batches", json={"analyses": SHOTS_ANALYSES} | body)
        assert answer.status_code == 202, answer.text
        return answer.json

    return post_batch


def announce_without_weights(database: Engine, model: str = "shots") -> None:
    """A worker is live that has no weights for the model."""
    problem = {"code": "weights_missing", "detail": "There is no weights file."}
    serves = [{"model": model, "weights": None, "error": problem}]
    workers.announce_worker(database, "w", state="ready", reason=None, models=serves, device="cpu", precision="fp32")

"""Archives over HTTP: films in the ledger, and what beat and workers would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from shared.errors import OutOfMemory
from shared.store import jobs, runs, workers
from shared.store.archive import batches
from shared.store.jobs import NewJob
from shared.values import Progress, Result, Stage, Wake
from tests import factories

SHOTS = [{"model": "shots"}]
COLOURS = [{"model": "shots", "params": {"detector": "hsv_luv"}}]
NO_SUCH = "bat_none"


def feed(database: Engine, batch_id: str) -> list[Wake]:
    """One tick of beat."""
    return batches.feed(database, batch_id, datetime.now(UTC), 1)


def end(database: Engine, wakes: Sequence[Wake], found: Sequence[Result] = (), *, failed: bool = False) -> None:
    """What a worker does with each run: it finds these, or runs out of memory."""
    for wake in wakes:
        claim = factories.claim(database, wake.run_id)
        assert claim is not None
        if failed:
            problem = OutOfMemory("too large").problem()
            assert runs.fail(database, claim, problem, retry=False, backoff_s=0)
        else:
            stages = (Stage("encode", "done", 240, 240, "frame", 5.0),)
            runs.finish(
                database, claim, progress=Progress(stages, 1.0), decode_failures=0, results=found, artifacts=[]
            )  # fmt: skip


def films(database: Engine, count: int) -> list[str]:
    """Ids of videos whose bytes are nowhere."""
    return [factories.stored(database).id for _ in range(count)]


def shots_of(database: Engine, video_id: str, *bounds: tuple[int, int], detector: str = "transnetv2") -> str:
    """A finished run of `shots` that found these; its id."""
    asked = factories.analysis(detector=detector, min_shot_frames=len(bounds) + 1)
    made = jobs.create(database, NewJob(video_id, (asked,)))
    end(database, made.wakes, factories.shots(*bounds) if bounds else ())
    return made.job.runs[0].id


def fault(answer: TestResponse) -> tuple[int, str, str, str]:
    """Status, code, and place and code of the first fault."""
    assert answer.mimetype == "application/problem+json", answer.text
    first = (answer.json.get("errors") or [{"pointer": "", "code": ""}])[0]
    return answer.status_code, answer.json["code"], first["pointer"], first["code"]


Post = Callable[..., Any]


@pytest.fixture
def batch(client: FlaskClient) -> Post:
    """Ask for a batch of `shots` on everything, or what is said; the answer's record."""

    def post(**body: Any) -> Any:
        answer = client.post("/v1/batches", json={"analyses": SHOTS} | body)
        assert answer.status_code == 202, answer.text
        return answer.json

    return post


def no_weights(database: Engine, model: str = "shots") -> None:
    """A worker is live that has no weights for the model."""
    problem = {"code": "weights_missing", "detail": "There is no weights file."}
    serves = [{"model": model, "weights": None, "error": problem}]
    workers.announce(database, "w", state="ready", reason=None, models=serves, device="cpu", precision="fp32")

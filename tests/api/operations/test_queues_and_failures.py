"""What operators do over HTTP: queues paused, drained and opened; failures by code and model, and trying them again."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.operations import service
from shared.catalog import CATALOG
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from tests.support import factories
from tests.support.batches import add_videos, finish_runs, read_fault


def put(client: FlaskClient, model: str, mode: Any) -> Any:
    return client.put(f"/v1/queues/{model}", json={"mode": mode})


def test_queues(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database)
    told = client.get("/v1/queues").json["items"]
    assert [queue["model"] for queue in told] == list(CATALOG)
    assert (told[0]["mode"], told[0]["depth"], told[0]["running"], told[0]["since"]) == ("open", 1, 0, None)
    assert told[0]["oldest_at"] == client.get(f"/v1/jobs/{job.id}").json["runs"][0]["created_at"]
    paused = put(client, "shots", "paused").json
    assert (paused["mode"], paused["since"] is not None) == ("paused", True)
    assert factories.claim_run(database, job.runs[0].id) is None
    assert put(client, "shots", "paused").json == paused  # since then
    assert put(client, "shots", "draining").json["mode"] == "draining"
    assert factories.claim_run(database, job.runs[0].id) is not None
    running = put(client, "shots", "open").json
    assert (running["mode"], running["running"], running["depth"], running["wait_s"] >= 0) == ("open", 1, 0, True)
    assert read_fault(put(client, "shots", "shut")) == (400, "invalid_request", "/mode", "literal_error")
    assert read_fault(put(client, "no", "open"))[:2] == (404, "not_found")


def failed(database: Engine, count: int) -> list[str]:
    """Jobs whose run failed."""
    made = [
        jobs.create_job(database, NewJob(video, (factories.make_analysis(),))) for video in add_videos(database, count)
    ]
    for one in made:
        finish_runs(database, one.wakeups, failed=True)
    return [one.job.id for one in made]


def test_failures_by_code_and_model_and_tried_again(client: FlaskClient, database: Engine) -> None:
    assert client.get("/v1/failures").json == {"items": []}
    ids = failed(database, 3)
    jobs.delete_job(database, ids.pop())  # nobody stands failed by that one
    (group,) = client.get("/v1/failures").json["items"]
    assert (group["code"], group["model"], group["runs"], group["detail"]) == ("out_of_memory", "shots", 2, "too large")
    assert group["run_ids"] == [jobs.get_job(database, job_id).runs[0].id for job_id in ids[::-1]]
    assert group["newest_at"] >= group["oldest_at"]
    other = {"code": "worker_lost", "model": "shots"}
    assert client.post("/v1/failures/retry", json=other).json == {"jobs": 0, "runs": 0, "left": 0}
    answer = client.post("/v1/failures/retry", json={"code": "out_of_memory", "model": "shots"})
    assert (answer.status_code, answer.json) == (202, {"jobs": 2, "runs": 2, "left": 0})
    assert [jobs.get_job(database, job_id).state.value for job_id in ids] == ["queued", "queued"]
    assert client.get("/v1/failures").json == {"items": []}
    for body, pointer, code in (
        ({"code": "no", "model": "shots"}, "/code", "unknown_code"),
        ({"code": "internal", "model": "no"}, "/model", "unknown_model"),
        ({"code": "internal"}, "/model", "missing"),
    ):
        told = read_fault(client.post("/v1/failures/retry", json=body))
        assert told == (400, "invalid_request", pointer, code)
    put(client, "shots", "draining")
    drained = client.post("/v1/failures/retry", json={"code": "out_of_memory", "model": "shots"})
    assert read_fault(drained)[:2] == (503, "model_unavailable")


def test_many_failures_in_chunks(client: FlaskClient, database: Engine, monkeypatch: Any) -> None:
    monkeypatch.setattr(service, "CHUNK_JOBS", 2)
    failed(database, 5)
    body = {"code": "out_of_memory", "model": "shots"}
    monkeypatch.setattr(service, "BUDGET_S", -1.0)
    assert client.post("/v1/failures/retry", json=body).json == {"jobs": 2, "runs": 2, "left": 3}
    monkeypatch.setattr(service, "BUDGET_S", 10.0)
    assert client.post("/v1/failures/retry", json=body).json == {"jobs": 3, "runs": 3, "left": 0}

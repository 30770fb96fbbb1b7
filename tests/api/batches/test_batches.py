"""Batches and reprocessing over HTTP: checked whole, made once, followed, paused, cancelled, tried again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.http.long_poll import MAX_WAIT_S
from shared.store.batches import batches
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.runs import queues
from tests.support import factories
from tests.support.batches import (
    HSV_LUV_ANALYSES,
    SHOTS_ANALYSES,
    CreateBatch,
    add_videos,
    announce_without_weights,
    dispatch_batch,
    finish_runs,
    read_fault,
)
from tests.support.statements import statements_of
from tests.support.waiting import wait_until

BAD = (400, "invalid_request")
FAULTS: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"analyses": []}, "/analyses", "too_short"),
    ({"analyses": [{"model": "no"}]}, "/analyses/0/model", "unknown_model"),
    ({"analyses": [{"model": "shots", "params": {"no": 1}}]}, "/analyses/0/params/no", "unknown_parameter"),
    ({"analyses": [{"model": "shots", "range": {"start_s": 1}}]}, "/analyses/0/range", "no_range"),
    ({"selection": {"only": "old"}}, "/selection/only", "literal_error"),
    ({"selection": {"code": "internal"}}, "/selection/code", "not_failed"),
    ({"selection": {"only": "failed", "code": "no"}}, "/selection/code", "unknown_code"),
    ({"selection": {"source": ["src_1"]}}, "/selection/source", "unknown_field"),
    ({"priority": "urgent"}, "/priority", "literal_error"),
    ({"cap": 0}, "/cap", "greater_than_equal"),
    ({"hours": {"since": "24:00", "until": "06:00"}}, "/hours/since", "string_pattern_mismatch"),
    ({"hours": {"since": "06:00", "until": "06:00"}}, "/hours", "empty"),
    ({"hours": {"since": "22:00", "until": "06:00", "timezone": "Mars/Base"}}, "/hours/timezone", "unknown_timezone"),
    ({"labels": {"show": 7}}, "/labels/show", "string_type"),
    ({"name": ""}, "/name", "string_too_short"),
    ({"external_id": "x"}, "/external_id", "unknown_field"),
)


def test_a_batch(client: FlaskClient, database: Engine) -> None:
    ids = add_videos(database, 3)
    body = {
        "analyses": HSV_LUV_ANALYSES, "name": "the archive", "selection": {"videos": ids[:2]}, "cap": 1,
        "labels": {"show": "x"},
        "hours": {"since": "00:00", "until": "23:59", "timezone": "Europe/Berlin"},
    }  # fmt: skip
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 202
    batch = answer.json
    assert (batch["name"], batch["kind"], batch["state"], batch["priority"], batch["cap"], batch["videos"]) == (
        "the archive", "batch", "queued", "low", 1, 2,
    )  # fmt: skip
    assert batch["analyses"][0]["params"]["min_shot_frames"] == 15
    assert (batch["hours"], batch["selection"]["only"], batch["counts"]) == (body["hours"], "all", {"waiting": 2})
    assert answer.headers["Location"] == batch["urls"]["self"]
    assert int(answer.headers["Retry-After"]) >= 1
    reported = client.get(batch["urls"]["self"])
    assert (reported.json | {"progress": None}) == (batch | {"progress": None})
    assert client.get(batch["urls"]["self"], headers={"If-None-Match": reported.headers["ETag"]}).status_code == 304


def test_all_videos_unless_something_is_said(create_batch: CreateBatch, database: Engine) -> None:
    add_videos(database, 2)
    batch = create_batch()
    assert (batch["videos"], batch["name"], batch["cap"], batch["hours"]) == (2, "shots", 32, None)
    assert create_batch(cap=None)["cap"] is None


def test_faults_have_pointers(client: FlaskClient, database: Engine) -> None:
    add_videos(database, 1)
    for path in ("/v1/batches", "/v1/reprocess", "/v1/reprocess?dry_run=true"):
        for change, pointer, code in FAULTS:
            answer = client.post(path, json={"analyses": SHOTS_ANALYSES} | change)
            assert read_fault(answer) == (*BAD, pointer, code), change
    several = {"analyses": [{"model": "no"}], "hours": {"since": "06:00", "until": "06:00"}, "selection": {"code": "x"}}
    reported = client.post("/v1/batches", json=several).json["errors"]
    assert [one["pointer"] for one in reported] == ["/analyses/0/model", "/hours", "/selection/code"]
    assert client.get("/v1/batches").json["items"] == []


def test_what_the_selection_names_has_to_be_there(client: FlaskClient, database: Engine) -> None:
    (there,) = add_videos(database, 1)
    answer = client.post(
        "/v1/batches",
        json={"analyses": SHOTS_ANALYSES, "selection": {"videos": [there, "vid_none"], "sources": ["src_none"]}},
    )
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert [one["pointer"] for one in answer.json["errors"]] == ["/selection/sources/0", "/selection/videos/1"]


def test_nothing_that_is_meant(client: FlaskClient) -> None:
    answer = client.post("/v1/batches", json={"analyses": SHOTS_ANALYSES})
    assert answer.status_code == 400
    assert "No video is meant" in answer.json["detail"]


def test_what_cannot_run_is_refused(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 1)
    batch, job = create_batch(), factories.create_job(database)
    calls = (
        ("/v1/batches", {"analyses": SHOTS_ANALYSES}),
        ("/v1/reprocess", {"analyses": SHOTS_ANALYSES}),
        ("/v1/jobs", {"analyses": SHOTS_ANALYSES, "video_id": job.video_id}),
    )
    queues.set_queue_mode(database, "shots", "draining")
    for path, body in (*calls, ("/v1/batches", {"analyses": [{"model": "bassl"}]})):
        assert read_fault(client.post(path, json=body))[:2] == (503, "model_unavailable"), path
    other = jobs.create_job(database, NewJob(job.video_id, (factories.make_analysis(threshold=0.3),)))
    finish_runs(database, other.wakeups, failed=True)
    failed = jobs.list_jobs(database, limit=1)[0]
    for path in (f"/v1/jobs/{failed.id}/retry", f"{batch['urls']['retry']}"):
        assert read_fault(client.post(path))[:2] == (503, "model_unavailable"), path
    assert client.post("/v1/reprocess?dry_run=true", json={"analyses": SHOTS_ANALYSES}).status_code == 200
    assert dispatch_batch(database, batch["id"]) == []  # a batch waits meanwhile
    queues.set_queue_mode(database, "shots", "open")
    assert len(dispatch_batch(database, batch["id"])) > 0
    announce_without_weights(database)
    for path, body in calls:
        assert read_fault(client.post(path, json=body))[:2] == (503, "weights_missing"), path
    assert (
        client.post("/v1/reprocess?dry_run=true", json={"analyses": SHOTS_ANALYSES}).json["code"] == "weights_missing"
    )
    assert client.post("/v1/batches", json={"analyses": HSV_LUV_ANALYSES}).status_code == 202  # needs no weights


def test_items_and_states(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    ids = add_videos(database, 4)
    batch = create_batch(cap=3)
    one, other, third = dispatch_batch(database, batch["id"])
    finish_runs(database, [one])
    finish_runs(database, [other], failed=True)
    assert third
    place, items = f"{batch['urls']['items']}?limit=3", []
    while place:
        answer = client.get(place)
        items += answer.json["items"]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert [item["video_id"] for item in items] == ids
    assert [item["state"] for item in items] == ["succeeded", "failed", "queued", "waiting"]
    assert (items[0]["name"], items[3]["urls"]["job"]) == ("film.mp4", None)
    assert client.get(items[0]["urls"]["job"]).json["priority"] == "low"
    chosen = client.get(f"{batch['urls']['items']}?state=failed,waiting").json["items"]
    assert [item["position"] for item in chosen] == [1, 3]
    reported = client.get(batch["urls"]["self"]).json
    assert (reported["state"], reported["counts"]) == (
        "running", {"failed": 1, "queued": 1, "succeeded": 1, "waiting": 1},
    )  # fmt: skip
    for query, code in (("state=lost", "unknown_state"), ("page_token=x", "bad_token")):
        assert read_fault(client.get(f"{batch['urls']['items']}?{query}"))[2:] == (
            f"/query/{query.partition('=')[0]}",
            code,
        )


def test_pause_resume_cancel_retry(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 3)
    batch = create_batch(cap=2)
    urls = batch["urls"]
    wakes = dispatch_batch(database, batch["id"])
    assert client.post(urls["pause"]).json["state"] == "paused"
    finish_runs(database, wakes, failed=True)
    assert dispatch_batch(database, batch["id"]) == []
    assert client.post(urls["resume"]).json["state"] == "running"
    again = client.post(urls["retry"])
    assert (again.status_code, again.json["counts"]) == (202, {"waiting": 3})
    assert read_fault(client.post(urls["retry"]))[:2] == (409, "conflict")
    assert len(dispatch_batch(database, batch["id"])) == 2
    cancelled = client.post(urls["cancel"]).json
    assert (cancelled["state"], cancelled["counts"]) == ("cancelled", {"cancelled": 2, "waiting": 1})
    for name in ("pause", "resume"):
        assert read_fault(client.post(urls[name]))[:2] == (409, "conflict"), name
    for name in ("items", "diff", "events"):
        assert read_fault(client.get(f"/v1/batches/bat_none/{name}"))[:2] == (404, "not_found"), name
    for name in ("pause", "resume", "cancel", "retry"):
        assert read_fault(client.post(f"/v1/batches/bat_none/{name}"))[:2] == (404, "not_found"), name
    assert read_fault(client.get("/v1/batches/bat_none"))[:2] == (404, "not_found")


def test_wait_for_the_end(app: APIFlask, database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 1)
    url = create_batch()["urls"]["self"]
    engine = app.extensions["sceneworks"].engine
    with statements_of(engine) as single_read:
        app.test_client().get(url)
    with statements_of(engine) as statements:
        assert app.test_client().get(f"{url}?wait=0.2").json["state"] == "queued"
    assert len(statements) > len(single_read)
    with ThreadPoolExecutor(1) as pool, statements_of(engine) as statements:
        waiting = pool.submit(app.test_client().get, f"{url}?wait={MAX_WAIT_S}")
        wait_until("the batch is read again", lambda: len(statements) > len(single_read))
        assert not waiting.done()
        finish_runs(database, dispatch_batch(database, url.rpartition("/")[2]))
        answer = waiting.result(MAX_WAIT_S - 5)  # before the wait is over
    assert answer.json["state"] == "succeeded"


def test_listed_by_pages_and_by_state(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 1)
    batch = [create_batch()["id"] for _ in range(5)]
    for batch_id in batch[::2]:
        batches.cancel_batch(database, batch_id)
    place, items = "/v1/batches?limit=2", []
    while place:
        answer = client.get(place)
        items += [item["id"] for item in answer.json["items"]]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert items == batch[::-1]
    first_page = client.get("/v1/batches?state=cancelled&limit=2").json
    assert [item["id"] for item in first_page["items"]] == [batch[4], batch[2]]
    rest = client.get(f"/v1/batches?state=cancelled&limit=2&page_token={first_page['next_page_token']}").json
    assert ([item["id"] for item in rest["items"]], rest["next_page_token"]) == ([batch[0]], None)
    assert client.get("/v1/batches?schedule_id=sch_none").json["items"] == []
    for query, code in (
        ("state=done", "unknown_state"),
        ("page_token=x", "bad_token"),
        ("limit=501", "less_than_equal"),
    ):
        assert read_fault(client.get(f"/v1/batches?{query}"))[2:] == (f"/query/{query.partition('=')[0]}", code)


# Reprocessing ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(client: FlaskClient, database: Engine) -> None:
    done, _, gone = add_videos(database, 3)
    finish_runs(database, jobs.create_job(database, NewJob(done, (factories.make_analysis(),))).wakeups)
    with database.begin() as connection:
        connection.execute(text("UPDATE videos SET stored = false WHERE id = :id"), {"id": gone})
    answer = client.post("/v1/reprocess?dry_run=true", json={"analyses": SHOTS_ANALYSES})
    assert answer.status_code == 200
    plan = answer.json
    assert (plan["selected"]["videos"], plan["to_do"], plan["skipped"]) == (
        2, {"videos": 1, "hours": 0.003}, {"unreachable": 1},
    )  # fmt: skip
    (estimate,) = plan["estimates"]
    assert (estimate["model"], estimate["runs"], estimate["device"], estimate["measured_runs"]) == (
        "shots",
        1,
        "cpu",
        1,
    )
    assert estimate["seconds"] == {"low": 5.0, "usual": 5.0, "high": 5.0}
    everything = {"analyses": SHOTS_ANALYSES, "selection": {"only": "all"}}
    assert client.post("/v1/reprocess?dry_run=true", json=everything).json["skipped"] == {"done": 1, "unreachable": 1}
    unmeasured = client.post("/v1/reprocess?dry_run=true", json={"analyses": [{"model": "bassl"}]}).json["estimates"]
    assert [(one["model"], one["device"], one["seconds"]) for one in unmeasured if one["model"] == "bassl"] == [
        ("bassl", None, None)
    ]
    assert client.get("/v1/batches").json["items"] == []


def test_reprocessing_does_the_rest_and_no_more(client: FlaskClient, database: Engine) -> None:
    add_videos(database, 2)
    first = client.post("/v1/reprocess", json={"analyses": SHOTS_ANALYSES, "cap": 1})
    assert (first.status_code, first.json["kind"], first.json["videos"]) == (202, "reprocess", 2)
    assert first.json["selection"]["only"] == "missing_or_outdated"
    finish_runs(database, dispatch_batch(database, first.json["id"]))
    again = client.post("/v1/reprocess", json={"analyses": SHOTS_ANALYSES}).json
    assert again["videos"] == 1
    finish_runs(database, dispatch_batch(database, again["id"]))
    nothing = client.post("/v1/reprocess", json={"analyses": SHOTS_ANALYSES})
    assert nothing.status_code == 400
    assert "nothing is left to do" in nothing.json["detail"]
    other = client.post("/v1/reprocess", json={"analyses": HSV_LUV_ANALYSES, "selection": {"only": "missing"}})
    assert other.status_code == 400  # processed by other parameters is not missing
    assert client.post("/v1/reprocess", json={"analyses": HSV_LUV_ANALYSES}).json["videos"] == 2

"""Schedules over HTTP: checked, with their next slots and their rule of catching up, edited while they run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask.testing import FlaskClient
from sqlalchemy import Engine

from shared.store.batches import schedules
from shared.store.runs import queues
from tests.support.batches import (
    HSV_LUV_ANALYSES,
    SHOTS_ANALYSES,
    add_videos,
    announce_without_weights,
    dispatch_batch,
    finish_runs,
    read_fault,
)

BAD = (400, "invalid_request")
FAULTS: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"cron": "61 2 * * *"}, "/cron", "bad_cron"),
    ({"cron": "30 2 * *"}, "/cron", "bad_cron"),
    ({"cron": "* * * * * *"}, "/cron", "bad_cron"),
    ({"cron": "0 0 30 2 *"}, "/cron", "bad_cron"),
    ({"every_s": 3600}, "/cron", "cron_or_interval"),
    ({"cron": None}, "/cron", "cron_or_interval"),
    ({"cron": None, "every_s": 59}, "/every_s", "too_short"),
    ({"cron": None, "every_s": 10**9}, "/every_s", "less_than_equal"),
    ({"timezone": "Mars/Base"}, "/timezone", "unknown_timezone"),
    ({"timezone": "../../etc/passwd"}, "/timezone", "unknown_timezone"),
    ({"catch_up": "never"}, "/catch_up", "literal_error"),
    ({"hours": {"since": "22:00", "until": "06:00", "timezone": "x"}}, "/hours/timezone", "unknown_timezone"),
    ({"analyses": [{"model": "no"}]}, "/analyses/0/model", "unknown_model"),
    ({"name": None}, "/name", "string_type"),
)


def nightly(**changed: Any) -> dict[str, Any]:
    body = {"name": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "analyses": SHOTS_ANALYSES}
    return body | changed


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_schedule_says_when_it_fires(client: FlaskClient) -> None:
    answer = client.post("/v1/schedules", json=nightly(catch_up="skip", selection={"only": "missing"}))
    assert answer.status_code == 201
    made = answer.json
    assert answer.headers["Location"] == made["urls"]["self"]
    assert client.get(made["urls"]["self"]).json == made
    coming = [moment(slot).astimezone(ZoneInfo("Europe/Berlin")) for slot in made["next_slots"]]
    assert len(set(coming)) == 5
    assert coming == sorted(coming)
    assert all(slot.hour in {2, 3} and slot.minute in {0, 30} for slot in coming)
    assert made["next_at"] == made["next_slots"][0]
    assert (made["catch_up"], made["catch_up_rule"]) == ("skip", "Slots that passed while nothing ran are left out.")
    assert (made["priority"], made["selection"]["only"], made["last_slots"]) == ("low", "missing", [])


def test_faults_have_pointers(client: FlaskClient) -> None:
    made = client.post("/v1/schedules", json=nightly()).json
    for change, pointer, code in FAULTS:
        body = nightly(name="other") | change
        assert read_fault(client.post("/v1/schedules", json=body)) == (*BAD, pointer, code), change
        assert read_fault(client.put(made["urls"]["self"], json=body)) == (*BAD, pointer, code), change
    several = client.post("/v1/schedules", json=nightly(cron="x", analyses=[{"model": "no"}])).json["errors"]
    assert [one["pointer"] for one in several] == ["/cron", "/analyses/0/model"]
    assert read_fault(client.post("/v1/schedules", json=nightly()))[:2] == (409, "conflict")
    assert client.get(made["urls"]["self"]).json == made


def test_what_is_not_there(client: FlaskClient) -> None:
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run"),
    ):  # fmt: skip
        assert read_fault(client.open(f"/v1/schedules/sch_none{path}", method=method))[:2] == (404, "not_found")
    assert read_fault(client.put("/v1/schedules/sch_none", json=nightly()))[:2] == (404, "not_found")
    unknown = client.post("/v1/schedules", json=nightly(selection={"sources": ["src_none"]}))
    assert read_fault(unknown) == (404, "not_found", "/selection/sources/0", "not_found")


def test_edited_while_it_runs(client: FlaskClient, database: Engine) -> None:
    add_videos(database, 1)
    made = client.post("/v1/schedules", json=nightly(cron=None, every_s=3600)).json
    first = moment(made["next_at"])  # to the millisecond
    (slot,) = schedules.fire_schedule(database, made["id"], first + timedelta(seconds=1))
    later = client.put(made["urls"]["self"], json=nightly(cron=None, every_s=3600, name="hourly", cap=3)).json
    assert (later["name"], later["cap"]) == ("hourly", 3)
    assert moment(later["next_at"]) == first  # the same interval keeps its rhythm, and that slot is settled once
    assert [(one["outcome"], one["batch_id"]) for one in later["last_slots"]] == [("fired", slot.batch_id)]
    assert client.get(later["urls"]["batches"]).json["items"][0]["id"] == slot.batch_id
    other = client.put(made["urls"]["self"], json=nightly(analyses=HSV_LUV_ANALYSES)).json
    assert (other["every_s"], other["cron"]) == (None, "30 2 * * *")
    assert other["analyses"][0]["params"]["detector"] == "hsv_luv"
    assert client.delete(made["urls"]["self"]).status_code == 204
    assert client.get("/v1/schedules").json["items"] == []
    assert client.get(f"/v1/batches/{slot.batch_id}").json["schedule_id"] is None


def test_paused_and_resumed(client: FlaskClient, database: Engine) -> None:
    add_videos(database, 1)
    made = client.post("/v1/schedules", json=nightly(cron=None, every_s=60)).json
    paused = client.post(made["urls"]["pause"]).json
    assert (paused["paused_at"] is not None, paused["next_at"], paused["next_slots"]) == (True, None, [])
    assert schedules.list_due_schedules(database, datetime.now(UTC) + timedelta(hours=1)) == []
    again = client.post(made["urls"]["resume"]).json
    assert (again["paused_at"], len(again["next_slots"])) == (None, 5)
    assert moment(again["next_at"]) > datetime.now(UTC)


def test_run_now(client: FlaskClient, database: Engine) -> None:
    add_videos(database, 2)
    made = client.post("/v1/schedules", json=nightly(cap=1)).json
    answer = client.post(made["urls"]["run"])
    assert answer.status_code == 202
    batch = answer.json
    assert (batch["kind"], batch["schedule_id"], batch["videos"], batch["cap"]) == ("schedule", made["id"], 2, 1)
    assert answer.headers["Location"] == batch["urls"]["self"]
    assert client.get(made["urls"]["self"]).json["next_at"] == made["next_at"]
    for _ in range(2):
        finish_runs(database, dispatch_batch(database, batch["id"]))
    assert read_fault(client.post(made["urls"]["run"]))[:2] == (409, "conflict")
    queues.set_queue_mode(database, "shots", "draining")
    assert read_fault(client.post(made["urls"]["run"]))[:2] == (503, "model_unavailable")
    assert client.post("/v1/schedules", json=nightly(name="for later")).status_code == 201
    announce_without_weights(database)
    assert read_fault(client.post("/v1/schedules", json=nightly(name="third")))[:2] == (503, "weights_missing")


def test_listed_by_pages(client: FlaskClient) -> None:
    made = [client.post("/v1/schedules", json=nightly(name=f"{n}")).json["id"] for n in range(3)]
    some = client.get("/v1/schedules?limit=2").json
    rest = client.get(f"/v1/schedules?limit=2&page_token={some['next_page_token']}").json
    assert [item["id"] for item in some["items"] + rest["items"]] == made[::-1]
    assert read_fault(client.get("/v1/schedules?page_token=x"))[2:] == ("/query/page_token", "bad_token")

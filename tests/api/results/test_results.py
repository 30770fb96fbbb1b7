"""Results, artifacts and members of archives; the catalog and the workers."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.jobs import JobRecord, RunRecord
from api.operations.models import ModelRecord, WorkerRecord
from api.videos.routes import ProbeRecord, VideoRecord
from shared.catalog import CATALOG
from shared.errors import WeightsCorrupt, WeightsMissing
from shared.storage import ContentStorage
from shared.store import workers
from shared.store.runs import runs
from shared.values import Artifact, Progress, Stage, new_id
from tests.support import factories

PICTURE = b"\xff\xd8\xff\xe0 picture"


@pytest.fixture
def done(database: Engine, files: ContentStorage, tmp_path: Path) -> dict[str, str]:
    """A job of five shots, with an archive of keyframes and a contact sheet."""
    job = factories.create_job(database)
    with zipfile.ZipFile(tmp_path / "keyframes.zip", "w") as archive:
        archive.writestr("shot_0000_img_0.jpg", PICTURE)
        archive.writestr("folder/evil.html", b"<script>alert(1)</script>")
        archive.writestr("../../escape.jpg", b"inside")
        archive.writestr(zipfile.ZipInfo("packed.jpg"), b"0" * 1000, compress_type=zipfile.ZIP_DEFLATED)
    (tmp_path / "sheet.jpg").write_bytes(PICTURE * 100)
    made = []
    for name, kind, media_type in (
        ("keyframes.zip", "keyframes", "application/zip"), ("sheet.jpg", "contact_sheet", "image/jpeg"),
    ):  # fmt: skip
        stored = files.put_file(tmp_path / name)
        made.append(Artifact(new_id("art"), kind, name, media_type, stored.sha256, stored.size))
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    runs.finish_run(
        database, claim, progress=Progress((Stage("encode", "done", 240, 240, "frame", 1.0),), 1.0), decode_failures=3,
        results=factories.make_shots((0, 40), (40, 90), (90, 100), (100, 200), (200, 240)), artifacts=made,
    )  # fmt: skip
    return {"job": job.id, "run": job.runs[0].id, "video": job.video_id, "zip": made[0].id, "sheet": made[1].id}


def test_results(client: FlaskClient, done: dict[str, str]) -> None:
    answer = client.get(f"/v1/jobs/{done['job']}/results").json
    assert [(item["kind"], item["seq"]) for item in answer["items"]] == [("shot", seq) for seq in range(5)]
    second = answer["items"][1]
    assert second["start"] == {"frame": 40, "seconds": 1.668333, "pts": 40040, "timecode": "00:00:01:16"}
    assert (second["end"]["frame"], second["run_id"], second["model"]) == (90, done["run"], "shots")
    assert (answer["video"]["fps"], answer["video"]["decode_failures"]) == ("24000/1001", 3)
    (origin,) = answer["provenance"]
    assert (origin["device"], origin["precision"], origin["version"]) == ("cpu", "fp32", "test")
    spec = CATALOG["shots"]
    assert spec.weights is not None
    assert origin["weights"] == {"fingerprint": spec.weights.sha256}
    assert origin["params"]["detector"] == "transnetv2"
    assert origin["input_sha256"] == client.get(f"/v1/videos/{done['video']}").json["sha256"]


def test_results_by_pages(client: FlaskClient, done: dict[str, str]) -> None:
    place, seen = f"/v1/jobs/{done['job']}/results?limit=2&kind=shot&model=shots", []
    while place:
        answer = client.get(place)
        seen += [item["seq"] for item in answer.json["items"]]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert seen == [0, 1, 2, 3, 4]
    assert client.get(f"/v1/jobs/{done['job']}/results?kind=scene").json["items"] == []


@pytest.mark.parametrize("query", ["model=bassl", "limit=0", "page_token=x", "format=xml"])
def test_bad_result_queries(query: str, client: FlaskClient, done: dict[str, str]) -> None:
    answer = client.get(f"/v1/jobs/{done['job']}/results?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


def test_results_of_an_unfinished_job(client: FlaskClient, database: Engine) -> None:
    answer = client.get(f"/v1/jobs/{factories.create_job(database).id}/results").json
    assert (answer["items"], answer["provenance"][0]["state"]) == ([], "queued")


def test_artifacts(client: FlaskClient, done: dict[str, str]) -> None:
    found = {item["kind"]: item for item in client.get(f"/v1/jobs/{done['job']}/artifacts").json["items"]}
    assert (found["keyframes"]["id"], found["keyframes"]["run_id"]) == (done["zip"], done["run"])
    sheet = client.get(found["contact_sheet"]["urls"]["self"], buffered=True)
    assert (sheet.mimetype, sheet.data) == ("image/jpeg", PICTURE * 100)
    assert sheet.headers["ETag"] == f'"{found["contact_sheet"]["sha256"]}"'
    assert sheet.headers["Content-Disposition"] == "inline; filename=sheet.jpg"
    archive = client.get(found["keyframes"]["urls"]["self"], buffered=True, headers={"Range": "bytes=0-3"})
    assert (archive.status_code, archive.data) == (206, b"PK\x03\x04")
    assert archive.headers["Content-Disposition"] == "attachment; filename=keyframes.zip"
    assert client.get("/v1/artifacts/art_none").json["code"] == "not_found"


def test_members(client: FlaskClient, done: dict[str, str]) -> None:
    place = f"/v1/artifacts/{done['zip']}/members"
    answer = client.get(f"{place}/shot_0000_img_0.jpg")
    assert (answer.status_code, answer.data, answer.mimetype) == (200, PICTURE, "image/jpeg")
    assert "immutable" in answer.headers["Cache-Control"]
    same = client.get(f"{place}/shot_0000_img_0.jpg", headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status_code == 304
    evil = client.get(f"{place}/folder/evil.html")
    assert (evil.mimetype, "sandbox" in evil.headers["Content-Security-Policy"]) == ("application/octet-stream", True)


@pytest.mark.parametrize(
    "name",
    [
        "none.jpg",
        "packed.jpg",
        "folder/",
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "%2fetc",
    ],
)
def test_members_that_are_not_there(name: str, client: FlaskClient, done: dict[str, str]) -> None:
    answer = client.get(f"/v1/artifacts/{done['zip']}/members/{name}")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_no_members_of_a_picture(client: FlaskClient, done: dict[str, str]) -> None:
    assert client.get(f"/v1/artifacts/{done['sheet']}/members/a").json["code"] == "not_found"


def test_records_are_those_of_the_ledger(database: Engine) -> None:
    """Every field of the values is in the documented schema and the other way round."""
    job = factories.create_job(database)
    video = factories.add_video(database)
    assert set(ProbeRecord.model_fields) == set(video.facts.to_dict())
    assert set(VideoRecord.model_fields) == {*video.to_dict(), "urls"}
    assert set(JobRecord.model_fields) == {*job.to_dict(), "urls"}
    assert set(RunRecord.model_fields) == set(job.runs[0].to_dict())


def announce(database: Engine, name: str, error: dict[str, Any] | None) -> None:
    serves = [{"model": "shots", "weights": None, "error": error}]
    workers.announce_worker(database, name, state="ready", reason=None, models=serves, device="cpu", precision="fp32")


def test_menu(client: FlaskClient) -> None:
    answer = client.get("/v1/models").json
    assert [item["name"] for item in answer["items"]] == list(CATALOG)
    shots = answer["items"][0]
    assert set(shots) == set(ModelRecord.model_fields)
    assert shots["params"]["properties"]["detector"]["enum"] == ["transnetv2", "hsv_luv"]
    assert (shots["weights"]["state"], shots["available"], shots["workers"]) == ("unknown", False, [])
    assert answer["limits"]["max_upload_bytes"] == 64 * 2**30
    assert client.get("/v1/models/shots").json == shots
    assert client.get("/v1/models/no").json["code"] == "not_found"


@pytest.mark.parametrize(
    ("errors", "state", "available"),
    [
        ([None], "present", True),
        ([WeightsMissing("gone").to_problem()], "missing", False),
        ([WeightsCorrupt("bent").to_problem()], "corrupt", False),
        ([WeightsMissing("gone").to_problem(), None], "present", True),
    ],
)
def test_menu_with_workers(
    errors: list[dict[str, Any] | None], state: str, available: bool, client: FlaskClient, database: Engine
) -> None:
    for number, error in enumerate(errors):
        announce(database, f"w{number}", error)
    shots = client.get("/v1/models/shots").json
    assert (shots["weights"]["state"], shots["available"]) == (state, available)
    assert [worker["error"] for worker in shots["workers"]] == errors
    heard = client.get("/v1/workers").json["items"]
    assert [worker["id"] for worker in heard] == [f"w{number}" for number in range(len(errors))]
    assert set(heard[0]) == set(WorkerRecord.model_fields)

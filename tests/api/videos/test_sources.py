"""Sources over HTTP: only where the operator allows it, listed, scanned on request, and their files by pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from shared.errors import UnsupportedMedia
from shared.store.videos import sources
from shared.store.videos.sources import ScannedFile
from tests.api.conftest import MakeApp
from tests.support import factories
from tests.support.batches import read_fault


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that the operator allows, with one below it."""
    (tmp_path / "allowed" / "season").mkdir(parents=True)
    (tmp_path / "allowed" / "one.mp4").touch()
    (tmp_path / "other").mkdir()
    return tmp_path / "allowed"


@pytest.fixture
def client(make_app: MakeApp, root: Path) -> FlaskClient:
    """With that root, and one that is not there."""
    return make_app(source_roots=f"{root}: /no/such/root").test_client()


def add(client: FlaskClient, **body: Any) -> Any:
    return client.post("/v1/sources", json={"name": "archive"} | body)


def test_a_source_is_added_and_its_scan_requested(client: FlaskClient, root: Path, database: Engine) -> None:
    answer = add(client, folder=str(root / "season" / ".."), watch_s=60, labels={"show": "x"})
    assert answer.status_code == 201
    source = answer.json
    assert (source["kind"], source["folder"], source["watch_s"], source["labels"]) == (
        "folder", str(root), 60.0, {"show": "x"},
    )  # fmt: skip
    assert source["scan_requested_at"] == source["created_at"]
    assert answer.headers["Location"] == source["urls"]["self"] == f"/v1/sources/{source['id']}"
    assert client.get(source["urls"]["self"]).json == source
    assert client.get("/v1/sources").json == {"items": [source]}
    claimed = sources.claim_scan(database, "scanner", 30)
    assert claimed is not None
    assert (claimed.source.id, client.get(source["urls"]["self"]).json["scanning"]) == (source["id"], True)
    again = client.post(f"{source['urls']['scan']}?force=true")
    assert (again.status_code, again.json["scan_requested_at"] > source["scan_requested_at"]) == (202, True)
    assert client.delete(source["urls"]["self"]).status_code == 204
    assert client.get("/v1/sources").json == {"items": []}


def test_a_list_of_files(client: FlaskClient, root: Path) -> None:
    (root / "link.mp4").symlink_to(root / "one.mp4")
    source = add(client, files=[str(root / "one.mp4"), str(root / "link.mp4")]).json
    assert (source["kind"], source["folder"], source["files"]) == ("list", None, [str(root / "one.mp4")])


def test_what_is_refused(client: FlaskClient, root: Path) -> None:
    other = root.parent / "other"
    (root / "out").symlink_to(other)
    (root / "circle").symlink_to(root / "circle")
    (root.parent / "allowed-too").mkdir()
    bad, forbidden = (400, "invalid_request"), (422, "source_forbidden")
    for body, expected in (
        ({"folder": str(other)}, (*forbidden, "/folder", "outside")),
        ({"folder": str(root / "out")}, (*forbidden, "/folder", "outside")),
        ({"folder": str(root / ".." / "other")}, (*forbidden, "/folder", "outside")),
        ({"folder": str(root.parent / "allowed-too")}, (*forbidden, "/folder", "outside")),
        ({"folder": str(other / "none")}, (*forbidden, "/folder", "outside")),
        ({"folder": "season"}, (*bad, "/folder", "not_absolute")),
        ({"folder": str(root / "none")}, (*bad, "/folder", "not_found")),
        ({"folder": str(root / "one.mp4")}, (*bad, "/folder", "not_found")),
        ({"files": [str(root / "one.mp4"), str(root / "season")]}, (*bad, "/files/1", "not_found")),
        ({"files": [str(other / "one.mp4")]}, (*forbidden, "/files/0", "outside")),
        ({}, (*bad, "/folder", "one_of")),
        ({"folder": str(root), "files": [str(root / "one.mp4")]}, (*bad, "/folder", "one_of")),
        ({"folder": str(root), "watch_s": 1}, (*bad, "/watch_s", "greater_than_equal")),
        ({"folder": str(root), "labels": {"a:b": "c"}}, (*bad, "/labels/a:b/[key]", "string_pattern_mismatch")),
        ({"folder": str(root), "name": " "}, (*bad, "/name", "string_pattern_mismatch")),
        ({"folder": str(root), "path": "x"}, (*bad, "/path", "unknown_field")),
    ):
        assert read_fault(add(client, **body)) == expected, body
    circle = read_fault(add(client, folder=str(root / "circle")))
    assert circle[0] in {400, 422}
    assert client.get("/v1/sources").json == {"items": []}
    assert str(other) not in add(client, folder=str(other)).text


def test_without_roots_there_are_no_sources(make_app: MakeApp, root: Path) -> None:
    answer = add(make_app().test_client(), folder=str(root))
    assert read_fault(answer) == (422, "source_forbidden", "/folder", "no_roots")
    assert "SCENEWORKS_SOURCE_ROOTS is not set" in answer.json["detail"]


def test_names_are_unique_and_what_is_not_there(client: FlaskClient, root: Path) -> None:
    assert add(client, folder=str(root)).status_code == 201
    assert read_fault(add(client, folder=str(root)))[:2] == (409, "conflict")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/scan"), ("GET", "/files")):
        assert read_fault(client.open(f"/v1/sources/src_none{path}", method=method))[:2] == (404, "not_found")


def test_files_by_pages(client: FlaskClient, root: Path, database: Engine) -> None:
    source = add(client, folder=str(root)).json
    scan = sources.claim_scan(database, "scanner", 30)
    assert scan is not None
    odd = f"{root}/new\nline.mp4"
    looked = [
        ScannedFile(path=path, size=7, mtime_ns=1, sha256=f"{at}" * 64, facts=factories.make_video(), name="film.mp4")
        for at, path in enumerate([f"{root}/a.mp4", odd, f"{root}/z.mp4"])
    ]
    bad = ScannedFile(
        path=f"{root}/b.txt", size=7, mtime_ns=1, name="b.txt", error=UnsupportedMedia("No film.").to_problem()
    )
    assert sources.record_files(database, scan, [*looked, bad], {}, 30)
    place, listed = f"{source['urls']['files']}?limit=1", []
    while place:
        answer = client.get(place)
        listed += answer.json["items"]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert [item["path"] for item in listed] == sorted(item["path"] for item in listed)
    assert {item["path"] for item in listed} == {f"{root}/a.mp4", f"{root}/b.txt", odd, f"{root}/z.mp4"}
    refused = client.get(f"{source['urls']['files']}?state=refused").json["items"]
    assert [(item["state"], item["error"]["code"], item["video_id"]) for item in refused] == [
        ("refused", "unsupported_media", None)
    ]
    assert client.get(source["urls"]["self"]).json["counts"] == {"present": 3, "refused": 1}
    for query, code in (
        ("state=lost", "literal_error"),
        ("page_token=x", "bad_token"),
        ("limit=0", "greater_than_equal"),
    ):
        fault = read_fault(client.get(f"{source['urls']['files']}?{query}"))
        assert fault == (400, "invalid_request", f"/query/{query.partition('=')[0]}", code)

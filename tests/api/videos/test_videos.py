"""Uploads: what is taken, what is refused with which code, and that a refusal leaves nothing behind."""

from __future__ import annotations

import base64
import hashlib
from io import BytesIO
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from shared.media.intake import clean_file_name
from shared.storage import ContentStorage
from shared.store.jobs import jobs
from shared.store.videos import videos
from tests.api.conftest import MakeApp, make_video_file
from tests.support import factories


def nothing_left(database: Engine, data_dir: Path) -> bool:
    return not videos.list_videos(database, limit=1) and not [path for path in data_dir.rglob("*") if path.is_file()]


def test_raw_upload(client: FlaskClient, video_path: Path, files: ContentStorage) -> None:
    answer = client.post("/v1/videos?name=a/b/Mein Film.mp4", data=video_path.read_bytes(), content_type="video/mp4")
    assert answer.status_code == 201
    video = answer.json
    assert answer.headers["Location"] == video["urls"]["self"] == f"/v1/videos/{video['id']}"
    assert video["name"] == "Mein Film.mp4"
    assert video["media_type"] == "video/mp4"
    assert (video["probe"]["frames"], video["probe"]["fps"], video["probe"]["width"]) == (50, "25/1", 96)
    assert files.object_path(video["sha256"]).read_bytes() == video_path.read_bytes()
    assert client.get(answer.headers["Location"]).json == video


def test_form_upload(client: FlaskClient, video_path: Path) -> None:
    form = {"other": "field", "file": (BytesIO(video_path.read_bytes()), "../../etc/film.mp4")}
    answer = client.post("/v1/videos", data=form, content_type="multipart/form-data")
    assert answer.status_code == 201, answer.json
    assert answer.json["name"] == "film.mp4"
    assert answer.json["sha256"] == hashlib.sha256(video_path.read_bytes()).hexdigest()


def test_the_same_bytes_are_the_same_video(client: FlaskClient, video_path: Path, video_id: str) -> None:
    again = client.post(
        "/v1/videos?name=other.mkv", data=video_path.read_bytes(), content_type="application/octet-stream"
    )
    assert (again.status_code, again.json["id"], again.json["name"]) == (200, video_id, "video")


def test_no_content_type_is_taken_as_bytes(client: FlaskClient, video_path: Path) -> None:
    assert client.post("/v1/videos", data=video_path.read_bytes()).status_code == 201


def test_media_by_ranges(client: FlaskClient, video_path: Path, video_id: str) -> None:
    data = video_path.read_bytes()

    def get(method: str = "GET", **headers: str) -> TestResponse:
        return client.open(f"/v1/videos/{video_id}/media", method=method, headers=headers, buffered=True)

    whole = get()
    assert (whole.status_code, whole.data, whole.mimetype) == (200, data, "video/mp4")
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Disposition"].startswith("inline")
    assert "sandbox" in whole.headers["Content-Security-Policy"]
    part = get(Range="bytes=100-199")
    assert (part.status_code, part.data) == (206, data[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(data)}"
    assert get(Range="bytes=-5").data == data[-5:]
    assert get(**{"If-None-Match": whole.headers["ETag"]}).status_code == 304
    head = get("HEAD")
    assert (head.data, head.content_length) == (b"", len(data))
    for ignored in ("lines=1-2", "bytes=0-1,4-5", f"bytes=-{len(data) + 1}"):
        assert (get(Range=ignored).status_code, get(Range=ignored).data) == (200, data)
    known = {"If-None-Match": whole.headers["ETag"], "Range": "bytes=0-1"}
    assert get(**known).status_code == 304
    beyond = get(Range=f"bytes={len(data)}-")
    assert (beyond.status_code, beyond.json["code"], beyond.json["status"]) == (416, "invalid_request", 416)
    assert beyond.headers["Content-Range"] == f"bytes */{len(data)}"


def test_media_whose_bytes_are_gone(client: FlaskClient, video_id: str, files: ContentStorage) -> None:
    files.remove_file(client.get(f"/v1/videos/{video_id}").json["sha256"])
    assert client.get(f"/v1/videos/{video_id}/media").json["code"] == "not_found"


@pytest.fixture(scope="session")
def bad(video_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are no videos, each made for real."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("This is not a film.\n" * 500)
    (folder / "cut").write_bytes(video_path.read_bytes()[: video_path.stat().st_size * 2 // 3])
    (folder / "playlist").write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    make_video_file(folder / "sound.m4a", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("empty", 415, "unsupported_media"),
        ("text", 415, "unsupported_media"),
        ("playlist", 415, "unsupported_media"),
        ("cut", 422, "media_corrupt"),
        ("sound", 422, "no_video_stream"),
    ],
)
def test_bad_files(
    name: str, status: int, code: str, client: FlaskClient, bad: dict[str, Path], database: Engine, data_dir: Path
) -> None:
    answer = client.post("/v1/videos", data=bad[name].read_bytes(), content_type="video/mp4")
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.mimetype == "application/problem+json"
    assert str(data_dir) not in answer.text
    assert nothing_left(database, data_dir)


def test_a_damaged_video_that_is_wanted(client: FlaskClient, bad: dict[str, Path]) -> None:
    answer = client.post("/v1/videos?allow_damaged=true", data=bad["cut"].read_bytes(), content_type="video/mp4")
    assert answer.status_code == 201
    assert answer.json["probe"]["truncated"]


def test_a_probe_that_takes_too_long(make_app: MakeApp, video_path: Path, database: Engine, data_dir: Path) -> None:
    client = make_app(probe_timeout_s=0.01).test_client()
    answer = client.post("/v1/videos", data=video_path.read_bytes(), content_type="video/mp4")
    assert (answer.status_code, answer.json["code"]) == (504, "deadline_exceeded")
    assert nothing_left(database, data_dir)


def test_too_long(make_app: MakeApp, video_path: Path, database: Engine, data_dir: Path) -> None:
    answer = make_app(max_video_s=1.5).test_client().post("/v1/videos", data=video_path.read_bytes())
    assert (answer.status_code, answer.json["code"]) == (422, "video_too_long")
    assert nothing_left(database, data_dir)


@pytest.mark.parametrize("length_known", [True, False])
def test_too_large(make_app: MakeApp, video_path: Path, length_known: bool, database: Engine, data_dir: Path) -> None:
    client = make_app(max_upload_bytes=1000).test_client()
    chunked = {} if length_known else {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    body = video_path.read_bytes() if length_known else None
    stream = None if length_known else BytesIO(video_path.read_bytes())
    answer = client.post("/v1/videos", data=body, input_stream=stream, environ_overrides=chunked)
    assert (answer.status_code, answer.json["code"]) == (413, "video_too_large")
    assert nothing_left(database, data_dir)


def test_no_room(make_app: MakeApp, video_path: Path, database: Engine, data_dir: Path) -> None:
    answer = make_app(min_free_bytes=2**60).test_client().post("/v1/videos", data=video_path.read_bytes())
    assert (answer.status_code, answer.json["code"], answer.json["retryable"]) == (507, "storage_full", True)
    assert nothing_left(database, data_dir)


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_digest(client: FlaskClient, video_path: Path, database: Engine, data_dir: Path) -> None:
    data = video_path.read_bytes()
    for wrong in (digest_of(b"other"), "sha-256=nonsense"):
        answer = client.post("/v1/videos", data=data, headers={"Content-Digest": wrong})
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["errors"][0]["pointer"] == "/headers/Content-Digest"
    assert nothing_left(database, data_dir)
    good = {"Content-Digest": f"unixsum=:AA==:, {digest_of(data)}"}
    assert client.post("/v1/videos", data=data, headers=good).status_code == 201


FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b'{"url": "https://example.org/a.mp4"}', "application/json", 400, "invalid_request"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media"),
        (b"text", "text/plain", 415, "unsupported_media"),
        (b"--x\r\nrubbish", FORM, 400, "invalid_request"),
        (b"none", "multipart/form-data", 400, "invalid_request"),
        (PART.replace(b"file", b"no") + b"1\r\n--x--\r\n", FORM, 400, "invalid_request"),
        (PART + b"no end", FORM, 400, "invalid_request"),
        (PART + b"1\r\n" + PART + b"2\r\n--x--\r\n", FORM, 400, "invalid_request"),
    ],
)
def test_bodies_that_are_not_taken(
    body: bytes, kind: str, status: int, code: str, client: FlaskClient, database: Engine, data_dir: Path
) -> None:
    answer = client.post("/v1/videos", data=body, content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert nothing_left(database, data_dir)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (None, "video"),
        ("", "video"),
        ("..", "video"),
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\a.mp4", "a.mp4"),
        ("a\0b\r\nc.mp4", "abc.mp4"),
        ("a\u202egpj.mp4", "agpj.mp4"),
        ("x" * 300 + ".mp4", "x" * 251 + ".mp4"),
        ("/" * 10, "video"),
    ],
)
def test_names(raw: str | None, name: str) -> None:
    assert clean_file_name(raw) == name
    assert len(clean_file_name(raw)) <= 255


def test_list_by_pages_while_videos_come_and_go(client: FlaskClient, database: Engine) -> None:
    stored_videos = [factories.add_video(database).id for _ in range(5)]
    first = client.get("/v1/videos?limit=2")
    assert [video["id"] for video in first.json["items"]] == stored_videos[:2:-1]
    assert first.headers["Link"] == (f'</v1/videos?limit=2&page_token={first.json["next_page_token"]}>; rel="next"')
    factories.add_video(database)  # a new one does not move the pages
    videos.delete_video(database, stored_videos[3])  # nor does a deleted one, though the token was made from it
    second = client.get(first.headers["Link"].partition("<")[2].partition(">")[0]).json
    assert [video["id"] for video in second["items"]] == [stored_videos[2], stored_videos[1]]
    last = client.get(f"/v1/videos?limit=2&page_token={second['next_page_token']}")
    assert [video["id"] for video in last.json["items"]] == [stored_videos[0]]
    assert last.json["next_page_token"] is None
    assert "Link" not in last.headers


def test_delete(client: FlaskClient, database: Engine, video_id: str) -> None:
    job = factories.create_job(database, video_id)
    busy = client.delete(f"/v1/videos/{video_id}")
    assert (busy.status_code, busy.json["code"]) == (409, "conflict")
    jobs.cancel_job(database, job.id)
    assert client.delete(f"/v1/videos/{video_id}").status_code == 204
    for gone in (client.get(f"/v1/videos/{video_id}"), client.delete(f"/v1/videos/{video_id}")):
        assert (gone.status_code, gone.json["code"]) == (404, "not_found")

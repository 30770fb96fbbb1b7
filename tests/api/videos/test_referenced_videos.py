"""Videos that stay where they are, over HTTP: they play, have thumbnails, and are never served when they are others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.store.videos import sources
from shared.values import StoredVideo
from tests.api.conftest import MakeApp
from tests.worker.scanner.conftest import ScannedSource


@pytest.fixture
def client(make_app: MakeApp, scanned_source: ScannedSource) -> FlaskClient:
    return make_app(source_roots=str(scanned_source.folder.parent)).test_client()


@pytest.fixture
def video_path(scanned_source: ScannedSource) -> Path:
    """A video in the source, scanned."""
    path = scanned_source.put_video("a\nb.mp4")
    scanned_source.run_scan()
    return path


@pytest.fixture
def video(video_path: Path, scanned_source: ScannedSource) -> StoredVideo:
    (video,) = scanned_source.list_videos()
    return video


def played(client: FlaskClient, video_id: str, **headers: str) -> TestResponse:
    return client.get(f"/v1/videos/{video_id}/media", headers=headers, buffered=True)


def refused(client: FlaskClient, video: StoredVideo) -> tuple[str, str]:
    """What is said in place of the video and of a picture of it."""
    answers = [client.get(f"/v1/videos/{video.id}/{name}") for name in ("media", "thumbnail.jpg")]
    assert [answer.status_code for answer in answers] == [502, 502]
    assert {answer.json["code"] for answer in answers} == {"source_unreachable"}
    assert [answer.json["retryable"] for answer in answers] == [True, True]
    return answers[0].json["detail"], answers[1].json["detail"]


def test_it_plays_and_has_thumbnails(client: FlaskClient, video: StoredVideo, video_path: Path) -> None:
    record = client.get(f"/v1/videos/{video.id}").json
    assert (record["stored"], record["name"], record["sha256"]) == (False, "ab.mp4", video.sha256)
    whole = client.get(record["urls"]["media"], buffered=True)
    assert (whole.status_code, whole.data, whole.mimetype) == (200, video_path.read_bytes(), "video/mp4")
    assert whole.get_etag() == (video.sha256, False)
    assert whole.content_length == video_path.stat().st_size
    part = played(client, video.id, Range="bytes=100-199")
    assert (part.status_code, part.data) == (206, video_path.read_bytes()[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{video_path.stat().st_size}"
    last = played(client, video.id, Range="bytes=-7")
    assert (last.status_code, last.data) == (206, video_path.read_bytes()[-7:])
    beyond = played(client, video.id, Range=f"bytes={video_path.stat().st_size}-")
    assert beyond.status_code == 416
    same = played(client, video.id, **{"If-None-Match": f'"{video.sha256}"'})
    assert (same.status_code, same.data) == (304, b"")
    picture = client.get(record["urls"]["thumbnail"])
    assert (picture.status_code, picture.data[:2]) == (200, b"\xff\xd8")


def test_gone_changed_or_replaced_it_is_not_served(client: FlaskClient, video: StoredVideo, video_path: Path) -> None:
    assert client.get(f"/v1/videos/{video.id}/thumbnail.jpg").status_code == 200
    kept, facts = video_path.with_name("kept"), video_path.stat()
    video_path.rename(kept)
    assert set(refused(client, video)) == {"The film is not where it was: scan its source again."}
    video_path.symlink_to(kept)
    refused(client, video)
    video_path.unlink()
    shutil.copy(kept, video_path)
    assert set(refused(client, video)) == {"The film has changed since it was scanned: scan its source again."}
    os.utime(video_path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert played(client, video.id).data == kept.read_bytes()


def test_scanned_since_it_is_said_all_the_same(
    client: FlaskClient, video: StoredVideo, video_path: Path, scanned_source: ScannedSource
) -> None:
    scanned_source.put_video("other.mp4")
    video_path.rename(video_path.with_name("hidden"))
    assert scanned_source.run_scan_counts() == {"new": 1, "gone": 1}
    assert "not where it was" in refused(client, video)[0]
    scanned_source.put_video(video_path.name, tag="another film")
    scanned_source.run_scan()
    assert "No source has this film" in refused(client, video)[0]
    video_path.with_name("hidden").rename(video_path.with_name("found again.mp4"))
    scanned_source.run_scan()
    assert played(client, video.id).status_code == 200
    sources.delete_source(scanned_source.database, scanned_source.source_id)
    assert "No source has this film" in refused(client, video)[0]


def test_any_of_its_places_will_do(
    client: FlaskClient, video: StoredVideo, video_path: Path, scanned_source: ScannedSource
) -> None:
    scanned_source.put_video("copy.mp4", tag=video_path.name)
    scanned_source.run_scan()
    video_path.unlink()
    assert played(client, video.id).status_code == 200
    bytes_, form = (scanned_source.folder / "copy.mp4").read_bytes(), {"content_type": "video/mp4"}
    uploaded = client.post("/v1/videos", data=bytes_, **form)
    assert (uploaded.status_code, uploaded.json["id"], uploaded.json["stored"]) == (200, video.id, True)
    (scanned_source.folder / "copy.mp4").unlink()
    assert played(client, video.id).data == bytes_


def test_a_folder_that_is_allowed_no_longer(make_app: MakeApp, video: StoredVideo) -> None:
    client = make_app(source_roots="/no/such/root").test_client()
    assert "outside the folders" in refused(client, video)[0]


def test_written_to_while_it_is_sent_it_breaks_off(
    client: FlaskClient, video: StoredVideo, video_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def read(answer: Any) -> bytes:
        pieces = iter(answer.iter_encoded())
        with video_path.open("r+b") as changed:
            changed.write(b"another film")
        return b"".join(pieces)

    answer = client.get(f"/v1/videos/{video.id}/media", buffered=False)
    with pytest.raises(ConnectionResetError):
        read(answer)
    answer.close()
    assert "video.changed_while_sent" in caplog.text


def test_deleted_it_stays_on_the_disk(
    client: FlaskClient, video: StoredVideo, video_path: Path, scanned_source: ScannedSource
) -> None:
    before = video_path.read_bytes()
    assert client.delete(f"/v1/videos/{video.id}").status_code == 204
    assert video_path.read_bytes() == before
    assert scanned_source.run_scan_counts() == {"unchanged": 1}
    assert client.get("/v1/videos").json["items"] == []
    files = client.get(f"/v1/sources/{scanned_source.source_id}/files").json["items"]
    assert [(item["state"], item["video_id"], item["sha256"]) for item in files] == [("present", None, video.sha256)]
    client.post(f"/v1/sources/{scanned_source.source_id}/scan?force=true")
    scanned_source.run_scan_counts()
    assert [item["sha256"] for item in client.get("/v1/videos").json["items"]] == [video.sha256]

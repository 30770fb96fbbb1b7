"""Thumbnails: the very frame, turned and square, whoever asks and however many; and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from api.videos import thumbnails
from api.videos.thumbnails import ThumbnailCache
from tests.api.conftest import GREY_VIDEO, make_video_file
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.thumbnail import render_thumbnail
from worker.video.transform import View, apply_view


def picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def level(data: bytes) -> int:
    """Number of the frame of a video of `GREY_VIDEO`, by its grey."""
    return round(picture(data).convert("L").getpixel((8, 8)) * 219 / 255 / 2)


def upload(client: FlaskClient, video_file: Path) -> str:
    return str(client.post("/v1/videos", data=video_file.read_bytes(), content_type="video/mp4").json["id"])


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose frames can be told apart, with frames that are decoded out of order, not starting at 0."""
    options = ["-c:v", "libx264", "-bf", "2", "-qp", "4", "-g", "40", "-output_ts_offset", "5"]
    return make_video_file(tmp_path_factory.mktemp("grey") / "grey.mp4", *GREY_VIDEO, *options)


def test_the_frame_that_is_shown(grey: Path) -> None:
    video = probe_video(grey)
    tick = video.clock.time_base
    for at, frame in (("0", 0), ("0.0399", 0), ("0.04", 1), ("1.5", 37), ("1.6", 40), ("3.96", 99), ("9", 99)):
        pts = video.clock.start_pts + int(Fraction(at) / tick)
        assert level(render_thumbnail(grey, video, pts, 64)) == frame


@pytest.mark.parametrize(
    "options", [["-f", "h264"], ["-c:v", "mpeg2video", "-f", "mpegts", "-qscale", "2"], ["-c:v", "ffv1", "-f", "avi"]]
)
def test_other_containers(options: list[str], tmp_path: Path) -> None:
    """Streams without times, transport streams, and an index by frame."""
    video_file = make_video_file(tmp_path / "film", *GREY_VIDEO, *options)
    video = probe_video(video_file)
    with VideoReader(video_file) as reader:
        times = [frame.pts for frame in reader.read_frames()]
    assert [level(render_thumbnail(video_file, video, times[frame], 64)) for frame in (0, 37, 99)] == [0, 37, 99]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_and_square(rotation: int, tmp_path: Path) -> None:
    """The same picture as networks see, which is tested against a player's."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=160x96:rate=10:duration=1", "-vf", "setsar=2", "-pix_fmt", "yuv420p"]
    plain = make_video_file(tmp_path / "plain.mp4", *source)
    video_file = make_video_file(
        tmp_path / "turned.mp4", "-display_rotation", str(rotation), "-i", str(plain), "-c", "copy"
    )  # fmt: skip
    video = probe_video(video_file)
    assert video.rotation == rotation
    with VideoReader(video_file) as reader:
        decoded = apply_view(View.full_size(), next(iter(reader.read_frames())), video)
    rendered = picture(render_thumbnail(video_file, video, video.clock.start_pts, 160))
    wanted = Image.fromarray(decoded).resize(rendered.size, Image.Resampling.BOX)
    assert rendered.size == ((160, 48) if rotation % 180 == 0 else (96, 320))
    assert np.abs(np.asarray(rendered, int) - np.asarray(wanted, int)).mean() < 8


def test_over_http(client: FlaskClient, app: APIFlask, grey: Path) -> None:
    video = upload(client, grey)
    place = client.get(f"/v1/videos/{video}").json["urls"]["thumbnail"]
    answer = client.get(f"{place}?at=1.5&width=32")
    assert (answer.status_code, answer.mimetype, picture(answer.data).size) == (200, "image/jpeg", (32, 32))
    assert level(answer.data) == 37
    assert "immutable" in answer.headers["Cache-Control"]
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    again = {"If-None-Match": answer.headers["ETag"]}
    assert client.get(f"{place}?at=1.5&width=32", headers=again).status_code == 304
    assert client.get(f"{place}?at=1.54&width=32", headers=again).status_code == 200
    assert level(client.get(place).data) == 50  # the middle of the video
    assert picture(client.get(f"{place}?width=1000").data).size == (64, 64)  # never enlarged
    for query in ("at=4", "at=-1", "at=nan", "at=x", "width=8", "width=4000", "height=3"):
        refused = client.get(f"{place}?{query}")
        assert (refused.status_code, refused.json["code"]) == (400, "invalid_request"), query
        assert refused.json["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"
    assert client.get("/v1/videos/vid_no/thumbnail.jpg").json["code"] == "not_found"

    def ask(frame: int) -> TestResponse:
        return app.test_client().get(f"{place}?at={frame / 25}")

    with ThreadPoolExecutor(thumbnails.MAX_WAITING) as pool:
        answers = list(pool.map(ask, range(thumbnails.MAX_WAITING)))
    assert [level(one.data) for one in answers] == list(range(thumbnails.MAX_WAITING))


def test_too_many_at_once(client: FlaskClient, grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told so, and hold no thread."""
    video = upload(client, grey)
    for _ in range(thumbnails.MAX_WAITING):
        thumbnails._waiting_slots.acquire()
    try:
        answer = client.get(f"/v1/videos/{video}/thumbnail.jpg?at=3.3")
    finally:
        for _ in range(thumbnails.MAX_WAITING):
            thumbnails._waiting_slots.release()
    assert (answer.status_code, answer.json["code"], "Retry-After" in answer.headers) == (429, "rate_limited", True)
    monkeypatch.setattr(thumbnails, "TIMEOUT_S", 0.001)
    answer = client.get(f"/v1/videos/{video}/thumbnail.jpg?at=3.4")
    assert (answer.status_code, answer.json["code"]) == (504, "deadline_exceeded")


def test_a_video_that_has_become_unreadable(client: FlaskClient, grey: Path, data_dir: Path) -> None:
    video = upload(client, grey)
    (cache,) = [path for path in (data_dir / "objects").rglob("*") if path.is_file()]
    cache.write_bytes(b"no film any more")
    answer = client.get(f"/v1/videos/{video}/thumbnail.jpg?at=3.5")
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media")
    cache.unlink()
    assert client.get(f"/v1/videos/{video}/thumbnail.jpg?at=3.5").json["code"] == "not_found"


def test_only_so_much_is_kept() -> None:
    cache, made_names = ThumbnailCache(limit_bytes=10), list[str]()

    def get(name: str) -> bytes:
        def make() -> bytes:
            made_names.append(name)
            return name.encode() * 4

        return cache.get_or_make(name, make)

    for name in "aabacab":
        assert get(name) == name.encode() * 4
    assert made_names == ["a", "b", "c", "b"]


def test_the_process_needs_no_tensors(grey: Path) -> None:
    code = "import sys, worker.video.thumbnail; print('numpy' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"

"""What only a real gunicorn can show: uploads that break off, flat memory, early refusals, kept connections."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.api.conftest import ApiServer
from tests.support import factories
from tests.support.waiting import wait_until

MEGABYTE = 1 << 20


def head(headers: dict[str, str]) -> bytes:
    lines = ["POST /v1/videos HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


CUTS = {
    "length": (head({"Content-Length": "5000000"}), b"x" * MEGABYTE),
    "chunked": (head({"Transfer-Encoding": "chunked"}), b"100000\r\n" + b"x" * MEGABYTE + b"\r\n100000\r\n" + b"x" * 9),
    "chunk line": (head({"Transfer-Encoding": "chunked"}), b"10\r\n" + b"x" * 16 + b"\r\n"),
    "form": (
        head({"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "5000000"}),
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + b"x" * MEGABYTE,
    ),
}


@pytest.mark.parametrize("how", CUTS)
def test_an_upload_cut_off_half_way_leaves_nothing(how: str, api_server: ApiServer) -> None:
    before = api_server.count_stored()
    top, body = CUTS[how]
    with socket.create_connection(("127.0.0.1", api_server.port)) as client:
        client.sendall(top + body)
        wait_until("the upload is being written", api_server.list_incoming)
        client.shutdown(socket.SHUT_WR)  # half closed, so that the answer can be read
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "invalid_request"
    assert (api_server.list_incoming(), api_server.count_stored()) == ([], before)


def test_a_client_that_vanishes_leaves_nothing(api_server: ApiServer) -> None:
    before = api_server.count_stored()
    client = socket.create_connection(("127.0.0.1", api_server.port))
    client.sendall(CUTS["length"][0] + CUTS["length"][1])
    wait_until("the upload is being written", api_server.list_incoming)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as by a pulled cable
    client.close()
    wait_until("nothing is being written", lambda: not api_server.list_incoming())
    assert api_server.count_stored() == before
    assert httpx.get(f"{api_server.url}/readyz").status_code == 200


def test_uploads_over_the_wire(api_server: ApiServer, video_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        data = video_path.read_bytes()
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    raw = httpx.post(
        f"{api_server.url}/v1/videos", content=video_path.read_bytes(), headers={"Content-Type": "video/mp4"}
    )
    assert raw.status_code in {200, 201}
    chunked = httpx.post(f"{api_server.url}/v1/videos", content=pieces())
    with video_path.open("rb") as file:
        form = httpx.post(f"{api_server.url}/v1/videos", files={"file": ("a.mp4", file)})
    assert {(answer.status_code, answer.json()["id"]) for answer in (chunked, form)} == {(200, raw.json()["id"])}


def test_an_early_refusal_is_seen_by_the_sender(api_server: ApiServer) -> None:
    """The 65 GiB promised are refused at the head; a client that sends on all the same must see why."""
    with socket.create_connection(("127.0.0.1", api_server.port)) as client:
        client.sendall(head({"Content-Length": str(65 * 2**30), "Content-Type": "video/mp4"}))
        for _ in range(64):
            client.sendall(b"x" * MEGABYTE)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "video_too_large"


def memory_of(pid: int) -> int:
    """Peak resident bytes of a process and its children, as the kernel keeps it."""
    pids, peak = [pid], 0
    while pids:
        at = pids.pop()
        status = Path(f"/proc/{at}/status").read_text()
        peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
        pids += [int(child) for child in Path(f"/proc/{at}/task/{at}/children").read_text().split()]
    return peak


@pytest.mark.parametrize("form", [False, True])
def test_memory_is_flat(form: bool, api_server: ApiServer, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(256 * MEGABYTE)
    httpx.post(f"{api_server.url}/v1/videos", content=b"small")
    before = memory_of(api_server.pid)
    with big.open("rb") as file:
        if form:
            answer = httpx.post(f"{api_server.url}/v1/videos", files={"file": ("big", file)}, timeout=120)
        else:
            answer = httpx.post(f"{api_server.url}/v1/videos", content=file, timeout=120)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")
    assert memory_of(api_server.pid) - before < 48 * MEGABYTE
    assert api_server.list_incoming() == []


def test_a_cut_off_json_body(api_server: ApiServer) -> None:
    top = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", api_server.port)) as client:
        client.sendall(top + b"12")
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"invalid_request" in answer


def test_a_hundred_equal_requests_over_the_wire_are_one_job(api_server: ApiServer) -> None:
    body = {"video_id": factories.add_video(api_server.database).id, "analyses": [{"model": "shots"}]}
    with httpx.Client(headers={"Idempotency-Key": "one"}, timeout=60) as client, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.post(f"{api_server.url}/v1/jobs", json=body), range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_media_over_the_wire(api_server: ApiServer, video_path: Path) -> None:
    video = httpx.post(f"{api_server.url}/v1/videos", content=video_path.read_bytes()).json()
    with httpx.Client(base_url=api_server.url) as client:
        place = video["urls"]["media"]
        assert client.get(place).content == video_path.read_bytes()
        part = client.get(place, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, video_path.read_bytes()[10:20])
        assert client.head(place).headers["Content-Length"] == str(video_path.stat().st_size)
        assert client.get(place, headers={"Range": "bytes=999999999-"}).status_code == 416


@pytest.mark.browser
def test_docs_in_a_real_browser_without_network(api_server: ApiServer) -> None:
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("SCENEWORKS_REQUIRE_BROWSER"):
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as play, play.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser:
        page, requested_urls, messages = browser.new_page(), [], []
        page.on("request", lambda request: requested_urls.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(f"{api_server.url}/docs")
        page.wait_for_selector("#operations-Jobs-post_jobs_create_job")
        shown = page.locator(".opblock").count()
    document = httpx.get(f"{api_server.url}/openapi.json").json()
    assert shown == sum(len(operations) for operations in document["paths"].values())
    assert all(url.startswith((api_server.url, "data:")) for url in requested_urls)
    assert messages == []


def test_the_end_of_a_long_video_is_sought_not_read_up_to(api_server: ApiServer) -> None:
    """A player that jumps asks for a range far away; 64 GiB, nearly all of them a hole in the disk."""
    video = factories.add_video(api_server.database)
    path = api_server.data_dir / "objects" / video.sha256[:2] / video.sha256
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as film:
        film.truncate(64 * 2**30)
        film.seek(-4, os.SEEK_END)
        film.write(b"last")
    part = httpx.get(f"{api_server.url}/v1/videos/{video.id}/media", headers={"Range": "bytes=-4"}, timeout=60)
    assert (part.status_code, part.content) == (206, b"last")
    path.unlink()

"""What only a real gunicorn can show: uploads that break off, flat memory, early refusals, kept connections."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from shared.store import videos
from tests import factories
from tests.api.conftest import Served

MEGABYTE = 1 << 20


def files_in(data_dir: Path) -> list[Path]:
    return [path for path in data_dir.rglob("*") if path.is_file()]


def no_files_within(data_dir: Path, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while files_in(data_dir) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not files_in(data_dir)


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
def test_an_upload_cut_off_half_way_leaves_nothing(
    how: str, served: Served, film: Path, database: Engine, data_dir: Path
) -> None:
    top, body = CUTS[how]
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(top + body)
        deadline = time.monotonic() + 10
        while not files_in(data_dir) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert files_in(data_dir), "the upload was being written"
        client.shutdown(socket.SHUT_WR)  # half closed, so that the answer can be read
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "invalid_request"
    assert no_files_within(data_dir)
    assert videos.page(database, limit=1) == []


def test_a_client_that_vanishes_leaves_nothing(served: Served, database: Engine, data_dir: Path) -> None:
    client = socket.create_connection(("127.0.0.1", served.port))
    client.sendall(CUTS["length"][0] + CUTS["length"][1])
    deadline = time.monotonic() + 10
    while not files_in(data_dir) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert files_in(data_dir), "the upload was being written"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # reset, as a pulled cable would
    client.close()
    assert no_files_within(data_dir)
    assert videos.page(database, limit=1) == []
    assert httpx.get(f"{served.url}/readyz").status_code == 200


def test_uploads_over_the_wire(served: Served, film: Path) -> None:
    def pieces() -> Iterator[bytes]:
        data = film.read_bytes()
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    raw = httpx.post(f"{served.url}/v1/videos", content=film.read_bytes(), headers={"Content-Type": "video/mp4"})
    assert raw.status_code == 201
    chunked = httpx.post(f"{served.url}/v1/videos", content=pieces())
    with film.open("rb") as file:
        form = httpx.post(f"{served.url}/v1/videos", files={"file": ("a.mp4", file)})
    assert {(answer.status_code, answer.json()["id"]) for answer in (chunked, form)} == {(200, raw.json()["id"])}


def test_an_early_refusal_is_seen_by_the_sender(served: Served) -> None:
    """The 65 GiB promised are refused at the head; a client that sends on all the same must see why."""
    with socket.create_connection(("127.0.0.1", served.port)) as client:
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
def test_memory_is_flat(form: bool, served: Served, tmp_path: Path, data_dir: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(256 * MEGABYTE)
    httpx.post(f"{served.url}/v1/videos", content=b"small")
    before = memory_of(served.pid)
    with big.open("rb") as file:
        if form:
            answer = httpx.post(f"{served.url}/v1/videos", files={"file": ("big", file)}, timeout=120)
        else:
            answer = httpx.post(f"{served.url}/v1/videos", content=file, timeout=120)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")
    assert memory_of(served.pid) - before < 48 * MEGABYTE
    assert no_files_within(data_dir)


def test_a_cut_off_json_body(served: Served) -> None:
    top = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(top + b"12")
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"invalid_request" in answer


def test_a_hundred_equal_requests_over_the_wire_are_one_job(served: Served, database: Engine) -> None:
    body = {"video_id": factories.stored(database).id, "analyses": [{"model": "shots"}]}
    with httpx.Client(headers={"Idempotency-Key": "one"}, timeout=60) as client, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.post(f"{served.url}/v1/jobs", json=body), range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_media_over_the_wire(served: Served, film: Path) -> None:
    video = httpx.post(f"{served.url}/v1/videos", content=film.read_bytes()).json()
    with httpx.Client(base_url=served.url) as client:
        place = video["urls"]["media"]
        assert client.get(place).content == film.read_bytes()
        part = client.get(place, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, film.read_bytes()[10:20])
        assert client.head(place).headers["Content-Length"] == str(film.stat().st_size)
        assert client.get(place, headers={"Range": "bytes=999999999-"}).status_code == 416

"""Weights from ModelScope's hub: the real client of the `modelscope` package, against a hub of our own."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

from shared.errors import InvalidRequest, ModelUnavailable, SourceUnreachable, WeightsCorrupt
from tests.support.tiny_model import (
    EXPECTED,
    IMPORTED_AT,
    ONE_FILE,
    STATE,
    TOKENIZER_FILES,
    WITH_TOKENIZER,
    equal_states,
    save_zip,
)
from worker.weights import find_side_files, import_weights, load_imported
from worker.weights.hub import download_weights

ON_HUB = replace(ONE_FILE, repository="studio/tiny-network")


@dataclass
class Hub:
    """Two routes of the hub: the list of files, and a file. What it lists need not be what it gives."""

    name: str = "tiny.pt"
    data: bytes = b""
    sha256: str | None = None
    beside: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def listing(self) -> bytes:
        files = [self._listed(self.name, self.data, self.sha256)]
        files += [self._listed(name, data, hashlib.sha256(data).hexdigest()) for name, data in self.beside.items()]
        return json.dumps({"Code": 200, "Success": True, "Data": {"Files": files}}).encode()

    def _listed(self, path: str, data: bytes, sha256: str | None) -> dict[str, Any]:
        return {"Path": path, "Name": Path(path).name, "Type": "blob", "Size": len(data), "Sha256": sha256}

    def answer(self, path: str) -> bytes | None:
        self.asked.append(path)
        if "/repo/files" in path:
            return self.listing()
        held = {self.name: self.data} | self.beside
        return next((data for name, data in held.items() if f"FilePath={name}" in unquote(path)), None)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """With the tiny network on it, listed as it is."""
    client = pytest.importorskip("modelscope_hub", reason="the optional package modelscope is not installed")
    save_zip(STATE, tmp_path / "on-hub.pt")
    served = Hub(data=(tmp_path / "on-hub.pt").read_bytes())
    served.sha256 = hashlib.sha256(served.data).hexdigest()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = served.answer(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        client.set_default_config(None)  # it was read from the environment of an earlier test
        yield served
        client.set_default_config(None)
        server.shutdown()


def test_pulled_weights_are_the_published_ones(hub: Hub, tmp_path: Path) -> None:
    files = download_weights(ON_HUB, tmp_path / "scratch")
    card = import_weights(ON_HUB, files, tmp_path / "weights", IMPORTED_AT)
    assert equal_states(load_imported(ON_HUB.spec, (tmp_path / "weights",), EXPECTED), STATE)
    assert [(file.name, file.sha256) for file in card.sources] == [("tiny.pt", hub.sha256)]
    assert any("FilePath=tiny.pt" in path for path in hub.asked)


def test_files_in_folders_of_the_hub_are_pulled_too(hub: Hub, tmp_path: Path) -> None:
    hub.beside = {f"words/{name}": data for name, data in TOKENIZER_FILES.items()}
    published = replace(WITH_TOKENIZER, repository=ON_HUB.repository)
    files = download_weights(published, tmp_path / "scratch")
    card = import_weights(published, files, tmp_path / "weights", IMPORTED_AT)
    found = find_side_files(published, (tmp_path / "weights",))
    assert {name: path.read_bytes() for name, path in found.items()} == TOKENIZER_FILES
    assert [source.sha256 for source in card.sources] == [hub.sha256]
    assert (tmp_path / "scratch/words/vocab.json").is_file()


@pytest.mark.parametrize("sha256", [hashlib.sha256(b"other").hexdigest(), None], ids=["another hash", "no hash"])
def test_what_the_hub_does_not_vouch_for_is_refused(sha256: str | None, hub: Hub, tmp_path: Path) -> None:
    hub.sha256 = sha256
    with pytest.raises(WeightsCorrupt, match="hub lists"):
        download_weights(ON_HUB, tmp_path / "scratch")


def test_a_file_that_the_hub_no_longer_has(hub: Hub, tmp_path: Path) -> None:
    hub.name = "other.pt"
    with pytest.raises(SourceUnreachable, match=r"no tiny\.pt any more"):
        download_weights(ON_HUB, tmp_path / "scratch")


def test_a_hub_that_does_not_answer_is_unreachable(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceUnreachable, match="sceneworks-worker weights import tiny PATH") as caught:
        download_weights(ON_HUB, tmp_path / "scratch")
    assert "127.0.0.1" not in caught.value.detail


def test_without_the_package_pulling_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(ModelUnavailable, match="pip install 'modelscope"):
        download_weights(ON_HUB, tmp_path)


def test_weights_on_no_hub_say_how_they_are_had(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"on no hub\. Get them with: sceneworks-worker weights import tiny"):
        download_weights(ONE_FILE, tmp_path)

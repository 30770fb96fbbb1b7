"""From a file to shots over HTTP, with nothing but real processes in between."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.flow.conftest import CLIP, System

pytestmark = pytest.mark.flow

CUTS = 17
"""Cuts of the clip, as counted by people."""


def _job(client: httpx.Client, *analyses: dict[str, Any]) -> dict[str, Any]:
    video = client.post("/v1/videos", params={"name": "clip.mp4"}, content=CLIP.read_bytes()).raise_for_status().json()
    body = {"video_id": video["id"], "analyses": analyses}
    job: dict[str, Any] = client.post("/v1/jobs", json=body).raise_for_status().json()
    while job["state"] in {"queued", "running"}:
        job = client.get(job["urls"]["self"], params={"wait": 25}, timeout=40).raise_for_status().json()
    return job


def _events(folder: Path, action: str) -> list[dict[str, Any]]:
    lines = [line for log in folder.glob("process-*.log") for line in log.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in events if event["action"] == action]


def test_a_film_becomes_shots(system: System, api: str) -> None:
    system.worker()
    with httpx.Client(base_url=api) as client:
        shots = {"model": "shots"}, {"model": "shots", "params": {"detector": "hsv_luv"}}
        job = _job(client, *shots)
        assert job["state"] == "succeeded", job["error"]
        network, colours = (run["id"] for run in job["runs"])
        found = client.get(job["urls"]["results"]).json()
        artifacts = client.get(job["urls"]["artifacts"]).json()["items"]
        by_network = [item for item in found["items"] if item["run_id"] == network]
        assert len(by_network) == CUTS + 1
        assert len([item for item in found["items"] if item["run_id"] == colours]) > 2
        assert {item["weights"]["fingerprint"][:6] for item in found["provenance"] if item["weights"]} == {"a313d0"}
        archive = next(item for item in artifacts if item["kind"] == "keyframes" and item["run_id"] == network)
        sheet = next(item for item in artifacts if item["kind"] == "contact_sheet")
        _pictures_are_right(client, archive, by_network)
        assert Image.open(io.BytesIO(client.get(sheet["urls"]["self"]).content)).width > 500
        again = _job(client, *shots)
        assert [run["reused"] for run in again["runs"]] == [True, True]
    executed = _events(system.folder, "run.executed")
    assert len(executed) == 2  # the twins were shared
    assert all(event["decoded"] == event["frames"] == 1441 for event in executed)  # each film decoded once


def _pictures_are_right(client: httpx.Client, archive: dict[str, Any], shots: list[dict[str, Any]]) -> None:
    content = client.get(archive["urls"]["self"]).content
    with zipfile.ZipFile(io.BytesIO(content)) as pictures:
        names = {f"shot_{shot['seq']:04d}_img_{n}.jpg" for shot in shots for n in range(3)}
        assert set(pictures.namelist()) == names
        assert Image.open(pictures.open("shot_0000_img_0.jpg")).size == (176, 144)  # never enlarged
    one = client.get(f"{archive['urls']['self']}/members/shot_0003_img_1.jpg")
    assert one.headers["Content-Type"] == "image/jpeg"
    assert one.content[:2] == b"\xff\xd8"

"""From a file to shots over HTTP, with nothing but real processes in between."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.flow.conftest import System, read_events, run_sample_job

pytestmark = pytest.mark.flow

CUTS = 17
"""Cuts of the clip, as counted by people."""


def test_a_video_becomes_shots(system: System, api_url: str) -> None:
    system.start_worker()
    with httpx.Client(base_url=api_url) as client:
        shots = {"model": "shots"}, {"model": "shots", "params": {"detector": "hsv_luv"}}
        job = run_sample_job(client, *shots)
        assert job["state"] == "succeeded", job["error"]
        network, colours = (run["id"] for run in job["runs"])
        results = client.get(job["urls"]["results"]).json()
        artifacts = client.get(job["urls"]["artifacts"]).json()["items"]
        by_network = [item for item in results["items"] if item["run_id"] == network]
        assert len(by_network) == CUTS + 1
        assert len([item for item in results["items"] if item["run_id"] == colours]) > 2
        assert {item["weights"]["fingerprint"][:6] for item in results["provenance"] if item["weights"]} == {"a313d0"}
        keyframes = next(item for item in artifacts if item["kind"] == "keyframes" and item["run_id"] == network)
        sheet = next(item for item in artifacts if item["kind"] == "contact_sheet")
        _check_keyframes(client, keyframes, by_network)
        assert Image.open(io.BytesIO(client.get(sheet["urls"]["self"]).content)).width > 500
        again = run_sample_job(client, *shots)
        assert [run["reused"] for run in again["runs"]] == [True, True]
    executed = read_events(system.folder, "run.executed")
    assert len(executed) == 2  # the second job shares both runs
    assert all(event["decoded"] == event["frames"] == 1441 for event in executed)  # each video decoded once


def _check_keyframes(client: httpx.Client, keyframes: dict[str, Any], shots: list[dict[str, Any]]) -> None:
    content = client.get(keyframes["urls"]["self"]).content
    with zipfile.ZipFile(io.BytesIO(content)) as zip_file:
        names = {f"shot_{shot['seq']:04d}_img_{n}.jpg" for shot in shots for n in range(3)}
        assert set(zip_file.namelist()) == names
        assert Image.open(zip_file.open("shot_0000_img_0.jpg")).size == (176, 144)  # never enlarged
    member = client.get(f"{keyframes['urls']['self']}/members/shot_0003_img_1.jpg")
    assert member.headers["Content-Type"] == "image/jpeg"
    assert member.content[:2] == b"\xff\xd8"

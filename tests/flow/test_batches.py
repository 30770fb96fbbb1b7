"""A source is scanned, processed by a schedule, killed half-way and started again; then reprocessed and compared.

With more clips, as a command: `SCENEWORKS_TEST_CLIPS=200 make test-flow ARGS="-k source"`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from tests.flow.conftest import SAMPLE_CLIP, System, read_events
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow

CLIPS = int(os.environ.get("SCENEWORKS_TEST_CLIPS", "8"))
PATIENCE_S = 60 + 8 * CLIPS
SHOTS = {"model": "shots", "params": {"detector": "hsv_luv"}}
OTHERS = {"model": "shots", "params": {"detector": "hsv_luv", "min_shot_frames": 40}}


@pytest.fixture
def source_folder(tmp_path: Path) -> Path:
    """Clips of eight seconds, all with different bytes."""
    folder = tmp_path / "source"
    folder.mkdir()
    first = folder / "000.mp4"
    cut = [
        get_ffmpeg_exe(),
        "-nostdin",
        "-loglevel",
        "error",
        "-ss",
        "20",
        "-i",
        str(SAMPLE_CLIP),
        "-t",
        "8",
        "-c",
        "copy",
    ]
    subprocess.run([*cut, str(first)], check=True)
    for number in range(1, CLIPS):
        path = folder / f"{number // 100}" / f"{number:03d}.mp4"
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(first, path)
        with path.open("ab") as file:  # a box that players skip (ISO/IEC 14496-12, 8.1.2)
            file.write((16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
    return folder


def start_processes(system: System, source_folder: Path) -> None:
    """Start all processes but the API."""
    system.start_beat()
    system.start_process("worker.scanner", SCENEWORKS_SOURCE_ROOTS=str(source_folder.parent), SCENEWORKS_SETTLE_S="0")
    system.start_worker()


def post(client: httpx.Client, path: str, body: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
    answer = client.post(path, json=body, params=query)
    assert answer.is_success, answer.text
    return dict(answer.json())


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_source_is_processed_once_despite_kills_and_then_reprocessed(system: System, source_folder: Path) -> None:
    url = system.start_api(SCENEWORKS_SOURCE_ROOTS=str(source_folder.parent))
    start_processes(system, source_folder)
    with httpx.Client(base_url=url, timeout=30) as client:
        source = post(client, "/v1/sources", {"name": "videos", "folder": str(source_folder), "labels": {"show": "x"}})
        wait_until("the files are scanned", lambda: count_present(client, source) == CLIPS, PATIENCE_S)
        night = {"name": "night", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "analyses": [SHOTS], "cap": 4}
        schedule = post(client, "/v1/schedules", night | {"selection": {"sources": [source["id"]], "only": "missing"}})
        batch = post(client, f"/v1/schedules/{schedule['id']}/run")
        wait_until("half of it is done", lambda: count_succeeded(client, batch) >= CLIPS // 2, PATIENCE_S)
    system.kill_processes()
    before = count_finished_runs(system)
    assert before < CLIPS
    url = system.start_api(SCENEWORKS_SOURCE_ROOTS=str(source_folder.parent))
    start_processes(system, source_folder)
    with httpx.Client(base_url=url, timeout=30) as client:
        wait_until("the rest is done", lambda: get_state(client, batch) == "succeeded", PATIENCE_S)
        ended = client.get(f"/v1/batches/{batch['id']}").json()
        assert ended["counts"] == {"succeeded": CLIPS}
        finished = Counter(event["run"] for event in read_events(system.folder, "run.done"))
        assert len(finished) == CLIPS
        assert set(finished.values()) == {1}
        jobs = client.get("/v1/jobs", params={"limit": 500, "label": "show:x"}).json()["items"]
        assert len(jobs) == CLIPS
        assert {job["priority"] for job in jobs} == {"low"}
        reprocess_and_compare(client, source, ended)


def reprocess_and_compare(client: httpx.Client, source: dict[str, Any], first: dict[str, Any]) -> None:
    """Reprocess with other parameters: a dry run, the run, the diff. A second time there is nothing to do."""
    body = {"analyses": [OTHERS], "selection": {"sources": [source["id"]]}}
    plan = post(client, "/v1/reprocess", body, dry_run=True)
    assert plan["to_do"]["videos"] == plan["selected"]["videos"] == CLIPS
    [estimate] = plan["estimates"]
    assert (estimate["runs"], estimate["measured_runs"]) == (CLIPS, CLIPS)
    assert 0 < estimate["seconds"]["low"] <= estimate["seconds"]["usual"] <= estimate["seconds"]["high"]
    item = client.get(f"/v1/batches/{first['id']}/items", params={"limit": 1}).json()["items"][0]
    results = f"/v1/videos/{item['video_id']}/results"
    old = client.get(results, params={"model": "shots"}).json()
    batch = post(client, "/v1/reprocess", body)
    assert client.get(results, params={"model": "shots"}).json()["items"] == old["items"]  # until the new one is done
    wait_until("all results are current", lambda: get_state(client, batch) == "succeeded", PATIENCE_S)
    runs = client.get(f"/v1/videos/{item['video_id']}/runs").json()["items"]
    assert [run["current"] for run in runs] == [True, False]
    assert runs[1]["superseded_by"] == runs[0]["id"]
    again = client.get(results, params={"model": "shots", "run": runs[1]["id"]}).json()
    assert again["items"] == old["items"]
    changes = client.get(f"/v1/batches/{batch['id']}/diff").json()
    assert changes["complete"]
    assert changes["videos"] == {"compared": CLIPS}
    shots = changes["kinds"]["shot"]
    assert shots["before"] == CLIPS * len(old["items"])
    assert 0 < shots["after"] < shots["before"]  # cuts soon after another one are ignored now
    assert shots["changes"]["merged"] > 0
    nothing = client.post("/v1/reprocess", json=body)
    assert nothing.status_code == 400
    assert "left to do" in nothing.json()["detail"]


def count_present(client: httpx.Client, source: dict[str, Any]) -> int:
    return int(client.get(f"/v1/sources/{source['id']}").json()["counts"].get("present", 0))


def count_succeeded(client: httpx.Client, batch: dict[str, Any]) -> int:
    return int(client.get(f"/v1/batches/{batch['id']}").json()["counts"].get("succeeded", 0))


def get_state(client: httpx.Client, batch: dict[str, Any]) -> str:
    return str(client.get(f"/v1/batches/{batch['id']}").json()["state"])


def count_finished_runs(system: System) -> int:
    return len(read_events(system.folder, "run.done"))

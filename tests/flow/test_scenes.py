"""Scenes over HTTP: weights imported by the command, shots and scenes by real workers, the video is decoded once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from shared.store import workers
from tests.flow.conftest import SAMPLE_CLIP, System, read_events, run_sample_job
from tests.support.seeded_weights import read_table
from tests.support.waiting import wait_until
from worker.models.bassl.network import BaSSL
from worker.video.probe import probe_video

pytestmark = pytest.mark.flow

SHOTS = {"model": "shots", "params": {"detector": "hsv_luv"}}
EXACT = {"precision": "fp32"}


@pytest.fixture(scope="module")
def published_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BaSSL's weights in the format that its authors publish, with name-seeded numbers."""
    state = dict(BaSSL().state_dict()) | {
        row.key: row.make_tensor() for row in read_table("bassl") if row.kind != "keep"
    }
    path = tmp_path_factory.mktemp("published") / "pytorch_model.pt"
    torch.save(state, path)
    return path


def _import(system: System, *files: Path) -> None:
    command = [sys.executable, "-m", "worker.cli", "weights", "import", "bassl", *map(str, files)]
    subprocess.run(command, env=system.full_environment, check=True, capture_output=True)


def test_a_job_is_refused_until_the_weights_are_there(system: System, api_url: str, published_weights: Path) -> None:
    system.start_worker(SCENEWORKS_MODELS="shots,bassl")
    with httpx.Client(base_url=api_url) as client:
        video = client.post("/v1/videos", content=SAMPLE_CLIP.read_bytes()).json()
        refused = client.post("/v1/jobs", json={"video_id": video["id"], "analyses": [{"model": "bassl"}]})
        assert (refused.status_code, refused.json()["code"]) == (503, "weights_missing")
        assert "sceneworks-worker weights pull bassl" in refused.json()["detail"]
        assert client.get("/v1/jobs").json()["items"] == []
        models = {item["name"]: item for item in client.get("/v1/models").json()["items"]}
        assert models["bassl"]["weights"]["state"] == "missing"
        assert models["shots"]["weights"]["state"] == "present"
        _import(system, published_weights)  # while the worker runs
        wait_until("the worker offers the model", lambda: client.get("/v1/models/bassl").json()["available"])
        body = {"video_id": video["id"], "analyses": [{"model": "bassl"}]}
        assert client.post("/v1/jobs", params={"validate_only": True}, json=body).status_code == 200


def test_a_worker_without_weights_waits_for_them(system: System, published_weights: Path) -> None:
    process = system.start_process("worker.main", SCENEWORKS_MODELS="bassl")
    wait_until(
        "the worker reports missing weights",
        lambda: [worker for worker in workers.list_workers(system.engine) if worker.state == "setup_failed"],
    )
    [worker] = workers.list_workers(system.engine)
    assert "sceneworks-worker weights pull bassl" in (worker.reason or "")
    _import(system, published_weights)
    wait_until("the worker is ready", lambda: workers.list_workers(system.engine)[0].state == "ready")
    assert process.poll() is None


def test_another_threshold_encodes_nothing(system: System, api_url: str, published_weights: Path) -> None:
    _import(system, published_weights)
    system.start_worker(SCENEWORKS_MODELS="shots,bassl")
    with httpx.Client(base_url=api_url) as client:
        first = run_sample_job(client, SHOTS, {"model": "bassl", "params": EXACT})
        assert first["state"] == "succeeded", first["error"]
        rows = client.get(first["urls"]["results"], params={"model": "bassl"}).json()
        shots = client.get(first["urls"]["results"], params={"model": "shots"}).json()["items"]
        bounds = [row for row in rows["items"] if row["kind"] == "boundary"]
        assert [(row["start"], row["end"]) for row in bounds] == [(row["start"], row["end"]) for row in shots]
        _check_coverage(rows["items"], len(shots))
        scores = sorted(row["score"] for row in bounds)
        middle = scores[len(scores) // 2]
        again = run_sample_job(client, SHOTS, {"model": "bassl", "params": EXACT | {"threshold": middle}})
        regrouped = client.get(again["urls"]["results"], params={"model": "bassl"}).json()
        assert _scores(regrouped["items"]) == _scores(rows["items"])
        _check_coverage(regrouped["items"], len(shots))
        assert len([row for row in regrouped["items"] if row["kind"] == "scene"]) > 2
        fingerprints = {entry["model"]: entry["weights"] for entry in regrouped["provenance"]}
        assert len(fingerprints["bassl"]["fingerprint"]) == 64
    executed = read_events(system.folder, "run.executed")
    assert [(event["model"], event["decoded"]) for event in executed] == [("shots", 1441), ("bassl", 0), ("bassl", 0)]
    encode = next(stage for stage in again["runs"][-1]["stages"] if stage["name"] == "encode")
    assert encode["of"] == 0


def test_scenes_without_queue_and_database(system: System, published_weights: Path) -> None:
    _import(system, published_weights)
    params = ["-p", "shots.detector=hsv_luv", "-p", "split_scenes=true"]
    command = ["run", "--model", "bassl", *params, "--json", str(SAMPLE_CLIP)]
    completed = subprocess.run(
        [sys.executable, "-m", "worker.cli", *command, "--out", str(system.folder / "out")],
        env=system.full_environment,
        check=True,
        capture_output=True,
    )
    answer = json.loads(completed.stdout)
    shots = [row for row in answer["results"] if row["kind"] == "shot"]
    _check_coverage(answer["results"], len(shots))
    scenes = [row for row in answer["results"] if row["kind"] == "scene"]
    for seq, scene in enumerate(scenes):
        clip = probe_video(system.folder / "out" / f"scene_{seq:04d}.mp4")
        assert clip.frames == scene["end"]["frame"] - scene["start"]["frame"]
        assert clip.audio
    assert (system.folder / "out" / "keyframes.zip").exists()


def _scores(rows: list[dict[str, Any]]) -> list[float]:
    return [row["score"] for row in rows if row["kind"] == "boundary"]


def _check_coverage(rows: list[dict[str, Any]], shots: int) -> None:
    """Scenes hold every shot once, in order."""
    spans = [row["data"]["shots"] for row in rows if row["kind"] == "scene"]
    assert [shot for first, last in spans for shot in range(first, last + 1)] == list(range(shots))

"""Every model in one job, over HTTP, by real workers, with weights imported from their published forms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import browser
from tests.conftest import EXTERNAL_MATERIAL
from tests.flow.conftest import SAMPLE_CLIP, System, read_events, run_job
from tests.support.checkpoints import make_state, save_torchscript, temporary_folder
from tests.support.seeded_networks import build_r2plus1d, make_clip_state
from tests.worker.models.mttr.test_weights import constants, delivered
from worker.models.bassl.network import BaSSL
from worker.video.probe import probe_video

__all__ = ["browser"]

pytestmark = [pytest.mark.flow, pytest.mark.slow]
BUNNY = EXTERNAL_MATERIAL / "media/big_buck_bunny_720p_h264_full.mp4"
VIDEOS = [
    pytest.param(SAMPLE_CLIP, {}, id="clip"),
    pytest.param(
        BUNNY,
        {"short_side": 360, "precision": "auto"},
        id="big buck bunny",
        marks=pytest.mark.skipif(not BUNNY.exists(), reason=f"the video Big Buck Bunny is not at {BUNNY}"),
    ),
]
QUERIES = ["the big rabbit", "a tree"]
PLAY = """
async url => {
  const video = document.createElement("video");
  video.muted = true;
  video.src = url;
  document.body.append(video);
  await video.play();
  while (video.currentTime < 0.5) await new Promise(resolve => setTimeout(resolve, 50));
  return video.videoWidth;
}
"""
SINCE_S, UNTIL_S = 20.0, 22.0


@pytest.fixture(scope="module")
def weights() -> Iterator[Path]:
    """Name-seeded weights of every model that imports them, as `weights import` writes them."""
    import torch

    with temporary_folder() as folder:
        files_by_model: dict[str, list[Path]] = {}
        for name, state in (("bassl", _bassl()), ("r2plus1d", dict(build_r2plus1d().network.state_dict()))):
            files_by_model[name] = [folder / name / "pytorch_model.pt"]
            files_by_model[name][0].parent.mkdir()
            torch.save(state, files_by_model[name][0])
        files_by_model["clip_it"] = [folder / "clip_it"]
        (folder / "clip_it/clip").mkdir(parents=True)
        torch.save({"params": make_state("clip_it")}, folder / "clip_it/pytorch_model.pt")
        save_torchscript(make_clip_state(), folder / "clip_it/clip/ViT-B-32.pt")
        files_by_model["mttr"] = [delivered(folder, {"model_state_dict": make_state("mttr") | constants()})]
        for name, files in files_by_model.items():
            command = [sys.executable, "-m", "worker.cli", "weights", "import", name, *map(str, files)]
            environment = {"SCENEWORKS_WEIGHTS_DIR": str(folder / "weights"), "PATH": ""}
            subprocess.run(command, env=environment, check=True, capture_output=True)
        yield folder / "weights"


def _bassl() -> dict[str, Any]:
    return dict(BaSSL().state_dict()) | make_state("bassl")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("video_path", "mttr_params"), VIDEOS)
def test_every_model_in_one_job(
    video_path: Path, mttr_params: dict[str, Any], system: System, api_url: str, weights: Path, browser: Browser
) -> None:
    system.start_worker(SCENEWORKS_MODELS="*", SCENEWORKS_WEIGHTS_DIR=str(weights))
    analyses = [
        {"model": "shots", "params": {"detector": "hsv_luv"}},
        {"model": "bassl"},
        {"model": "clip_it", "params": {"sentences": ["a rabbit wakes up", "somebody falls"]}},
        {
            "model": "mttr",
            "params": {"queries": QUERIES, "masks": True, "short_side": 96} | mttr_params,
            "range": {"start_s": SINCE_S, "end_s": UNTIL_S},
        },
        {"model": "r2plus1d"},
        {"model": "r2plus1d", "params": {"per": "shot", "clips": 1}},
    ]
    with httpx.Client(base_url=api_url, timeout=60) as client:
        job = run_job(client, video_path, *analyses, patience_s=1500)
        assert job["state"] == "succeeded", job["error"]
        results = client.get(job["urls"]["results"], params={"limit": 5000}).json()
        kinds = {row["kind"] for row in results["items"]}
        assert kinds == {
            "shot", "boundary", "scene", "frame_score", "segment", "highlight", "caption", "track", "embedding"
        }  # fmt: skip
        files = client.get(job["urls"]["artifacts"]).json()["items"]
        _check_summary(client, results["items"], files, video_path, system.folder)
        _check_masks(client, results["items"], files, system.folder)
        _check_search(client, job["video_id"], results["items"])
        _check_playback(browser, api_url, files)
        _check_second_query(client, video_path, results["items"])
    executed = [event for event in read_events(system.folder, "run.executed") if event["model"] == "clip_it"]
    assert executed[1]["decoded"] == 0


def _check_second_query(client: httpx.Client, video_path: Path, rows: list[dict[str, Any]]) -> None:
    """Another query scores the same frames differently."""
    second_query = {"model": "clip_it", "params": {"sentences": ["a butterfly"], "summary_video": False}}
    job = run_job(client, video_path, second_query, patience_s=120)
    assert job["state"] == "succeeded", job["error"]
    other = client.get(job["urls"]["results"], params={"kind": "frame_score", "limit": 5000}).json()["items"]
    scores = [row for row in rows if row["kind"] == "frame_score"]
    assert [row["start"] for row in other] == [row["start"] for row in scores]
    assert [row["score"] for row in other] != [row["score"] for row in scores]


def _download(client: httpx.Client, files: list[dict[str, Any]], kind: str, folder: Path) -> Path:
    [file] = [file for file in files if file["kind"] == kind]
    path = folder / str(file["name"])
    path.write_bytes(client.get(file["urls"]["self"]).raise_for_status().content)
    return path


def _check_summary(client: httpx.Client, rows: list[dict[str, Any]], files: list[dict[str, Any]], video_path: Path,
             folder: Path) -> None:  # fmt: skip
    """The summary video has the frames of the highlights, within the budget."""
    spans = [(row["start"]["frame"], row["end"]["frame"]) for row in rows if row["kind"] == "highlight"]
    frames = sum(end - start for start, end in spans)
    assert 0 < frames <= 0.15 * probe_video(video_path).frames
    summary = probe_video(_download(client, files, "summary_video", folder))
    assert summary.frames == frames
    assert bool(summary.audio) == bool(probe_video(video_path).audio)


def _check_masks(client: httpx.Client, rows: list[dict[str, Any]], files: list[dict[str, Any]], folder: Path) -> None:
    """One track for each query, one line for each frame and query, an overlay of the same length."""
    tracks = [row for row in rows if row["kind"] == "track"]
    assert [row["data"]["query"] for row in tracks] == QUERIES
    frames = tracks[0]["end"]["frame"] - tracks[0]["start"]["frame"]
    assert tracks[0]["start"]["seconds"] == pytest.approx(SINCE_S, abs=0.05)
    lines = _download(client, files, "tracks", folder).read_text().splitlines()
    assert len(lines) == frames * len(QUERIES)
    assert probe_video(_download(client, files, "overlay_video", folder)).frames == frames


def _check_search(client: httpx.Client, video_id: str, rows: list[dict[str, Any]]) -> None:
    shots = [row for row in rows if row["kind"] == "embedding" and row["start"]]
    assert len(shots) == len([row for row in rows if row["kind"] == "shot"])
    body = {"video_id": video_id, "seq": 0, "per": "shot", "exclude_same_video": False, "limit": 3}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    similar = [item["similarity"] for item in answer.json()["items"]]
    assert similar == sorted(similar, reverse=True)


def _check_playback(browser: Browser, api: str, files: list[dict[str, Any]]) -> None:
    """Every video that the job rendered plays in Chromium."""
    videos = [file for file in files if file["media_type"].startswith("video/")]
    assert {file["kind"] for file in videos} == {"summary_video", "overlay_video"}
    page = browser.new_page()
    page.goto(api)
    for file in videos:
        assert page.evaluate(PLAY, file["urls"]["self"]) > 0
    page.close()

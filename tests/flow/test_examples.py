"""The scripts in `examples/`, run as a person runs them, against a real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe

from tests.flow.conftest import SAMPLE_CLIP, System, run_job
from tests.support.checkpoints import make_state, save_torchscript, temporary_folder
from tests.support.seeded_networks import make_clip_state
from worker.models.bassl.network import BaSSL
from worker.video.probe import probe_video

pytestmark = pytest.mark.flow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HSV_LUV = {"model": "shots", "params": {"detector": "hsv_luv"}}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with two videos of eight seconds, and a file that is none."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for since in (10, 20):
        cut = [
            get_ffmpeg_exe(), "-v", "error", "-ss", str(since), "-i", str(SAMPLE_CLIP), "-t", "8", "-an", "-c", "copy",
        ]  # fmt: skip
        subprocess.run([*cut, str(folder / f"{since}.mp4")], check=True)
    (folder / "notes.txt").write_text("not a video", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bassl_weights() -> Iterator[Path]:
    """A weights folder with name-seeded weights of `bassl`."""
    with temporary_folder() as folder:
        torch.save(dict(BaSSL().state_dict()) | make_state("bassl"), folder / "pytorch_model.pt")
        yield import_weights("bassl", folder / "pytorch_model.pt", folder / "weights")


@pytest.fixture(scope="module")
def clip_it_weights() -> Iterator[Path]:
    """A weights folder with name-seeded weights of `clip_it`, whose CLIP alone has 151 million parameters."""
    with temporary_folder() as folder:
        (folder / "published" / "clip").mkdir(parents=True)
        torch.save({"params": make_state("clip_it")}, folder / "published/pytorch_model.pt")
        save_torchscript(make_clip_state(), folder / "published/clip/ViT-B-32.pt")
        yield import_weights("clip_it", folder / "published", folder / "weights")


def import_weights(model: str, published: Path, weights: Path) -> Path:
    """Import published files by the command; returns the weights folder."""
    command = [sys.executable, "-m", "worker.cli", "weights", "import", model, str(published)]
    environment = {"SCENEWORKS_WEIGHTS_DIR": str(weights), "PATH": ""}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return weights


def run_example(name: str, url: str, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"SCENEWORKS_URL": url},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_scenes_of_a_folder(system: System, clips: Path, bassl_weights: Path, tmp_path: Path) -> None:
    url = system.start_api(SCENEWORKS_WEIGHTS_DIR=str(bassl_weights))
    system.start_worker(SCENEWORKS_MODELS="shots,bassl", SCENEWORKS_WEIGHTS_DIR=str(bassl_weights))
    scenes = run_example("find_scenes.py", url, tmp_path, clips)
    assert scenes.returncode == 0, scenes.stderr
    assert re.findall(r"^(\S+): (\w+)$", scenes.stdout, flags=re.MULTILINE) == [
        ("10.mp4", "succeeded"),
        ("20.mp4", "succeeded"),
    ]
    assert re.search(r"^  scene 0  00:00:00[:;]00 - 00:00:0\d[:;]\d\d$", scenes.stdout, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_question_about_a_video(system: System, clips: Path, clip_it_weights: Path, tmp_path: Path) -> None:
    url = system.start_api(SCENEWORKS_WEIGHTS_DIR=str(clip_it_weights))
    system.start_worker(SCENEWORKS_MODELS="clip_it", SCENEWORKS_WEIGHTS_DIR=str(clip_it_weights))
    answer = run_example("ask_question.py", url, tmp_path, clips / "20.mp4", "a person speaks", "a street")
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"^00:00:0\d[:;]\d\d - 00:00:0\d[:;]\d\d  score 0\.\d+$", answer.stdout, flags=re.MULTILINE)
    assert 0 < probe_video(tmp_path / "summary.mp4").frames < probe_video(clips / "20.mp4").frames


def test_reprocess_and_compare(system: System, clips: Path, tmp_path: Path) -> None:
    url = system.start_api()
    system.start_worker()
    system.start_beat()  # creates the jobs of a batch
    with httpx.Client(base_url=url, timeout=60) as client:
        for path in sorted(clips.glob("*.mp4")):
            assert run_job(client, path, HSV_LUV)["state"] == "succeeded"
    arguments = ("shots", "detector=hsv_luv", "min_shot_frames=40")
    compared = run_example("reprocess_and_compare.py", url, tmp_path, *arguments)
    assert compared.returncode == 0, compared.stderr
    assert "To do: 2 of 2 videos" in compared.stdout
    assert "{'succeeded': 2}" in compared.stdout
    assert re.search(r"^shot: \d+ before, \d+ after, \{'kept': \d+", compared.stdout, flags=re.MULTILINE)

    again = run_example("reprocess_and_compare.py", url, tmp_path, *arguments)
    assert again.returncode == 1
    assert "invalid_request: " in again.stderr
    assert "left to do" in again.stderr

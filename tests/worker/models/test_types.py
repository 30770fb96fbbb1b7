"""The types of the model contract: mypy rejects a model whose stages do not fit together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
from collections.abc import Sequence
from pathlib import Path

from shared.catalog import ShotsParams
from shared.values import VideoFacts
from worker.models.contract import (
    ClipPlan, ModelDefinition, ModelOutput, RunContext, RunInputs, WindowOutput, hold_outputs,
)
from worker.runtime.placement import Placement
from worker.video.transform import View
from worker.video.windows import Frames


def load_network(folders: Sequence[Path], placement: Placement) -> str:
    return ""


def plan(video: VideoFacts, inputs: RunInputs, params: ShotsParams, placement: Placement) -> ClipPlan:
    return ClipPlan(View.full_size(), ())


def encode(network: str, frames_BTHWC: Frames, params: ShotsParams) -> list[ENCODED]:
    return []


def infer(network: NETWORK, outputs: Sequence[WindowOutput[bytes]], params: ShotsParams) -> int:
    return 1


def postprocess(scores: SCORES, context: RunContext, params: ShotsParams) -> ModelOutput:
    return ModelOutput()


MODEL = ModelDefinition(
    name="small",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=hold_outputs,
    infer=infer,
    postprocess=postprocess,
)
"""
CASES = {
    "fitting": {},
    "scores": {"SCORES": "str"},
    "encoded": {"ENCODED": "float"},
    "network": {"NETWORK": "int"},
}
"""What each small model changes in a model that fits together."""

ROOT = Path(__file__).resolve().parents[3]


def write_models(folder: Path) -> list[Path]:
    """Write one small model for each case."""
    paths = []
    for name, changed_types in CASES.items():
        source = MODEL
        for placeholder, type_name in ({"ENCODED": "bytes", "NETWORK": "str", "SCORES": "int"} | changed_types).items():
            source = source.replace(placeholder, type_name)
        paths.append(folder / f"small_{name}.py")
        paths[-1].write_text(source)
    return paths


@pytest.mark.timeout(900)
def test_stages_that_do_not_fit_together_do_not_type_check(tmp_path: Path) -> None:
    paths = write_models(tmp_path)
    # With the options of the repository mypy shares its cache with `make lint`: seconds where that ran before, and a
    # minute or more where it has to read torch first.
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr
    rejected = {name for name in CASES if f"small_{name}.py" in done.stdout}
    assert rejected == CASES.keys() - {"fitting"}, done.stdout
    assert 'Cannot infer value of type parameter "ScoresT" of "ModelDefinition"' in done.stdout
